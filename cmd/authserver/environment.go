package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

const (
	variablePrefix     = "AUTHSERVER_"
	testVariablePrefix = "AUTHSERVER_TEST_" // read by tests only
)

// variable is an environment variable and the value that it sets.
type variable struct {
	key    string
	target reflect.Value
}

// environment decodes AUTHSERVER_* variables over what the file says.
func (d *decoder) environment(environ []string, into any) {
	known := variables(reflect.ValueOf(into).Elem(), "")
	names := slices.Sorted(maps.Keys(known))
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, variablePrefix) || strings.HasPrefix(name, testVariablePrefix) {
			continue
		}
		if variable, ok := known[name]; ok {
			d.variable(name, text, variable)
			continue
		}
		nearest := suggest(name, names)
		if nearest == "" {
			nearest = "; a variable is a key in capitals, for example AUTHSERVER_TOKENS_ACCESS for tokens.access, and `authserver config example` shows every key"
		}
		d.mistakes = append(d.mistakes, fmt.Sprintf("environment variable %s: unknown%s", name, nearest))
	}
}

func (d *decoder) variable(name, text string, v variable) {
	place := func(int) string { return "environment variable " + name }
	// Nothing of what the file says about the key is left.
	maps.DeleteFunc(d.origin, func(key, _ string) bool { return strings.HasPrefix(key, v.key+"[") })
	d.origin[v.key] = place(0)
	v.target.SetZero()
	text = strings.TrimRight(text, "\r\n") // as in files: whoever made the variable of a file had one
	if v.target.Kind() != reflect.Slice {
		d.scalar(text, v.key, v.target)
		return
	}
	node, err := parseYAML([]byte(text), place)
	if err != nil || node == nil {
		d.mistake(v.key, "is not one YAML or JSON list such as [a, b]")
		return
	}
	d.value(node, v.key, v.target, place)
}

// variables lists the variables for the fields of a struct by their names.
func variables(target reflect.Value, key string) map[string]variable {
	found := make(map[string]variable)
	fields := fieldsOf(target.Type())
	for i, name := range fields.names {
		path, field := join(key, name, "."), target.Field(fields.index[i])
		if field.Kind() == reflect.Struct {
			maps.Copy(found, variables(field, path))
			continue
		}
		found[variablePrefix+strings.ToUpper(strings.ReplaceAll(path, ".", "_"))] = variable{path, field}
	}
	return found
}
