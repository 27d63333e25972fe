package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// kind is what a call asks for.
type kind string

const (
	refresh          kind = "refresh"
	revoke           kind = "revoke"
	introspectToken  kind = "introspect refresh token"
	introspectAccess kind = "introspect access token"
)

// outcome is what a client knows of a call afterwards.
type outcome string

const (
	ok       outcome = "ok"
	invalid  outcome = "invalid_grant"
	active   outcome = "active"
	inactive outcome = "inactive"
	// unknown is a call without an answer, or with a 503: it may or may not have
	// happened, or may happen yet.
	unknown outcome = "unknown"
)

// never is the end of a call without an answer.
const never = math.MaxInt64

// call is one request and what came of it. Times are nanoseconds since the history
// began.
type call struct {
	Grant      int     `json:"grant"` // of the history, from 0
	Kind       kind    `json:"kind"`
	Generation int     `json:"generation"` // of the token that was presented
	Outcome    outcome `json:"outcome"`
	Successor  int     `json:"successor,omitempty"` // generation of the token in the answer
	Start      int64   `json:"start"`
	End        int64   `json:"end"`
	Instance   int     `json:"instance"`
	Status     int     `json:"status,omitempty"`
	Note       string  `json:"note,omitempty"`
}

// history is all calls of some clients on a few grants, and what else went wrong.
type history struct {
	Seed       uint64        `json:"seed"`
	Scenario   string        `json:"scenario"`
	Window     time.Duration `json:"window"` // tokens.retry_window of the server
	Faults     []string      `json:"faults"`
	Calls      []call        `json:"calls"`
	Violations []string      `json:"violations"`

	mu         sync.Mutex
	began      time.Time
	successors map[string]string // by presented token: hash of the one successor
}

func newHistory(seed uint64, scenario string, window time.Duration) *history {
	return &history{Seed: seed, Scenario: scenario, Window: window, began: time.Now(), successors: make(map[string]string)}
}

func (h *history) now() int64 { return time.Since(h.began).Nanoseconds() }

func (h *history) record(c call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Calls = append(h.Calls, c)
}

func (h *history) fault(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Faults = append(h.Faults, fmt.Sprintf("%d ms: ", time.Since(h.began).Milliseconds())+fmt.Sprintf(format, args...))
}

func (h *history) violation(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Violations = append(h.Violations, fmt.Sprintf("%d ms: ", time.Since(h.began).Milliseconds())+fmt.Sprintf(format, args...))
}

// succeeded checks I3: all answers to one refresh token, also those that the client
// lost, carry the same successor.
func (h *history) succeeded(presented, successor string) {
	h.mu.Lock()
	before := h.successors[presented]
	h.successors[presented] = successor
	h.mu.Unlock()
	if before != "" && before != successor {
		h.violation("I3: a refresh token has two successors")
	}
}

// save writes the history down, so that it can be looked at and checked again.
func (h *history) save(directory string) (string, error) {
	text, err := json.MarshalIndent(h, "", " ")
	if err == nil {
		err = os.MkdirAll(directory, 0o700)
	}
	name := filepath.Join(directory, fmt.Sprintf("%s-%d.json", h.Scenario, h.Seed))
	if err == nil {
		err = os.WriteFile(name, text, 0o600)
	}
	return name, err
}

func load(name string) (*history, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	h := new(history)
	return h, json.Unmarshal(text, h)
}
