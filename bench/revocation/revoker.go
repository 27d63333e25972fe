package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"authserver/bench/internal/load"
	"authserver/bench/internal/process"
	"authserver/internal/feed"
)

// revoker gets access tokens and revokes them.
type revoker struct {
	base   string
	client *http.Client
}

// minted is an access token and its key in the feed.
type minted struct {
	raw string
	key feed.Key
}

func newRevoker(installed *process.Installation) *revoker {
	return &revoker{installed.Base, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 30 * time.Second}}
}

func (r *revoker) post(path string, form url.Values) ([]byte, error) {
	request, err := http.NewRequest("POST", r.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth(process.ClientID, process.Secret)
	response, err := r.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s %s", path, response.Status, body)
	}
	return body, err
}

// revoke repeats what is answered with 503, as a client does; the repetitions count.
func (r *revoker) revoke(token string) error {
	return process.Await(func() error {
		_, err := r.post("/revoke", url.Values{"token": {token}})
		return err
	}, 20*time.Second)
}

// tokens returns n access tokens.
func (r *revoker) tokens(n int) ([]minted, error) {
	all := make([]minted, n)
	failures := make([]error, 16)
	var next atomic.Int64
	var minting sync.WaitGroup
	for worker := range failures {
		minting.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failures[worker] == nil; i = int(next.Add(1)) - 1 {
				all[i], failures[worker] = r.mint()
			}
		})
	}
	minting.Wait()
	return all, errors.Join(failures...)
}

func (r *revoker) mint() (minted, error) {
	body, err := r.post("/token", url.Values{"grant_type": {"client_credentials"}})
	if err != nil {
		return minted{}, err
	}
	var answer struct {
		Access string `json:"access_token"`
	}
	var claims struct {
		ID string `json:"jti"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return minted{}, err
	}
	parts := strings.Split(answer.Access, ".")
	if len(parts) != 3 {
		return minted{}, errors.New("the access token is no JWS")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	return minted{answer.Access, feed.KeyOf(feed.Token, claims.ID)}, err
}

// beside revokes further tokens at a rate until the returned function is called,
// which waits for the last.
func (r *revoker) beside(rate int, longest time.Duration) (stop func(), err error) {
	// The load goes on for as long as there are tokens, then they are revoked again:
	// each is an event in the log like the first.
	tokens, err := r.tokens(rate)
	if err != nil {
		return nil, err
	}
	var next atomic.Int64
	operations := make([]load.Operation, 32)
	var stopped atomic.Bool
	for i := range operations {
		operations[i] = func() error {
			if stopped.Load() {
				return io.EOF
			}
			return r.revoke(tokens[int(next.Add(1))%len(tokens)].raw)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		load.Open(operations, float64(rate), longest+time.Minute)
	}()
	return func() { stopped.Store(true); <-done }, nil
}
