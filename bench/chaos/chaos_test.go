package main

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

const window = time.Minute

// at makes a call of a grant at an instant, in milliseconds, that takes one.
func at(ms int64, k kind, generation int, o outcome, successor int) call {
	c := call{Kind: k, Generation: generation, Outcome: o, Successor: successor, Start: ms * 1e6, End: (ms + 1) * 1e6}
	if o == unknown {
		c.End = never
	}
	return c
}

func TestModel(t *testing.T) {
	for name, c := range map[string]struct {
		calls []call
		legal bool
	}{
		"a chain":                                 {[]call{at(0, refresh, 1, ok, 2), at(2, refresh, 2, ok, 3)}, true},
		"a retry":                                 {[]call{at(0, refresh, 1, ok, 2), at(2, refresh, 1, ok, 2), at(4, refresh, 2, ok, 3)}, true},
		"a lost answer, and a retry":              {[]call{at(0, refresh, 1, unknown, 0), at(2, refresh, 1, ok, 2)}, true},
		"a client that is signed out by a retry":  {[]call{at(0, refresh, 1, unknown, 0), at(2, refresh, 1, invalid, 0)}, false},
		"a retry with another generation":         {[]call{at(0, refresh, 1, ok, 2), at(2, refresh, 1, ok, 3)}, false},
		"theft":                                   {[]call{at(0, refresh, 1, ok, 2), at(2, refresh, 2, ok, 3), at(4, refresh, 1, invalid, 0), at(6, refresh, 3, invalid, 0)}, true},
		"theft that goes unpunished":              {[]call{at(0, refresh, 1, ok, 2), at(2, refresh, 2, ok, 3), at(4, refresh, 1, invalid, 0), at(6, refresh, 3, ok, 4)}, false},
		"theft that succeeds":                     {[]call{at(0, refresh, 1, ok, 2), at(2, refresh, 2, ok, 3), at(4, refresh, 1, ok, 2)}, false},
		"a retry after the window":                {[]call{at(0, refresh, 1, ok, 2), at(70_000, refresh, 1, ok, 2)}, false},
		"theft after the window":                  {[]call{at(0, refresh, 1, ok, 2), at(70_000, refresh, 1, invalid, 0), at(70_002, refresh, 2, invalid, 0)}, true},
		"a forgotten revocation":                  {[]call{at(0, revoke, 1, ok, 0), at(2, refresh, 1, ok, 2)}, false},
		"a revocation at the same time":           {[]call{at(0, revoke, 1, ok, 0), at(0, refresh, 1, ok, 2), at(2, refresh, 2, invalid, 0)}, true},
		"a revocation without an answer":          {[]call{at(0, revoke, 1, unknown, 0), at(2, refresh, 1, ok, 2), at(4, refresh, 2, invalid, 0)}, true},
		"one that comes and goes":                 {[]call{at(0, revoke, 1, unknown, 0), at(2, refresh, 1, invalid, 0), at(4, refresh, 1, ok, 2)}, false},
		"active after revocation":                 {[]call{at(0, revoke, 1, ok, 0), at(2, introspectAccess, 0, active, 0)}, false},
		"an access token that outlives a refresh": {[]call{at(0, refresh, 1, ok, 2), at(2, introspectAccess, 0, active, 0)}, true},
		"an old refresh token that is active":     {[]call{at(0, refresh, 1, ok, 2), at(2, introspectToken, 1, active, 0)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := &history{Window: window, Calls: c.calls}
			if h.check(time.Minute); (len(h.Violations) == 0) != c.legal {
				t.Errorf("violations %q, legal is %v", h.Violations, c.legal)
			}
			if c.legal {
				return
			}
			if least := h.minimise(time.Minute); least == nil || len(least.Calls) > len(c.calls) {
				t.Errorf("the least history that is wrong: %+v", least)
			}
		})
	}
}

// Many unanswered calls are no reason not to come to a decision.
func TestManyUnanswered(t *testing.T) {
	h := &history{Window: window}
	for generation := range 30 {
		for n := range 20 {
			h.Calls = append(h.Calls, at(int64(generation*100+n), refresh, generation+1, unknown, 0))
		}
		h.Calls = append(h.Calls, at(int64(generation*100+50), refresh, generation+1, ok, generation+2))
	}
	if r := h.check(time.Minute); r.undecided > 0 || len(h.Violations) > 0 {
		t.Errorf("%+v %q", r, h.Violations)
	}
}

