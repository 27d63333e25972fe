package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// decoder fills a struct with `yaml` tags from YAML and the environment. It goes
// on after a mistake, so that all of them are reported at once, and remembers
// where each value came from.
type decoder struct {
	name     string            // of the file
	origin   map[string]string // key path → "file:line" or the name of a variable
	mistakes []string
	warnings []string
}

func newDecoder(file string) *decoder {
	return &decoder{name: file, origin: make(map[string]string)}
}

// mistake records what is wrong with the value of a key.
func (d *decoder) mistake(key, format string, args ...any) {
	d.mistakes = append(d.mistakes, d.where(key)+": "+key+": "+fmt.Sprintf(format, args...))
}

func (d *decoder) warning(key, format string, args ...any) {
	d.warnings = append(d.warnings, d.where(key)+": "+key+": "+fmt.Sprintf(format, args...))
}

// where is the place of a key, or of the nearest key above it that was given.
func (d *decoder) where(key string) string {
	for key != "" {
		if origin, ok := d.origin[key]; ok {
			return origin
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	if d.name == "" {
		return "configuration"
	}
	return d.name
}

// file decodes the text of the configuration file.
func (d *decoder) file(source []byte, into any) {
	var documents []yaml.Node
	if err := yaml.Load(source, &documents, yaml.WithAllDocuments()); err != nil {
		d.mistakes = append(d.mistakes, fmt.Sprintf("%s: not valid YAML: %v", d.name, err))
		return
	}
	if len(documents) > 1 {
		d.mistakes = append(d.mistakes, fmt.Sprintf("%s:%d: a second document begins; the configuration is one", d.name, documents[1].Line))
		return
	}
	if len(documents) == 1 && len(documents[0].Content) == 1 {
		place := func(line int) string { return fmt.Sprintf("%s:%d", d.name, line) }
		d.value(documents[0].Content[0], "", reflect.ValueOf(into).Elem(), place)
	}
}

// value decodes one node into target. place tells where a line is.
func (d *decoder) value(node *yaml.Node, key string, target reflect.Value, place func(line int) string) {
	d.origin[key] = place(node.Line)
	if node.Kind == yaml.AliasNode || node.Anchor != "" {
		d.mistake(key, "anchors and aliases are not supported; write the value out")
		return
	}
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return // as if the key were absent
	}
	switch target.Kind() {
	case reflect.Struct:
		d.mapping(node, key, target, place)
	case reflect.Slice:
		if node.Kind != yaml.SequenceNode {
			d.mistake(key, "found %s, expected a list such as [a, b]", describe(node))
			return
		}
		target.Set(reflect.MakeSlice(target.Type(), len(node.Content), len(node.Content)))
		for i, item := range node.Content {
			d.value(item, fmt.Sprintf("%s[%d]", key, i), target.Index(i), place)
		}
	case reflect.Map:
		if node.Kind != yaml.MappingNode {
			d.mistake(key, "found %s, expected a mapping", describe(node))
		} else if err := node.Decode(target.Addr().Interface()); err != nil {
			d.mistake(key, "%v", err)
		}
	default:
		if node.Kind != yaml.ScalarNode {
			d.mistake(key, "found %s, expected %s", describe(node), expected(target.Type()))
			return
		}
		d.scalar(node.Value, key, target)
	}
}

// mapping decodes a YAML mapping into a struct.
func (d *decoder) mapping(node *yaml.Node, key string, target reflect.Value, place func(line int) string) {
	if node.Kind != yaml.MappingNode {
		d.mistake(key, "found %s, expected a mapping of keys to values", describe(node))
		return
	}
	fields := fieldsOf(target.Type())
	seen := make(map[string]bool)
	for i := 0; i+1 < len(node.Content); i += 2 {
		name := node.Content[i].Value
		path := join(key, name)
		index := slices.Index(fields.names, name)
		switch {
		case index < 0:
			d.origin[path] = place(node.Content[i].Line)
			d.mistake(path, "unknown key%s; allowed here are %s", suggest(name, fields.names), strings.Join(fields.names, ", "))
		case seen[name]:
			d.origin[path] = place(node.Content[i].Line)
			d.mistake(path, "is given twice")
		default:
			d.value(node.Content[i+1], path, target.Field(fields.index[index]), place)
		}
		seen[name] = true
	}
}

// scalar parses text into target. The text of secrets is not repeated in errors.
func (d *decoder) scalar(text, key string, target reflect.Value) {
	if target.Kind() == reflect.Pointer {
		target.Set(reflect.New(target.Type().Elem()))
		target = target.Elem()
	}
	switch {
	case target.Type() == reflect.TypeFor[time.Duration]():
		duration, err := time.ParseDuration(text)
		if err != nil {
			d.mistake(key, "%q is not a duration; write for example 90s, 10m or 720h", text)
		} else if duration < 0 {
			d.mistake(key, "%q is negative", text)
		} else if duration == 0 && key != "tokens.retry_window" {
			d.mistake(key, "is zero; leave the key out for the default")
		}
		target.SetInt(int64(duration))
	case target.Kind() == reflect.Bool:
		value, err := strconv.ParseBool(text)
		if err != nil {
			d.mistake(key, "%q is not true or false", text)
		}
		target.SetBool(value)
	default:
		target.SetString(text)
	}
}

// environment decodes AUTHSERVER_* variables over what the file says.
func (d *decoder) environment(environ []string, into any) {
	known := variables(reflect.ValueOf(into).Elem(), "")
	var names []string
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "AUTHSERVER_") || strings.HasPrefix(name, "AUTHSERVER_TEST_") {
			continue
		}
		variable, ok := known[name]
		if !ok {
			d.mistakes = append(d.mistakes, fmt.Sprintf("environment: %s: unknown variable%s", name, suggest(name, names)))
			continue
		}
		d.variable(name, text, variable)
	}
}

