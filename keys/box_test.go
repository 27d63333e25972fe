package keys

import (
	"bytes"
	"errors"
	"testing"
)

// A sealed value opens in its box with its additional data, and nowhere else.
func TestBox(t *testing.T) {
	m := manager(t)
	box := func(purpose string) Box {
		b, err := m.Box(purpose)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	plaintext, data := []byte("what only we may read"), []byte("bound to")
	sealed := box("a").Seal(plaintext, data)
	if len(sealed) != len(plaintext)+40 || bytes.Contains(sealed, plaintext) || bytes.Equal(sealed, box("a").Seal(plaintext, data)) {
		t.Fatalf("sealed as %q", sealed)
	}
	opened, err := box("a").Open(sealed, data)
	if err != nil || !bytes.Equal(opened, plaintext) {
		t.Fatalf("opened as %q, %v", opened, err)
	}
	altered := bytes.Clone(sealed)
	altered[len(altered)/2] ^= 1
	for name, open := range map[string]func() ([]byte, error){
		"another purpose":         func() ([]byte, error) { return box("b").Open(sealed, data) },
		"another additional data": func() ([]byte, error) { return box("a").Open(sealed, []byte("elsewhere")) },
		"altered":                 func() ([]byte, error) { return box("a").Open(altered, data) },
		"cut short":               func() ([]byte, error) { return box("a").Open(sealed[:20], data) },
		"empty":                   func() ([]byte, error) { return box("a").Open(nil, data) },
		"another master key":      func() ([]byte, error) { b, _ := manager(t).Box("a"); return b.Open(sealed, data) },
	} {
		if _, err := open(); !errors.Is(err, ErrSealed) {
			t.Errorf("%s: %v, want ErrSealed", name, err)
		}
	}
}