func got(c call, successor string) call { c.Got = successor; return c }

func signed(c call, kid string) call { c.Key = kid; return c }

// Each invariant is seen to be broken, and to hold; what could not be broken is not
// observed.
func TestInvariants(t *testing.T) {
	born := birth{Grant: 0, Client: "web", Session: "s", Start: 0, End: 1e6}
	coded := birth{Grant: 0, Client: "web", Code: true, Start: 0, End: 2e6}
	ended := ending{Client: "web", Start: 10e6, End: 11e6, Outcome: ok}
	set := func(ms int64, kids ...string) keySet {
		return keySet{Start: ms * 1e6, End: (ms + 1) * 1e6, MaxAge: 1e9, Keys: kids}
	}
	keyEnd := ending{Key: "k", Start: 10e6, End: 11e6, Outcome: ok}
	for name, c := range map[string]struct {
		h        *history
		n        int
		observed bool
		broken   bool
	}{
		"nothing":                            {&history{}, 1, false, false},
		"a client's end is forgotten":        {&history{Births: []birth{born}, Endings: []ending{ended}, Calls: []call{at(20, refresh, 1, ok, 2)}}, 1, true, true},
		"a client's end holds":               {&history{Births: []birth{born}, Endings: []ending{ended}, Calls: []call{at(20, refresh, 1, invalid, 0)}}, 1, true, false},
		"another client's end":               {&history{Births: []birth{born}, Endings: []ending{{Client: "other", Start: 10e6, End: 11e6, Outcome: ok}}, Calls: []call{at(20, refresh, 1, ok, 2)}}, 1, false, false},
		"an end without an answer":           {&history{Births: []birth{born}, Endings: []ending{{Session: "s", Start: 10e6, End: 11e6, Outcome: unknown}}, Calls: []call{at(20, refresh, 1, ok, 2), at(22, refresh, 2, invalid, 0)}}, 0, true, false},
		"an end without an answer that goes": {&history{Births: []birth{born}, Endings: []ending{{Session: "s", Start: 10e6, End: 11e6, Outcome: unknown}}, Calls: []call{at(20, refresh, 1, invalid, 0), at(22, refresh, 1, ok, 2)}}, 0, true, true},
		"a refresh while a client is ended": {&history{Births: []birth{born}, Endings: []ending{{Client: "web", Start: 10e6, End: 21.5e6, Outcome: ok}}, Calls: []call{{Kind: refresh, Generation: 1, Outcome: ok, Successor: 2, Instance: 1, Start: 20e6, End: 21e6},
			{Kind: refresh, Generation: 2, Outcome: invalid, Start: 22e6, End: 23e6}, {Kind: refresh, Generation: 2, Outcome: invalid, Instance: 1, Start: 24e6, End: 25e6}}}, 0, true, false},
		"one that is over here and not there": {&history{Births: []birth{born}, Endings: []ending{{Client: "web", Start: 10e6, End: 40e6, Outcome: ok}}, Calls: []call{{Kind: refresh, Generation: 1, Outcome: invalid, Start: 20e6, End: 21e6},
			{Kind: refresh, Generation: 1, Outcome: ok, Successor: 2, Instance: 1, Start: 22e6, End: 23e6}}}, 0, true, true},
		"inactive here and refreshed there": {&history{Births: []birth{born}, Endings: []ending{{Client: "web", Start: 10e6, End: 40e6, Outcome: ok}}, Calls: []call{at(20, introspectAccess, 0, inactive, 0),
			{Kind: refresh, Generation: 1, Outcome: ok, Successor: 2, Instance: 1, Start: 22e6, End: 23e6}}}, 0, true, true},
		"and that another never learns":            {&history{Births: []birth{born}, Endings: []ending{ended}, Calls: []call{{Kind: refresh, Generation: 1, Outcome: ok, Successor: 2, Instance: 1, Start: 20e6, End: 21e6}}}, 1, true, true},
		"a verifier in its second":                 {&history{Births: []birth{born}, Endings: []ending{ended}, Calls: []call{at(900, verifyOffline, 0, active, 0)}}, 1, false, false},
		"a verifier after its second":              {&history{Births: []birth{born}, Endings: []ending{ended}, Calls: []call{at(1100, verifyOffline, 0, active, 0)}}, 1, true, true},
		"a verifier after enforcement":             {&history{Births: []birth{born}, Endings: []ending{{Client: "web", Start: 10e6, End: 11e6, Outcome: ok, Enforced: true}}, Calls: []call{at(20, verifyOffline, 0, active, 0)}}, 1, true, true},
		"a code that is redeemed twice":            {&history{Births: []birth{coded}, Calls: []call{got(at(0, exchange, 0, ok, 1), "a"), got(at(4, exchange, 0, ok, 1), "b")}}, 2, true, true},
		"a code that is redeemed twice, once lost": {&history{Births: []birth{coded}, Calls: []call{got(at(0, exchange, 0, unknown, 0), "a"), got(at(4, exchange, 0, ok, 1), "b")}}, 2, true, true},
		"a code that is replayed":                  {&history{Births: []birth{coded}, Calls: []call{got(at(0, exchange, 0, ok, 1), "a"), at(4, exchange, 0, invalid, 0), at(6, refresh, 1, invalid, 0)}}, 2, true, false},
		"a replay that ends nothing":               {&history{Births: []birth{coded}, Calls: []call{got(at(0, exchange, 0, ok, 1), "a"), at(4, exchange, 0, invalid, 0), at(6, refresh, 1, ok, 2)}}, 0, true, true},
		"a code that is refused":                   {&history{Births: []birth{coded}, Calls: []call{at(0, exchange, 0, invalid, 0)}}, 0, true, true},
		"two that are at it":                       {&history{Births: []birth{coded}, Calls: []call{{Kind: exchange, Outcome: invalid, Start: 0, End: 9e6}, {Kind: exchange, Outcome: invalid, Start: 1e6, End: 8e6}}}, 0, true, false},
		"one successor":                            {&history{Calls: []call{got(at(0, refresh, 1, ok, 2), "a"), got(at(2, refresh, 1, ok, 2), "a")}}, 3, true, false},
		"two successors":                           {&history{Calls: []call{got(at(0, refresh, 1, ok, 2), "a"), got(at(2, refresh, 1, unknown, 0), "b")}}, 3, true, true},
		"signed out by a repetition":               {&history{Calls: []call{at(0, refresh, 1, unknown, 0), at(20, refresh, 1, invalid, 0)}}, 4, true, true},
		"theft that goes unpunished":               {&history{Calls: []call{{Kind: refresh, Generation: 1, Theft: true, Outcome: invalid, Start: 0, End: 1}, at(20, introspectAccess, 0, active, 0)}}, 5, true, true},
		"a key that is taken away":                 {&history{Calls: []call{got(signed(at(0, refresh, 1, ok, 2), "k"), "a")}, KeySets: []keySet{set(20, "other")}}, 6, true, true},
		"a key that stays":                         {&history{Calls: []call{got(signed(at(0, refresh, 1, ok, 2), "k"), "a")}, KeySets: []keySet{set(20, "k", "other")}}, 6, true, false},
		"a key that two operators end": {&history{Endings: []ending{{Key: "k", Instance: 1, Start: 15e6, End: 16e6, Outcome: ok}, {Key: "k", Start: 10e6, End: 30e6, Outcome: ok}},
			Calls: []call{got(signed(at(0, refresh, 1, ok, 2), "k"), "a")}, KeySets: []keySet{set(5, "k"), set(12, "other")}}, 6, true, false},
		"a key that nobody can know":                 {&history{Calls: []call{got(signed(at(20, refresh, 1, ok, 2), "k"), "a")}, KeySets: []keySet{set(0, "other")}}, 7, true, true},
		"a verifier that refuses for no reason":      {&history{Births: []birth{born}, Calls: []call{at(20, verifyOffline, 0, inactive, 0)}}, 7, true, true},
		"a retired key that signs":                   {&history{Retired: []retirement{{0, "k", 10e6}}, Calls: []call{got(signed(at(20, refresh, 1, ok, 2), "k"), "a")}}, 9, true, true},
		"a retired key that does not":                {&history{Retired: []retirement{{0, "k", 10e6}}, Calls: []call{got(signed(at(20, refresh, 1, ok, 2), "other"), "a")}}, 9, true, false},
		"a compromised key that signs":               {&history{Endings: []ending{keyEnd}, Calls: []call{got(signed(at(20, refresh, 1, ok, 2), "k"), "a")}}, 14, true, true},
		"one that signs elsewhere, in its lease":     {&history{Lease: time.Second, Endings: []ending{{Key: "k", Instance: 1, Start: 10e6, End: 11e6, Outcome: ok}}, Calls: []call{got(signed(at(20, refresh, 1, ok, 2), "k"), "a")}}, 14, true, false},
		"a compromised key that is published":        {&history{Endings: []ending{keyEnd}, Calls: []call{got(signed(at(0, refresh, 1, ok, 2), "k"), "a")}, KeySets: []keySet{set(1100, "k")}}, 14, true, true},
		"a token of a compromised key":               {&history{Endings: []ending{keyEnd}, Calls: []call{signed(at(20, introspectAccess, 0, active, 0), "k")}}, 14, true, true},
		"a token of a compromised key, as it should": {&history{Endings: []ending{keyEnd}, Calls: []call{signed(at(20, introspectAccess, 0, inactive, 0), "k")}}, 14, true, false},
		"a kill that is not noticed":                 {&history{Kills: []int64{10e6}, Calls: []call{at(0, refresh, 1, ok, 2), at(20, refresh, 2, ok, 3)}}, 12, true, false},
		"a kill that takes a refresh back":           {&history{Kills: []int64{10e6}, Calls: []call{at(0, refresh, 1, ok, 2), at(20, refresh, 2, invalid, 0)}}, 12, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := c.h
			h.Window = window
			r := h.check(time.Minute)
			if got := r.table[c.n]; (got.Observed > 0) != c.observed && !c.broken || (got.Broken > 0) != c.broken {
				t.Errorf("I%d: %+v, want observed %v, broken %v; violations %q", c.n, got, c.observed, c.broken, h.Violations)
			}
			if !c.broken && len(h.Violations) > 0 {
				t.Errorf("violations %q", h.Violations)
			}
			if line := strings.Split(r.table.String(), "\n")[c.n]; strings.Contains(line, "not observed") == (c.observed || c.broken) {
				t.Errorf("the table says %q", line)
			}
		})
	}
}

