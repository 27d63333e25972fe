package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"authserver/internal/intake"
	"authserver/keys"
	"authserver/store/redisstore"
)

// feedPatience is how long the first of a live stream may take, which the server sends at once.
const feedPatience = 20 * time.Second

// certificatePatience is how long a certificate should be good for, at least.
const certificatePatience = 14 * 24 * time.Hour

// online asks what a configuration names: the store, and the issuer as clients reach it, with
// everything that is in between. Nothing is changed.
func (c *config) online(ctx context.Context, warnings io.Writer) checklist {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var list checklist
	c.checkStore(ctx, &list, warnings)
	metadata, err := c.checkMetadata(ctx, &list)
	if err != nil {
		list.skip("the rest", "the issuer could not be asked")
		return list
	}
	c.checkKeySet(ctx, &list, metadata.JWKS)
	c.checkToken(ctx, &list)
	c.checkFeed(ctx, &list, metadata.Revocations, feedPatience)
	return list
}

// failure is the error of the checks that failed, if any.
func (l checklist) failure() error {
	failed := 0
	for _, c := range l {
		if c.Result == "failed" {
			failed++
		}
	}
	if failed == 0 {
		return nil
	}
	first := l.first("failed")
	return fmt.Errorf("%d of %d checks failed; the first: %s: %s", failed, len(l), first.Name, visible(first.Detail))
}

func (c *config) checkStore(ctx context.Context, list *checklist, warnings io.Writer) {
	if c.Store == "" {
		list.skip("store", "the embedded one is opened by the server alone")
		return
	}
	tls, key, err := c.storeTLS()
	if err != nil {
		list.add("store", fmt.Errorf("%s: %w", key, err), "")
		return
	}
	untimed := func(_ []string, attr slog.Attr) slog.Attr {
		if attr.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return attr
	}
	log := slog.New(slog.NewTextHandler(warnings, &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: untimed}))
	opened, err := redisstore.Open(ctx, redisstore.Options{URL: c.Store, Password: c.StorePassword, TLSConfig: tls, Durability: c.Durability,
		InsecureCleartext: c.InsecureStore, Logger: log})
	if err != nil {
		list.add("store", err, "")
		return
	}
	defer opened.Close()
	detail := "Redis answers, takes writes, and is configured for durability " + opened.Durability()
	now, err := opened.Clock(ctx)
	if err == nil {
		err = clockOff("Redis's", now)
	}
	list.add("store", err, detail)
}

// clockOff is the error for a clock that differs from ours by more than is taken for granted.
func clockOff(whose string, at time.Time) error {
	if off := time.Since(at); off.Abs() > keys.ClockSkew {
		return fmt.Errorf("%s clock differs from this machine's by %s: run a time service on both", whose, off.Abs().Round(time.Second))
	}
	return nil
}

