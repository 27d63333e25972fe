package authservertest

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// secretWatch sees to it that the log of a test server holds none of the secrets that
// went to it or came from it, in whatever test: passwords, codes, tokens, verifiers,
// client secrets, assertions, cookies.
type secretWatch struct {
	mu     sync.Mutex
	log    bytes.Buffer
	words  map[string]string // the secret, and where it was
	others map[string]string // those that are no words
}

func newSecretWatch() *secretWatch {
	return &secretWatch{words: make(map[string]string), others: make(map[string]string)}
}

// watchSecrets returns a watch that tells when the test has ended.
func watchSecrets(t testing.TB) *secretWatch {
	w := newSecretWatch()
	t.Cleanup(func() {
		for _, found := range w.found() {
			t.Errorf("the server's log holds a secret: %s", found)
		}
	})
	return w
}

// Write takes the log.
func (w *secretWatch) Write(record []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(record)
}

// logger logs to the watch at every level, and to another handler.
func (w *secretWatch) logger(other slog.Handler) *slog.Logger {
	return slog.New(slog.NewMultiHandler(other, slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})))
}

const shortestSecret = 10 // bytes; shorter ones are found in anything

var word = regexp.MustCompile(`[A-Za-z0-9_-]{10,}`)

// found returns what should not be in the log.
func (w *secretWatch) found() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.foundIn(w.log.Bytes())
}

func (w *secretWatch) foundIn(log []byte) []string {
	var found []string
	for _, text := range word.FindAll(log, -1) {
		if where, is := w.words[string(text)]; is {
			found = append(found, where+" ("+string(text)+")")
		}
	}
	for secret, where := range w.others {
		if bytes.Contains(log, []byte(secret)) {
			found = append(found, where+" ("+secret+")")
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// public are the parameters that may be logged.
var public = []string{"client_id", "username", "scope", "grant_type", "resource", "redirect_uri", "response_type", "response_mode",
	"token_type_hint", "client_assertion_type", "action", "decision", "prompt", "acr_values", "ui_locales", "login_hint",
	"code_challenge", "code_challenge_method", "post_logout_redirect_uri", "session", "sid", "kid", "name", "label", "verifier"}

func (w *secretWatch) add(where, secret string) {
	if len(secret) < shortestSecret {
		return
	}
	// Of what has dots the last part is the secret: a token's signature, a session's secret.
	if last := secret[strings.LastIndexByte(secret, '.')+1:]; word.FindString(last) == last && last != "" {
		w.words[last] = where
	} else {
		w.others[secret] = where
	}
}

func (w *secretWatch) addForm(where, text string) {
	values, err := url.ParseQuery(text)
	if err != nil {
		return
	}
	for name, all := range values {
		if slices.Contains(public, name) || len(name) > 40 {
			continue
		}
		for _, value := range all {
			w.add(where+" parameter "+name, value)
		}
	}
}

func (w *secretWatch) addCookies(where string, cookies []*http.Cookie) {
	for _, cookie := range cookies {
		if _, secret, is := strings.Cut(cookie.Value, "."); is { // before it is what may be known
			w.add(where+" "+cookie.Name, secret)
		} else {
			w.add(where+" "+cookie.Name, cookie.Value)
		}
	}
}

// handler serves h, watched.
func (w *secretWatch) handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(writer http.ResponseWriter, r *http.Request) {
		var body kept
		if r.Body != nil {
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.TeeReader(r.Body, &body), r.Body}
		}
		answer := &watchedAnswer{ResponseWriter: writer}
		request := r.Clone(r.Context()) // before h changes it
		defer func() { w.see(request, body.Bytes(), answer.Header(), answer.body.Bytes()) }()
		h.ServeHTTP(answer, r)
	})
}

func (w *secretWatch) see(r *http.Request, body []byte, header http.Header, answer []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addForm("query", r.URL.RawQuery)
	w.addForm("form", string(body))
	w.addCookies("cookie", r.Cookies())
	if _, password, is := r.BasicAuth(); is {
		w.add("client secret", password)
	} else if _, token, is := strings.Cut(r.Header.Get("Authorization"), " "); is {
		w.add("token in the header", token)
	}
	w.addCookies("new cookie", (&http.Response{Header: header}).Cookies())
	if target, err := url.Parse(header.Get("Location")); err == nil {
		w.addForm("redirect", url.Values{"code": target.Query()["code"]}.Encode())
	}
	var tokens map[string]any
	if json.Unmarshal(answer, &tokens) == nil {
		for _, name := range []string{"access_token", "refresh_token", "id_token"} {
			token, _ := tokens[name].(string)
			w.add("issued "+name, token)
		}
	}
}

// kept is the beginning of a body.
type kept struct{ bytes.Buffer }

func (k *kept) Write(b []byte) (int, error) {
	k.Buffer.Write(b[:min(len(b), max(0, 128<<10-k.Len()))])
	return len(b), nil
}

// watchedAnswer keeps the beginning of what is answered.
type watchedAnswer struct {
	http.ResponseWriter
	body kept
}

func (a *watchedAnswer) Write(b []byte) (int, error) {
	a.body.Write(b)
	return a.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (a *watchedAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
