package authserver

import (
	"encoding/json"
	"testing"
)

func TestWithEnforcement(t *testing.T) {
	for _, answer := range []any{nil, struct{}{}, struct {
		Level string `json:"level"`
	}{"grant"}, map[string]any{"a": map[string]any{"b": 1}}} {
		text, err := withEnforcement(answer, Enforcement{Verifiers: 3, Acknowledged: 2})
		if err != nil {
			t.Fatal(err)
		}
		var read map[string]any
		if err := json.Unmarshal(text, &read); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		enforced, _ := read["enforced"].(map[string]any)
		if enforced["verifiers"] != 3.0 || enforced["acknowledged"] != 2.0 {
			t.Errorf("%v became %s", answer, text)
		}
		if _, ok := answer.(map[string]any); ok && read["a"] == nil {
			t.Errorf("%v became %s", answer, text)
		}
	}
}