// A history is the same after it was saved and read.
func TestSavedHistory(t *testing.T) {
	h := newHistory(7, "test", window)
	h.record(at(0, revoke, 1, ok, 0))
	h.record(at(2, refresh, 1, ok, 2))
	h.check(time.Minute)
	name, err := h.save(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	again, err := load(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Violations) != 2 { // by the model, and I1
		t.Error(h.Violations)
	}
	if again.check(time.Minute); len(again.Violations) != 2 {
		t.Errorf("it breaks %q", again.Violations)
	}
}

// The proxy loses answers after the other side has done its work.
func TestProxyLosesAnswers(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	worked := make(chan string, 10)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buffer := make([]byte, 100)
				for {
					n, err := c.Read(buffer)
					if err != nil {
						return
					}
					worked <- string(buffer[:n])
					c.Write(buffer[:n])
				}
			}()
		}
	}()
	p, err := newProxy(listener.Addr().String(), func(int) int { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	ask := func() (string, error) {
		c, err := net.Dial("tcp", "127.0.0.1:"+p.Port)
		if err != nil {
			return "", err
		}
		defer c.Close()
		io.WriteString(c, "work")
		buffer := make([]byte, 100)
		n, err := c.Read(buffer)
		return string(buffer[:n]), err
	}
	if answer, err := ask(); answer != "work" || err != nil {
		t.Fatal(answer, err)
	}
	<-worked
	p.drop.Store(1)
	if answer, err := ask(); err == nil {
		t.Errorf("an answer: %q", answer)
	}
	if <-worked != "work" || p.Dropped.Load() != 1 {
		t.Error("the work was not done, or not counted")
	}
}