type variable struct {
	key    string
	target reflect.Value
}

func (d *decoder) variable(name, text string, v variable) {
	d.origin[v.key] = "environment variable " + name
	v.target.SetZero()
	if kind := v.target.Kind(); kind != reflect.Slice && kind != reflect.Map {
		d.scalar(text, v.key, v.target)
		return
	}
	var document yaml.Node
	if err := yaml.Load([]byte(text), &document); err != nil || len(document.Content) != 1 {
		d.mistake(v.key, "is not one YAML or JSON value such as [a, b]")
		return
	}
	d.value(document.Content[0], v.key, v.target, func(int) string { return "environment variable " + name })
}

// variables lists the variables for the fields of a struct.
func variables(target reflect.Value, key string) map[string]variable {
	found := make(map[string]variable)
	fields := fieldsOf(target.Type())
	for i, name := range fields.names {
		path, field := join(key, name), target.Field(fields.index[i])
		if field.Kind() == reflect.Struct {
			for name, nested := range variables(field, path) {
				found[name] = nested
			}
			continue
		}
		found["AUTHSERVER_"+strings.ToUpper(strings.ReplaceAll(path, ".", "_"))] = variable{path, field}
	}
	return found
}

const maxSecretFile = 64 << 10 // bytes

// secretFiles reads the file named by each X_file key into X.
func (d *decoder) secretFiles(into any) { d.secretFilesOf(reflect.ValueOf(into).Elem(), "") }

func (d *decoder) secretFilesOf(target reflect.Value, key string) {
	fields := fieldsOf(target.Type())
	for i, name := range fields.names {
		field, path := target.Field(fields.index[i]), join(key, name)
		switch field.Kind() {
		case reflect.Struct:
			d.secretFilesOf(field, path)
		case reflect.Slice:
			for j := range field.Len() {
				if field.Index(j).Kind() == reflect.Struct {
					d.secretFilesOf(field.Index(j), fmt.Sprintf("%s[%d]", path, j))
				}
			}
		case reflect.String:
			value := slices.Index(fields.names, strings.TrimSuffix(name, "_file"))
			// The master key's file is read, and made, where the store is opened.
			if strings.HasSuffix(name, "_file") && value >= 0 && field.String() != "" && path != "master_key_file" {
				d.secretFile(path, field.String(), target.Field(fields.index[value]))
			}
		}
	}
}

func (d *decoder) secretFile(key, name string, target reflect.Value) {
	if target.String() != "" {
		d.mistake(key, "is given beside %s; give one of them", strings.TrimSuffix(key, "_file"))
		return
	}
	if !filepath.IsAbs(name) && d.name != "" {
		name = filepath.Join(filepath.Dir(d.name), name)
	}
	content, err := readBounded(name, maxSecretFile)
	if err != nil {
		d.mistake(key, "cannot be read: %v", err)
		return
	}
	secret := strings.TrimRight(string(content), "\r\n")
	if secret == "" {
		d.mistake(key, "%s is empty", name)
	}
	target.SetString(secret)
}

type structFields struct {
	names []string
	index []int
}

// fieldsOf lists the fields of a struct that have a yaml name.
func fieldsOf(t reflect.Type) structFields {
	var fields structFields
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("yaml"); name != "" {
			fields.names = append(fields.names, name)
			fields.index = append(fields.index, i)
		}
	}
	return fields
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

func describe(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return "a single value"
}

func expected(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration](), t == reflect.TypeFor[*time.Duration]():
		return "a duration such as 10m"
	case t.Kind() == reflect.Bool:
		return "true or false"
	}
	return "text"
}

// suggest names the known word that a mistyped one most resembles.
func suggest(word string, known []string) string {
	best, distance := "", 4
	for _, candidate := range known {
		if n := editDistance(word, candidate); n < distance {
			best, distance = candidate, n
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %s?", best)
}

// editDistance is the number of single-character edits between two words.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		previous := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := previous
			if a[i] != b[j] {
				replaced++
			}
			previous = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// hinted is an error with something to do about it.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

func withHint(err error, format string, args ...any) error {
	return hinted{err, fmt.Sprintf(format, args...)}
}

func hintOf(err error) string {
	var h hinted
	errors.As(err, &h)
	return h.hint
}
