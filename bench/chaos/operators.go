package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"authserver/verifier"
)

// operator makes a call to an instance's admin socket, and decodes its answer. A status
// of 0 is no answer.
func (i *instance) operator(path string, body, into any) int {
	text, err := json.Marshal(body)
	if err != nil {
		return 0
	}
	response, err := i.admin.Post("http://admin"+path, "application/json", bytes.NewReader(text))
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil || into != nil && json.Unmarshal(answer, into) != nil {
		return 0
	}
	return response.StatusCode
}

// adminClient reaches the socket in an instance's data directory.
func adminClient(data string) *http.Client {
	return &http.Client{Timeout: longestCall, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(data, "admin.sock"))
	}}}
}

// operate has an operator end all of the person, a session, a client or a key, or
// rotate the keys; one time in three he waits until it is enforced.
func (p *person) operate() {
	e := ending{Person: p.number, Outcome: unknown}
	body := map[string]string{"reason": "chaos"}
	path := "/grant/revoke"
	switch n := p.dice.IntN(20); {
	case n < 9:
		body["username"] = p.name()
	case n < 15 && p.session != "":
		e.Session = p.session
		body["username"], body["sid"] = p.name(), p.session
	case n == 15:
		e.Client = otherClient
		body["client_id"] = otherClient
	case n < 18:
		p.rotate()
		return
	case p.world.scenario.quickKeys || p.dice.IntN(4) == 0:
		if e.Key = p.world.replaceable(p.any()); e.Key == "" {
			return
		}
		path, body["kid"] = "/key/revoke", e.Key
		p.world.keyEnding(e.Key)
	default:
		return
	}
	i := p.any()
	e.Instance = i.number
	if p.dice.IntN(3) == 0 {
		path += "?wait=enforced"
	}
	var answer struct {
		Enforced struct {
			Receipt string `json:"receipt"`
			Error   string `json:"error"`
		} `json:"enforced"`
	}
	e.Start = p.history.now()
	status := i.operator(path, body, &answer)
	e.End = p.history.now()
	switch {
	case status == http.StatusOK:
		e.Outcome = ok
		e.Enforced = answer.Enforced.Receipt != "" && answer.Enforced.Error == ""
		p.dead = e.Key == "" && (e.Client == "" || e.Client == p.client())
	case status == http.StatusNotFound && e.Session != "": // an earlier call without an answer has ended it
		return
	case status != 0 && status != http.StatusServiceUnavailable:
		p.history.violation(10, "an operator's %s was answered with %d", path, status)
	}
	p.history.ending(e)
	if e.Key == "" {
		p.lookAfter()
	}
}

// lookAfter shows what is left of the person's grants after they were ended: the
// present one everywhere, for instances learn of it one after the other.
func (p *person) lookAfter() {
	first := p.any()
	for n := range p.world.instances {
		i := p.world.instances[(first.number+n)%len(p.world.instances)]
		if i.avoided.Load() {
			continue
		}
		p.introspectAt(i, p.grant, introspectAccess, p.anyAccess(), 0)
		p.presentTo(i, p.tokens[len(p.tokens)-1], false)
	}
	for _, one := range p.past {
		p.introspect(one.grant, introspectAccess, one.access, 0)
	}
}

func (p *person) rotate() {
	status := p.any().operator("/key/rotate", map[string]string{"reason": "chaos"}, nil)
	if status == http.StatusOK {
		p.history.fault("keys rotated")
	}
}

// ring is what operators see of the keys that sign with an algorithm.
type ring struct {
	Name string `json:"name"`
	Keys []struct {
		KeyID     string    `json:"kid"`
		State     string    `json:"state"`
		Published time.Time `json:"published"`
	} `json:"keys"`
}

func (r ring) active() (kids []string) {
	for _, k := range r.Keys {
		if k.State == "active" {
			kids = append(kids, k.KeyID)
		}
	}
	return kids
}

func (i *instance) rings() []ring {
	var list struct {
		Rings []ring `json:"rings"`
	}
	if i.operator("/key/list", struct{}{}, &list) != http.StatusOK {
		return nil
	}
	return list.Rings
}

// replaceable is the key that signs access tokens, if another could take over at once:
// else nothing would be signed for minutes after its end.
func (w *world) replaceable(i *instance) string {
	for _, r := range i.rings() {
		if r.Name != "ES256" || len(r.active()) != 1 {
			continue
		}
		for _, k := range r.Keys {
			if k.State == "pending" && time.Since(k.Published) > w.publishBefore() {
				return r.active()[0]
			}
		}
	}
	return ""
}

// watch checks until ctx ends what an instance that is up shows of its keys.
func (i *instance) watch(ctx context.Context, w *world, h *history) {
	for turn := 0; ctx.Err() == nil; turn++ {
		time.Sleep(25 * time.Millisecond)
		if !i.up() {
			continue
		}
		i.watchKeySet(w, h)
		if turn%8 == 0 {
			for _, r := range i.rings() {
				for _, k := range r.Keys {
					if k.State == "retiring" {
						h.retired(i.number, k.KeyID)
					}
				}
				if h.watched(9); len(r.active()) > 1 {
					h.violation(9, "instance %d has several active keys in ring %s: %s", i.number, r.Name, strings.Join(r.active(), " "))
				}
			}
		}
	}
}