// question is one request to the issuer and what came of it.
type question struct {
	status int
	header http.Header
	body   []byte
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // clients follow none

// askIssuer sends a request as a client would, but follows no redirect.
func askIssuer(ctx context.Context, method, location string, body io.Reader) (q question, response *http.Response, err error) {
	request, err := http.NewRequestWithContext(ctx, method, location, body)
	if err != nil {
		return q, nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	client := http.Client{Timeout: 20 * time.Second, CheckRedirect: noRedirect}
	if response, err = client.Do(request); err != nil {
		return q, nil, err
	}
	defer response.Body.Close()
	q = question{status: response.StatusCode, header: response.Header}
	q.body, err = io.ReadAll(io.LimitReader(response.Body, intake.MaxKeySet))
	return q, response, err
}

// unexpected says what else than the wanted status was answered.
func (q question) unexpected(location string) error {
	text := fmt.Sprintf("%s answered %d", location, q.status)
	if to := q.header.Get("Location"); to != "" {
		text += fmt.Sprintf(" and leads to %q; clients follow no redirect here", to)
	}
	return errors.New(text + "; does the proxy send this path, as it is, to the server?")
}

// checkMetadata asks for the metadata wherever clients look for it (RFC 8414 §3, §3.3).
func (c *config) checkMetadata(ctx context.Context, list *checklist) (metadata issuerMetadata, err error) {
	base, err := url.Parse(c.Issuer)
	if err != nil {
		return metadata, err
	}
	places := make([]string, 0, 4)
	for _, name := range []string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"} {
		inserted := *base
		inserted.Path = name + base.Path
		places = append(places, inserted.String(), c.Issuer+name)
	}
	for _, place := range slices.Compact(places) {
		q, response, askErr := askIssuer(ctx, http.MethodGet, place, nil)
		metadata = issuerMetadata{}
		switch {
		case askErr != nil:
			err = fmt.Errorf("%w; is the server running, and does the name lead to it?", askErr)
		case q.status != http.StatusOK:
			err = q.unexpected(place)
		case json.Unmarshal(q.body, &metadata) != nil:
			err = fmt.Errorf("%s answers with something that is not JSON; who answers there?", place)
		case metadata.Issuer != c.Issuer:
			err = fmt.Errorf("%s is of issuer %q, and this configuration's is %q", place, metadata.Issuer, c.Issuer)
		}
		if err != nil {
			list.add("issuer", err, "")
			return metadata, err
		}
		list.add("issuer", nil, place)
		if place != places[0] {
			continue
		}
		if at, dateErr := http.ParseTime(q.header.Get("Date")); dateErr == nil {
			list.add("clock", clockOff("the issuer's", at), "the issuer's is right")
		}
		if response.TLS != nil {
			until := response.TLS.PeerCertificates[0].NotAfter
			var soon error
			if time.Until(until) < certificatePatience {
				soon = fmt.Errorf("the certificate expires %s, at %s", distance(until, time.Now()), until.UTC().Format(time.RFC3339))
			}
			list.add("certificate", soon, "good until "+until.UTC().Format(time.RFC3339))
		}
	}
	return metadata, nil
}

// checkKeySet asks for the keys, and for how long they may be cached on the way: for longer
// than the server says, and verifiers meet unknown keys at a rotation.
func (c *config) checkKeySet(ctx context.Context, list *checklist, location string) {
	q, _, err := askIssuer(ctx, http.MethodGet, location, nil)
	if err == nil && q.status != http.StatusOK {
		err = q.unexpected(location)
	}
	var found []intake.Key
	if err == nil {
		if found, _, err = intake.ParseKeySet(q.body); err == nil && len(found) == 0 {
			err = errors.New("there is no usable key")
		}
	}
	list.add("keys", err, fmt.Sprintf("%d at %s", len(found), location))
	if err != nil {
		return
	}
	fresh, err := maxAge(q.header.Get("Cache-Control"))
	if limit := c.Keys.CacheFor; err == nil && fresh > limit {
		err = fmt.Errorf("Cache-Control allows %s, and the server allows cache_for (%s) at most: let the proxy leave it alone", fresh, limit)
	}
	list.add("caching", err, fmt.Sprintf("the key set may be cached for %s", fresh))
}

// maxAge reads max-age of a Cache-Control header (RFC 9111 §5.2.2.1).
func maxAge(header string) (time.Duration, error) {
	for directive := range strings.SplitSeq(header, ",") {
		if text, is := strings.CutPrefix(strings.ToLower(strings.TrimSpace(directive)), "max-age="); is {
			seconds, err := strconv.ParseUint(strings.Trim(text, `"`), 10, 31)
			return time.Duration(seconds) * time.Second, err
		}
	}
	return 0, fmt.Errorf("the key set comes with Cache-Control %q, which has no max-age: let the proxy leave it alone", header)
}

// checkToken sends a token request that is refused: what matters is who refuses it.
func (c *config) checkToken(ctx context.Context, list *checklist) {
	location := c.Issuer + "/token"
	q, _, err := askIssuer(ctx, http.MethodPost, location, strings.NewReader("grant_type=config_check"))
	var refusal struct {
		Error string `json:"error"`
		Trace string `json:"trace_id"`
	}
	switch {
	case err != nil:
	case json.Unmarshal(q.body, &refusal) != nil || refusal.Error == "":
		err = q.unexpected(location)
	case q.status >= http.StatusInternalServerError:
		err = fmt.Errorf("the server answers %d, %s; its log says why (trace_id %s)", q.status, refusal.Error, refusal.Trace)
	case q.status != http.StatusUnauthorized:
		err = q.unexpected(location)
	}
	list.add("token", err, location+" answers, and refuses who shows no credentials")
}

// checkFeed follows the feed of revocations until its first frame has come.
func (c *config) checkFeed(ctx context.Context, list *checklist, location string, patience time.Duration) {
	if c.Revocations == "authenticated" {
		list.skip("feed", "it asks for credentials (revocations: authenticated)")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		list.add("feed", err, "")
		return
	}
	request.Header.Set("Accept", "text/event-stream")
	client := http.Client{CheckRedirect: noRedirect}
	response, err := client.Do(request)
	if err == nil {
		defer response.Body.Close()
		lines := bufio.NewScanner(response.Body)
		lines.Buffer(nil, intake.MaxKeySet)
		for err = errors.New("the stream ended"); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "data:") {
				err = nil
				break
			}
		}
		if response.StatusCode != http.StatusOK {
			err = question{status: response.StatusCode, header: response.Header}.unexpected(location)
		}
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%s sent nothing within %s: a proxy in front must not buffer it (nginx: proxy_buffering off)", location, patience)
	}
	list.add("feed", err, location+" streams")
}
