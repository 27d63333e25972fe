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
	exchange         kind = "exchange a code"
	refresh          kind = "refresh"
	revoke           kind = "revoke"
	introspectToken  kind = "introspect refresh token"
	introspectAccess kind = "introspect access token"
	verifyOffline    kind = "verify access token offline" // Instance is the verifier
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
	Got        string  `json:"got,omitempty"`       // hash of the successor, also where the client lost it
	Key        string  `json:"kid,omitempty"`       // that signed the access token that was presented or is in the answer
	Theft      bool    `json:"theft,omitempty"`     // an old token, by a thief
	Contended  bool    `json:"contended,omitempty"` // another exchange of the same code is under way; filled in by check
	Start      int64   `json:"start"`
	End        int64   `json:"end"`
	Instance   int     `json:"instance"`
	Status     int     `json:"status,omitempty"`
	Note       string  `json:"note,omitempty"`
}

// birth is the beginning of a grant, by a password or by a code.
type birth struct {
	Grant   int    `json:"grant"`
	Person  int    `json:"person"`
	Client  string `json:"client"`
	Session string `json:"sid,omitempty"`
	Code    bool   `json:"code,omitempty"` // its calls begin with the exchange
	Start   int64  `json:"start"`
	End     int64  `json:"end"` // of the answer with its tokens; never without one
}

// ending is an operator's revocation of more than one grant, or of a key.
type ending struct {
	Person   int     `json:"person"`
	Client   string  `json:"client,omitempty"` // all of it
	Session  string  `json:"sid,omitempty"`    // all of it
	Key      string  `json:"kid,omitempty"`
	Instance int     `json:"instance"`
	Start    int64   `json:"start"`
	End      int64   `json:"end"`
	Outcome  outcome `json:"outcome"`  // ok or unknown
	Enforced bool    `json:"enforced"` // the answer says that it is, at every verifier
}

func (e ending) String() string {
	switch {
	case e.Key != "":
		return "key " + e.Key
	case e.Client != "":
		return "client " + e.Client
	case e.Session != "":
		return "session " + e.Session
	}
	return fmt.Sprintf("user%d", e.Person)
}

// keySet is a key set that an instance served.
type keySet struct {
	Instance int      `json:"instance"`
	Start    int64    `json:"start"`
	End      int64    `json:"end"`
	MaxAge   int64    `json:"max_age"` // nanoseconds
	Keys     []string `json:"kids"`
}

// retirement is when an instance was first seen to say that a key does not sign any more.
type retirement struct {
	Instance int    `json:"instance"`
	Key      string `json:"kid"`
	At       int64  `json:"at"`
}

// history is all calls of some clients on a few grants, and what else happened.
type history struct {
	Seed       uint64         `json:"seed"`
	Scenario   string         `json:"scenario"`
	Window     time.Duration  `json:"window"` // tokens.retry_window of the server
	Lease      time.Duration  `json:"lease"`  // for which an instance signs without having read the key set
	Faults     []string       `json:"faults"`
	Injected   map[string]int `json:"injected"` // those by their names, without what operators did
	Kills      []int64        `json:"kills"`    // of servers and of Redis
	Calm       int64          `json:"calm"`     // when all trouble was over
	Births     []birth        `json:"births"`
	Calls      []call         `json:"calls"`
	Endings    []ending       `json:"endings"`
	KeySets    []keySet       `json:"key_sets"`
	Retired    []retirement   `json:"retired"`
	Seen       []string       `json:"seen"`       // what broke while it was recorded
	Watched    table          `json:"watched"`    // what was looked at while it was recorded
	Violations []string       `json:"violations"` // those, and what checking finds

	mu    sync.Mutex
	began time.Time
}

func newHistory(seed uint64, scenario string, window time.Duration) *history {
	return &history{Seed: seed, Scenario: scenario, Window: window, Injected: make(map[string]int), began: time.Now()}
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

// inject is fault, of one that is counted.
func (h *history) inject(name, format string, args ...any) {
	h.fault("%s, %s", name, fmt.Sprintf(format, args...))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Injected[name]++
}

// violation notes that invariant n was broken.
func (h *history) violation(n int, format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Watched[n].Broken++
	h.Seen = append(h.Seen, fmt.Sprintf("%d ms: I%d: ", time.Since(h.began).Milliseconds(), n)+fmt.Sprintf(format, args...))
}

// watched notes that invariant n could have been broken and was not, or was: see violation.
func (h *history) watched(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Watched[n].Observed++
}

// retired notes what an instance says of a key.
func (h *history) retired(instance int, kid string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.Retired {
		if r.Instance == instance && r.Key == kid {
			return
		}
	}
	h.Retired = append(h.Retired, retirement{instance, kid, h.now()})
}

// outgrown notes that a process holds more memory than anything that it does explains.
func (h *history) outgrown(instance int, mebibytes float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Seen = append(h.Seen, fmt.Sprintf("memory: instance %d holds %.0f MiB", instance, mebibytes))
}

func (h *history) birth(b birth) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Births = append(h.Births, b)
}

func (h *history) ending(e ending) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Endings = append(h.Endings, e)
}

func (h *history) killed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Kills = append(h.Kills, h.now())
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
