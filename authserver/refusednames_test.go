package authserver

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
)

// What was typed into the box of the username is not in the log, and cannot be guessed
// from what is there instead, by which the same name is known again.
func TestLogOfRefusedNames(t *testing.T) {
	refused := func(names ...string) []string {
		t.Helper()
		var log bytes.Buffer
		s := browserServer(t, func(c *Config) { c.Logger = slog.New(slog.NewJSONHandler(&log, nil)) })
		for _, name := range names {
			if _, err := s.signIn(t.Context(), name, "wrong", caller{}); asError(err).Code != "invalid_grant" {
				t.Errorf("%q: %v", name, err)
			}
		}
		text := log.String()
		var accounts []string
		for line := range strings.Lines(text) {
			var record struct{ Event, Account string }
			if err := json.Unmarshal([]byte(line), &record); err != nil {
				t.Fatal(err)
			}
			if record.Event == "sign_in_refused" {
				accounts = append(accounts, record.Account)
			}
		}
		if len(accounts) != len(names) {
			t.Fatalf("%d records of %d refusals:\n%s", len(accounts), len(names), text)
		}
		for i, name := range names {
			if strings.Contains(strings.ToLower(text), strings.ToLower(name)) || strings.Contains(text, hashed(foldUsername(name))) || len(accounts[i]) != 22 {
				t.Errorf("%q is in the log, or can be guessed:\n%s", name, text)
			}
		}
		return accounts
	}
	here, elsewhere := refused("Tr0ub4dor&3", "tr0ub4dor&3", "hunter2"), refused("hunter2")
	if here[0] != here[1] || here[0] == here[2] || here[2] == elsewhere[0] {
		t.Errorf("%q, elsewhere %q", here, elsewhere)
	}
}
