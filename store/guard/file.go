package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// fileName is where an instance remembers its store, in its data directory.
const fileName = "store.identity"

// readMark returns the zero mark when nothing is remembered.
func readMark(name string) (mark, error) {
	var m mark
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, fmt.Errorf("reading which store this instance knows: %w", err)
	}
	if err := json.Unmarshal(text, &m); err != nil || !m.exists() {
		return mark{}, fmt.Errorf("%s does not say which store this instance knows; if nothing was lost, remove the file", name)
	}
	return m, nil
}

// writeMark replaces the file as a whole, so that a crash leaves one or the other.
func writeMark(name string, m mark) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(name), fileName+".*") // mode 0600
	if err == nil {
		_, err = file.Write(append(text, '\n'))
		err = errors.Join(err, file.Sync(), file.Close())
		if err == nil {
			err = os.Rename(file.Name(), name)
		}
		if err != nil {
			os.Remove(file.Name())
		}
	}
	if err != nil {
		return fmt.Errorf("remembering which store this instance knows: %w", err)
	}
	return nil
}
