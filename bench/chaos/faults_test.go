package main

import (
	"fmt"
	"strings"
	"testing"
)

// Each refusal is one while it lasts, and nothing is lost by it.
func TestRefusals(t *testing.T) {
	r, err := startRedis()
	if err != nil {
		t.Fatal(err)
	}
	defer r.end()
	for n := range 500 {
		if err := r.tell(fmt.Sprintf("SET key%d x", n)); err != nil {
			t.Fatal(err)
		}
	}
	for _, one := range refusals {
		if err := one.begin(r); err != nil {
			t.Fatalf("%s: %v", one.name, err)
		}
		answer, err := r.ask("SET a 1")
		if err == nil || !strings.HasPrefix(answer, "-"+one.answer) {
			t.Errorf("%s: a write is answered with %q", one.name, answer)
		}
		if err := one.end(r); err != nil {
			t.Fatalf("%s: %v", one.name, err)
		}
		if err := r.tell("SET a 1"); err != nil {
			t.Errorf("after %s: %v", one.name, err)
		}
		if size, err := r.ask("DBSIZE"); size != ":501\r\n" {
			t.Errorf("after %s there are %q keys: %v", one.name, size, err)
		}
	}
}
