package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

const (
	maxSecretFile = 64 << 10       // bytes
	byteOrderMark = "\xef\xbb\xbf" // which some editors put before UTF-8
)

// resolvePaths makes the relative paths that a configuration file gives relative
// to its directory.
func (d *decoder) resolvePaths(into any) {
	eachText(reflect.ValueOf(into).Elem(), "", func(key string, text, _ reflect.Value) {
		path := text.String()
		if (key == "data" || key == "keys.backend" || strings.HasSuffix(key, "_file")) && path != "" && !filepath.IsAbs(path) {
			text.SetString(filepath.Join(filepath.Dir(d.name), path))
		}
	})
}

// secretFiles reads the file named by each X_file key into X.
func (d *decoder) secretFiles(into any) {
	eachText(reflect.ValueOf(into).Elem(), "", func(key string, text, secret reflect.Value) {
		if !secret.IsValid() || text.String() == "" {
			return
		}
		if secret.String() != "" {
			d.mistake(key, "is given beside %s; give one of them", strings.TrimSuffix(key, "_file"))
		} else if key != "master_key_file" { // read, and made, where the store is opened
			d.secretFile(key, text.String(), secret)
		}
	})
}

func (d *decoder) secretFile(key, name string, secret reflect.Value) {
	named := strings.TrimSuffix(key, "_file")
	d.origin[named] = d.where(key) // the place to look at when the content is wrong
	content, mode, err := readFile(name, maxSecretFile)
	if err != nil {
		d.mistake(key, "cannot be read: %v", err)
		d.failed[named] = true
		return
	}
	if mode.Perm()&0o007 != 0 {
		d.warning(key, "%s is open to every user of this machine (mode %04o); chmod 600 closes it", name, mode.Perm())
	}
	secret.SetString(strings.TrimRight(string(content), "\r\n"))
	switch {
	case secret.String() == "":
		d.mistake(key, "%s is empty", name)
		d.failed[named] = true
	case strings.ContainsAny(secret.String(), "\r\n"):
		d.mistake(key, "%s has more than one line, and the secret is one", name)
		d.failed[named] = true
	}
}

// eachText visits the text fields of a struct and of the structs in it. For a
// field X_file beside a field X, secret is X; else it is the zero Value.
func eachText(target reflect.Value, key string, visit func(key string, text, secret reflect.Value)) {
	fields := fieldsOf(target.Type())
	for i, name := range fields.names {
		field, path := target.Field(fields.index[i]), join(key, name, ".")
		switch field.Kind() {
		case reflect.Struct:
			eachText(field, path, visit)
		case reflect.Slice:
			for j := range field.Len() {
				if field.Index(j).Kind() == reflect.Struct {
					eachText(field.Index(j), fmt.Sprintf("%s[%d]", path, j), visit)
				}
			}
		case reflect.String:
			var secret reflect.Value
			if named, is := strings.CutSuffix(name, "_file"); is {
				if n := slices.Index(fields.names, named); n >= 0 {
					secret = target.Field(fields.index[n])
				}
			}
			visit(path, field, secret)
		}
	}
}

// readFile reads a text file of at most limit bytes, without the mark that some editors
// put before UTF-8.
func readFile(name string, limit int64) (content []byte, mode fs.FileMode, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, 0, err
	}
	content, err = io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return bytes.TrimPrefix(content, []byte(byteOrderMark)), info.Mode(), err
}
