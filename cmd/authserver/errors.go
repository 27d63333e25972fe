package main

import (
	"errors"
	"fmt"
	"strings"
)

// usageError is a mistake on the command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

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

// mistakes are all that is wrong with a configuration, one line each.
type mistakes []string

func (m mistakes) Error() string {
	count := fmt.Sprintf("%d mistakes", len(m))
	if len(m) == 1 {
		count = "a mistake"
	}
	return "the configuration has " + count + "\n" + strings.Join(m, "\n")
}
