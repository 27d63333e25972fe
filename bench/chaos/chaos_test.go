package main

import (
	"io"
	"net"
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

func TestTwoSuccessors(t *testing.T) {
	h := newHistory(1, "test", window)
	for _, successor := range []string{"a", "a"} {
		h.succeeded("token", successor)
	}
	if len(h.Violations) > 0 {
		t.Error(h.Violations)
	}
	if h.succeeded("token", "b"); len(h.Violations) != 1 {
		t.Error(h.Violations)
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
	if again.Violations = nil; len(h.Violations) != 1 {
		t.Error(h.Violations)
	}
	if again.check(time.Minute); len(again.Violations) != 1 {
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
