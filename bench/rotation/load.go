package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"authserver/verifier"

	"github.com/coreos/go-oidc/v3/oidc"
)

// load is clients that get tokens all the time, and resource servers that verify them.
type load struct {
	ctx    context.Context
	end    context.CancelFunc
	issuer string
	ours   *verifier.Verifier
	coreos *oidc.IDTokenVerifier
	wait   sync.WaitGroup

	clients, refreshes, failed, verified, refused atomic.Int64

	signed sync.Map // kids
}

func newLoad(ctx context.Context, issuer string) (*load, error) {
	ctx, end := context.WithCancel(ctx)
	ours, err := verifier.New(ctx, verifier.Config{Issuer: issuer, Audience: audience, CacheBytes: -1, WhenStale: verifier.AcceptUntilExpiry, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		end()
		return nil, err
	}
	coreos := oidc.NewVerifier(issuer, oidc.NewRemoteKeySet(ctx, issuer+"/.well-known/jwks.json"), &oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{"ES256"}})
	return &load{ctx: ctx, end: end, issuer: issuer, ours: ours, coreos: coreos}, nil
}

// tokens is a token response (RFC 6749 §5.1).
type tokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

func (l *load) request(client string, form url.Values) (t tokens, err error) {
	request, err := http.NewRequest(http.MethodPost, l.issuer+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		return t, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth(client, secret)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return t, err
	}
	defer response.Body.Close()
	var refusal struct {
		Code string `json:"error"`
		Text string `json:"error_description"`
	}
	if response.StatusCode != http.StatusOK {
		err := json.NewDecoder(response.Body).Decode(&refusal)
		return t, errors.Join(fmt.Errorf("%s %s: %s", response.Status, refusal.Code, refusal.Text), err)
	}
	return t, json.NewDecoder(response.Body).Decode(&t)
}

// start signs people in and lets everybody go.
func (l *load) start(people int) error {
	for range people {
		first, err := l.request("web", url.Values{"grant_type": {"password"}, "username": {"alice"}, "password": {password}})
		if err != nil {
			return fmt.Errorf("signing in: %w", err)
		}
		l.wait.Go(func() {
			current := first
			l.again(func() (string, error) {
				next, err := l.request("web", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {current.Refresh}})
				if err == nil && (next.Refresh == "" || next.Refresh == current.Refresh) {
					err = errors.New("the refresh token did not rotate")
				}
				if err == nil {
					current = next
					l.refreshes.Add(1)
				}
				return next.Access, err
			})
		})
		l.wait.Go(func() {
			l.again(func() (string, error) {
				t, err := l.request("job", url.Values{"grant_type": {"client_credentials"}})
				if err == nil {
					l.clients.Add(1)
				}
				return t.Access, err
			})
		})
	}
	return nil
}

// again gets a token again and again, and lets it be verified.
func (l *load) again(get func() (string, error)) {
	for l.ctx.Err() == nil {
		token, err := get()
		if err != nil {
			l.failed.Add(1)
			log.Print(err)
			time.Sleep(time.Second)
			continue
		}
		l.signed.Store(kidOf(token), true)
		l.verify(token)
		l.wait.Go(func() {
			select {
			case <-time.After(lifetime - 10*time.Second):
				l.verify(token)
			case <-l.ctx.Done():
			}
		})
		time.Sleep(20 * time.Millisecond)
	}
}

func (l *load) verify(token string) {
	for name, err := range map[string]error{"package verifier": second(l.ours.Verify(l.ctx, token)), "coreos/go-oidc": second(l.coreos.Verify(l.ctx, token))} {
		if l.ctx.Err() != nil {
			return
		}
		if l.verified.Add(1); err != nil {
			l.refused.Add(1)
			log.Printf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func (l *load) stop() {
	l.end()
	l.wait.Wait()
}

// kids counts the keys that tokens were signed with.
func (l *load) kids() int {
	n := 0
	l.signed.Range(func(any, any) bool { n++; return true })
	return n
}

func kidOf(token string) string {
	first, _, _ := strings.Cut(token, ".")
	header, _ := base64.RawURLEncoding.DecodeString(first)
	var read struct {
		KeyID string `json:"kid"`
	}
	json.Unmarshal(header, &read) // of a token that was just issued
	return read.KeyID
}
