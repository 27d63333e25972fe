package authserver

import (
	"bytes"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"
)

// What a stranger types is nothing that is counted, remembered or logged at its full
// length.
func TestLongInput(t *testing.T) {
	var log bytes.Buffer
	s := browserServer(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	for _, length := range []int{maxUsername, maxUsername + 1} {
		name := strings.Repeat("n", length)
		if _, err := s.signIn(t.Context(), name, "wrong", caller{}); asError(err).Code != errSignIn.Code {
			t.Errorf("a name of %d bytes: %v", length, err)
		}
		counted, err := s.store.Add(t.Context(), FailuresKey(name), 0, time.Hour)
		if err != nil || (counted > 0) != (length <= maxUsername) {
			t.Errorf("a name of %d bytes: counted %d, %v", length, counted, err)
		}
	}
	long := strings.Repeat("p", 25<<10)
	answer := newBrowser(t, s).token("web", url.Values{"grant_type": {"authorization_code"}, long: {"1", "2"}})
	if answer.status != 400 || answer.text("error") != "invalid_request" {
		t.Errorf("%d %v", answer.status, answer.body)
	}
	if !strings.Contains(log.String(), "ppp") || log.Len() > 8<<10 {
		t.Errorf("the log has %d bytes", log.Len())
	}
}
