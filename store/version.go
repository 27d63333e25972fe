package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
)

// Versions of the records of tables (docs/decisions/0046-versions-of-records.md).
// Two releases that follow each other share a store: what one writes the other reads,
// so a release reads a version before the next one writes it.
const (
	Written  = 1 // by this build
	Readable = 1 // the highest that this build reads
)

// ErrNewer is returned for a record, and for a store, that this build is too old for.
var ErrNewer = errors.New("run the release that wrote it, or the one before that")

// CheckVersion returns an error if records of a version cannot be read.
func CheckVersion(version int) error {
	if version > Readable {
		return fmt.Errorf("it holds records of version %d and this release reads versions up to %d: %w", version, Readable, ErrNewer)
	}
	return nil
}

// The first byte of a record says its version. JSON and the map of CBOR begin with
// none below this one, and mean version 1, so that versions cost nothing until there
// are two.
const firstOfVersion1 = 0x20

// pack returns the record of an encoded value.
func pack(version byte, encoded []byte) []byte {
	if version == 1 {
		return encoded
	}
	return append([]byte{version}, encoded...)
}

// unpack returns the encoded value of a record, if its version is not above readable.
func unpack(readable byte, record []byte) ([]byte, error) {
	if len(record) == 0 || record[0] >= firstOfVersion1 {
		return record, nil
	}
	if version := record[0]; version > readable {
		return nil, fmt.Errorf("it has version %d and this release reads versions up to %d: %w", version, readable, ErrNewer)
	}
	return record[1:], nil
}

// keepUnknown adds to a changed JSON object what its earlier form has and a value of
// type t does not know: the release that wrote it will miss it.
func keepUnknown(t reflect.Type, earlier, changed []byte) ([]byte, error) {
	if t.Kind() != reflect.Struct {
		return changed, nil
	}
	var before, after map[string]json.RawMessage
	if json.Unmarshal(earlier, &before) != nil || json.Unmarshal(changed, &after) != nil {
		return changed, nil // no JSON: what is changed in place is
	}
	maps.DeleteFunc(before, func(name string, _ json.RawMessage) bool { return knows(t, name) })
	if len(before) == 0 {
		return changed, nil
	}
	maps.Copy(before, after)
	return json.Marshal(before)
}

func knows(t reflect.Type, name string) bool {
	for _, field := range reflect.VisibleFields(t) {
		tag, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if strings.EqualFold(name, tag) || tag == "" && strings.EqualFold(name, field.Name) {
			return true
		}
	}
	return false
}
