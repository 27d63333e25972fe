package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// logFile is a file that is put aside when it has grown to a size, under its name with
// the time added, and of which so many old ones are kept. One goroutine writes it.
type logFile struct {
	path   string
	size   int64 // bytes that it grows to
	keep   int   // old ones
	reopen atomic.Bool

	file    *os.File
	written int64
}

// openLogFile opens the file to be appended to, or makes it, with mode 0600.
func openLogFile(path string, size int64, keep int) (*logFile, error) {
	f := &logFile{path: path, size: size, keep: keep}
	return f, f.open()
}

func (f *logFile) open() error {
	// Not blocking: nobody may read from what turns out to be a pipe.
	file, err := os.OpenFile(f.path, os.O_RDWR|os.O_CREATE|os.O_APPEND|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", f.path)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	f.file, f.written = file, info.Size()
	last := []byte("\n")
	if f.written > 0 {
		_, err = file.ReadAt(last, f.written-1)
	}
	if err == nil && last[0] != '\n' { // a record that a power cut or a full disk has torn
		_, err = file.WriteString("\n")
		f.written++
	}
	if err != nil {
		err = errors.Join(err, f.Close())
	}
	return err
}

// Reopen lets the next write open the path anew: somebody else has moved the file.
func (f *logFile) Reopen() { f.reopen.Store(true) }

// Write appends records to the file, or to the next one. A file that could not be
// opened is tried again with each write. One that cannot be put aside grows on: that is
// an error, and no record is lost for it.
func (f *logFile) Write(records []byte) (int, error) {
	var aside error
	full := f.file != nil && f.written > 0 && f.written+int64(len(records)) > f.size
	if f.file != nil && (full || f.reopen.Swap(false)) {
		aside = f.Close()
		if full {
			aside = errors.Join(aside, f.putAside())
		}
	}
	if f.file == nil {
		if err := f.open(); err != nil {
			return 0, errors.Join(aside, err)
		}
	}
	n, err := f.file.Write(records)
	f.written += int64(n)
	if err != nil && n > 0 && records[n-1] != '\n' { // whoever reads it finds whole records
		whole := bytes.LastIndexByte(records[:n], '\n') + 1
		if cut := f.file.Truncate(f.written - int64(n-whole)); cut == nil {
			f.written -= int64(n - whole)
			n = whole
		}
	}
	return n, errors.Join(aside, err)
}

// asideFormat sorts by time, and is part of no other name.
const asideFormat = "20060102T150405.000000000Z"

// putAside gives the file another name, and removes the oldest of those.
func (f *logFile) putAside() error {
	extension := filepath.Ext(f.path)
	stem := strings.TrimSuffix(f.path, extension)
	if err := os.Rename(f.path, stem+"-"+time.Now().UTC().Format(asideFormat)+extension); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	var old []string
	for _, entry := range entries {
		name, hasStem := strings.CutPrefix(entry.Name(), filepath.Base(stem)+"-")
		at, hasExtension := strings.CutSuffix(name, extension)
		if _, err := time.Parse(asideFormat, at); hasStem && hasExtension && err == nil {
			old = append(old, filepath.Join(filepath.Dir(f.path), entry.Name()))
		}
	}
	slices.Sort(old)
	for _, name := range old[:max(0, len(old)-f.keep)] {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// sync makes what was written durable.
func (f *logFile) sync() error {
	if f.file == nil {
		return nil
	}
	return f.file.Sync()
}

// Close makes what was written durable. A later Write opens the file again.
func (f *logFile) Close() error {
	if f.file == nil {
		return nil
	}
	err := errors.Join(f.file.Sync(), f.file.Close())
	f.file = nil
	return err
}