// watchKeySet checks I13 and notes the key set for I6, I7 and I14.
func (i *instance) watchKeySet(w *world, h *history) {
	inTrouble, asked := w.storeTrouble.Load() > 0, i.begun.Load()
	set := keySet{Instance: i.number, Start: h.now()}
	response, err := w.client.Get(fmt.Sprintf("http://localhost:%s/.well-known/jwks.json", i.port))
	if err != nil { // it may have just gone
		return
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return
	}
	set.End = h.now()
	h.searched(body)
	var parsed struct {
		Keys []struct {
			KeyID string `json:"kid"`
		} `json:"keys"`
	}
	if waits := i.served.Load() != asked || i.begun.Load() != asked; response.StatusCode == http.StatusServiceUnavailable && waits {
		return // a start that waits for its store has no keys yet
	}
	if inTrouble {
		h.watched(13)
	}
	if response.StatusCode != http.StatusOK || json.Unmarshal(body, &parsed) != nil || len(parsed.Keys) == 0 {
		h.violation(13, "the key set was answered with %s", response.Status)
		return
	}
	i.served.Store(asked)
	for _, k := range parsed.Keys {
		set.Keys = append(set.Keys, k.KeyID)
	}
	var seconds int64
	if _, after, found := strings.Cut(response.Header.Get("Cache-Control"), "max-age="); found {
		fmt.Sscanf(after, "%d", &seconds)
	}
	set.MaxAge = seconds * int64(time.Second)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.KeySets = append(h.KeySets, set)
}

// converge waits until all instances show the same keys as active (I9).
func (w *world) converge(h *history) {
	if len(w.instances) < 2 {
		return
	}
	var shown []string
	for began := time.Now(); time.Since(began) < 30*time.Second; time.Sleep(50 * time.Millisecond) {
		shown = nil
		for _, i := range w.instances {
			var actives []string
			for _, r := range i.rings() {
				actives = append(actives, r.Name+" "+strings.Join(r.active(), " "))
			}
			shown = append(shown, strings.Join(actives, ", "))
		}
		same := shown[0] != ""
		for _, one := range shown {
			same = same && one == shown[0]
		}
		if same {
			h.watched(9)
			return
		}
	}
	h.violation(9, "30 s after the trouble the instances show different active keys: %q", shown)
}

// keyEnding notes that the end of a key is asked for: it may be refused from now on.
func (w *world) keyEnding(kid string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endedKeys[kid] = true
}

func (w *world) isEnded(kid string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.endedKeys[kid]
}

// carry keeps the ends of keys for the next history of this world, by its clock.
func (w *world) carry(from, to *history) {
	ago := to.began.Sub(from.began).Nanoseconds()
	for _, e := range from.Endings {
		if e.Key != "" {
			e.Start -= ago
			e.End -= ago
			to.Endings = append(to.Endings, e)
		}
	}
}

// verify has a token verified offline, by a verifier that rejects when it does not know
// the last second's revocations, or by one that accepts.
func (p *person) verify(ctx context.Context, grant int, access string) {
	h, which := p.history, p.dice.IntN(2)
	c := call{Grant: grant, Kind: verifyOffline, Instance: which, Key: keyOf(access), Start: h.now(), Outcome: active}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := p.world.verifiers[which].Verify(ctx, access)
	c.End = h.now()
	var refused *verifier.Error
	switch {
	case err == nil:
	case errors.Is(err, verifier.ErrUnavailable) || !errors.As(err, &refused) || refused.Code == "temporarily_unavailable":
		c.Outcome = unknown
	default:
		c.Outcome, c.Note = inactive, err.Error()
	}
	h.record(c)
}

// verifies checks I7: a token that was just issued verifies offline. That nobody could
// be asked for the first keys is no refusal, nor is it that the grant or the key has ended.
func (p *person) verifies(access string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	p.history.watched(7)
	_, err := p.world.verifiers[accepting].Verify(ctx, access)
	var refused *verifier.Error
	if errors.As(err, &refused) && refused.Reason != verifier.Revoked && refused.Code != "temporarily_unavailable" && !p.world.isEnded(keyOf(access)) {
		p.history.violation(7, "a token does not verify: %v", err)
	}
}

// verifiable checks that verifiers decide about a token when the trouble is over: one that
// never fetched a key or the feed again would break nothing else (I7).
func (p *person) verifiable(ctx context.Context, access string) {
	for _, v := range p.world.verifiers {
		p.history.watched(7)
		var err error
		for began := time.Now(); time.Since(began) < 30*time.Second && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
			if _, err = v.Verify(ctx, access); !errors.Is(err, verifier.ErrUnavailable) {
				break
			}
		}
		if errors.Is(err, verifier.ErrUnavailable) && ctx.Err() == nil {
			p.history.violation(7, "30 s after the trouble a verifier still cannot say whether a token is good: %v", err)
		}
	}
}

// sessionOf is the session that a token belongs to.
func sessionOf(access string) string {
	var claims struct {
		Session string `json:"sid"`
	}
	if parts := strings.Split(access, "."); len(parts) == 3 {
		payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
		json.Unmarshal(payload, &claims)
	}
	return claims.Session
}
