package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// decoder fills a struct with `yaml` tags from YAML and the environment. It goes
// on after a mistake, so that all of them are reported at once, and remembers
// where each value came from.
type decoder struct {
	name     string            // of the file; empty without one
	origin   map[string]string // key path → "file:line" or the name of a variable
	failed   map[string]bool   // key paths without the value that was meant
	mistakes []string
	warnings []string
}

func newDecoder(file string) *decoder {
	return &decoder{name: file, origin: make(map[string]string), failed: make(map[string]bool)}
}

// mistake records what is wrong with the value of a key.
func (d *decoder) mistake(key, format string, args ...any) {
	d.mistakes = append(d.mistakes, d.where(key)+": "+join(key, fmt.Sprintf(format, args...), ": "))
	d.failed[key], d.failed[parent(key)] = true, true
}

func (d *decoder) warning(key, format string, args ...any) {
	d.warnings = append(d.warnings, d.where(key)+": "+key+": "+fmt.Sprintf(format, args...))
}

// where is the place of a key, or of the nearest key above it that was given.
func (d *decoder) where(key string) string {
	for {
		if origin, ok := d.origin[key]; ok {
			return origin
		}
		if key == "" {
			break
		}
		key = parent(key)
	}
	if d.name == "" {
		return "configuration"
	}
	return d.name
}

// parent is the path of the mapping or list that holds a key.
func parent(key string) string { return key[:max(strings.LastIndexAny(key, ".["), 0)] }

// file decodes the text of the configuration file. It reports false when the text
// is no mapping at all.
func (d *decoder) file(source []byte, into any) bool {
	place := func(line int) string { return fmt.Sprintf("%s:%d", d.name, line) }
	node, err := parseYAML(source, place)
	if err != nil {
		d.mistakes = append(d.mistakes, err.Error())
		return false
	}
	if node == nil {
		return true
	}
	d.value(node, "", reflect.ValueOf(into).Elem(), place)
	return node.Kind == yaml.MappingNode
}

// parseYAML returns the only document of source, or nil for an empty one. An error
// does not repeat the text, which may be a secret.
func parseYAML(source []byte, place func(line int) string) (*yaml.Node, error) {
	var documents []yaml.Node
	if err := yaml.Load(source, &documents, yaml.WithAllDocuments()); err != nil {
		var failure *yaml.LoadError
		if !errors.As(err, &failure) {
			return nil, fmt.Errorf("%s: not valid YAML", place(1))
		}
		message := failure.Message
		switch {
		case !utf8.Valid(source) || bytes.IndexByte(source, 0) >= 0:
			message = "the text is not in UTF-8; save it in that encoding"
		case strings.HasPrefix(message, "unknown anchor"):
			message = "unknown anchor; a text that begins with * needs quotes"
		case strings.HasPrefix(message, "found character that cannot start any token"): // also @, ` and %
			message = "a line begins with a tab, or a text with one of @ ` % and needs quotes; indent with spaces"
		}
		return nil, fmt.Errorf("%s: not valid YAML: %s", place(max(failure.Mark.Line, 1)), message)
	}
	if len(documents) > 1 {
		return nil, fmt.Errorf("%s: a second document begins; the configuration is one", place(documents[1].Line))
	}
	if len(documents) == 0 || len(documents[0].Content) == 0 {
		return nil, nil
	}
	return documents[0].Content[0], nil
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
		d.free(node, key, target, place)
	default:
		if node.Kind != yaml.ScalarNode {
			d.mistake(key, "found %s, expected %s", describe(node), expected(target.Type()))
			return
		}
		d.scalar(node.Value, key, target)
	}
}

var keyName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

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
		path := join(key, name, ".")
		index := slices.Index(fields.names, name)
		switch {
		case !keyName.MatchString(name): // perhaps a part of a secret
			path = join(key, "?", ".")
			d.origin[path] = place(node.Content[i].Line)
			d.mistake(path, "not the name of a key; a value with a comma, a colon or a # needs quotes")
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

// free decodes a mapping whose keys are the operator's own.
func (d *decoder) free(node *yaml.Node, key string, target reflect.Value, place func(line int) string) {
	if node.Kind != yaml.MappingNode {
		d.mistake(key, "found %s, expected a mapping", describe(node))
		return
	}
	if at := aliasIn(node); at != nil {
		d.origin[key] = place(at.Line)
		d.mistake(key, "anchors and aliases are not supported; write the value out")
		return
	}
	if err := node.Decode(target.Addr().Interface()); err != nil {
		var failure *yaml.LoadErrors
		if errors.As(err, &failure) && len(failure.Errors) > 0 {
			d.origin[key] = place(failure.Errors[0].Mark.Line)
		}
		d.mistake(key, "has a key twice, or one that is not a text")
	} else if _, err := json.Marshal(target.Interface()); err != nil {
		d.mistake(key, "has a value that JSON cannot express")
	}
}

// aliasIn returns the first alias or anchor in a node.
func aliasIn(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode || node.Anchor != "" {
		return node
	}
	for _, content := range node.Content {
		if found := aliasIn(content); found != nil {
			return found
		}
	}
	return nil
}

// scalar parses text into target. The text of secrets is not repeated in errors.
func (d *decoder) scalar(text, key string, target reflect.Value) {
	zeroMeans := target.Kind() == reflect.Pointer // something else than to leave the key out
	if zeroMeans {
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
		} else if duration == 0 && !zeroMeans {
			d.mistake(key, "is zero; leave the key out for the default")
		} else {
			target.SetInt(int64(duration))
		}
	case target.Kind() == reflect.Bool:
		value, err := strconv.ParseBool(text)
		if err != nil {
			d.mistake(key, "%q is not true or false", text)
		}
		target.SetBool(value)
	case target.Kind() == reflect.Int:
		value, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			d.mistake(key, "%q is not a number", text)
		} else if value <= 0 {
			d.mistake(key, "%q is not above zero; leave the key out for the default", text)
		}
		target.SetInt(value)
	case target.Kind() == reflect.Int64: // zero means something; the bounds are Check's
		value, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			d.mistake(key, "%q is not a whole number", text)
		}
		target.SetInt(value)
	default:
		target.SetString(text)
	}
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

// join puts a separator between two texts, unless the first is empty.
func join(first, second, separator string) string {
	if first == "" {
		return second
	}
	return first + separator + second
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
	case t.Kind() == reflect.Int:
		return "a number"
	}
	return "text"
}
