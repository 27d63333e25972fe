package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"authserver/internal/accesstoken"
	"authserver/internal/feed"
	"authserver/internal/intake"
)

const leeway = 30 * time.Second // between clocks, as in package verifier

// verification is what a token is verified against; empty fields are not checked.
type verification struct {
	issuer, audience, jwks string
	server                 *operator // the running server, if it is to be asked for revocations
}

// check is one step of a verification.
type check struct {
	Name   string `json:"check"`
	Result string `json:"result"` // passed, failed or not checked
	Detail string `json:"detail"`
}

type checklist []check

func (l *checklist) add(name string, err error, detail string) {
	result := "passed"
	if err != nil {
		result, detail = "failed", err.Error()
	}
	*l = append(*l, check{name, result, detail})
}

func (l *checklist) skip(name, why string) { *l = append(*l, check{name, "not checked", why}) }

// first returns the first check with a result.
func (l checklist) first(result string) *check {
	if i := slices.IndexFunc(l, func(c check) bool { return c.Result == result }); i >= 0 {
		return &l[i]
	}
	return nil
}

func verifyToken(ctx context.Context, out io.Writer, from verification, raw string, output outputFormat) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	keys, where, err := findKeys(ctx, from.issuer, from.jwks)
	if err != nil && from.jwks == "" {
		return withHint(err, "is that the issuer, to the byte, and is it running? --jwks takes the URL or the file of a key set")
	} else if err != nil {
		return withHint(err, "--jwks takes the URL or the file of a key set")
	}
	checks := from.checks(ctx, raw, keys, where, time.Now())
	failed := checks.first("failed")
	if output == outputJSON {
		err = json.NewEncoder(out).Encode(map[string]any{"valid": failed == nil, "checks": checks})
	} else {
		err = checks.print(out)
	}
	if failed != nil {
		return fmt.Errorf("the token is not valid: %s: %s", failed.Name, visible(failed.Detail))
	}
	return err
}

func (l checklist) String() string {
	var text strings.Builder
	for _, c := range l {
		fmt.Fprintf(&text, "%-11s  %-10s  %s\n", c.Result, c.Name, visible(c.Detail))
	}
	return text.String()
}

func (l checklist) print(out io.Writer) error {
	text := l.String()
	if l.first("failed") == nil {
		verdict := "valid"
		if l.first("not checked") != nil {
			verdict = "nothing failed, but not everything was checked"
		}
		text += "\n" + verdict + "\n"
	}
	_, err := io.WriteString(out, text)
	return err
}

// checks is RFC 9068 §4, step by step; unlike package verifier it goes on after a
// failure.
func (v verification) checks(ctx context.Context, raw string, keys []intake.Key, where string, now time.Time) checklist {
	var list checklist
	token, err := intake.Parse(raw)
	list.add("form", err, "compact serialization, nothing ambiguous in it")
	if err != nil {
		list.skip("the rest", "the token cannot be read")
		return list
	}
	if !token.HasType(accesstoken.Type) {
		err = fmt.Errorf("typ is %q; an access token has at+jwt", token.Type)
	}
	list.add("type", err, "at+jwt, an access token")
	v.checkSignature(&list, token, keys, where)
	var claims struct {
		accesstoken.Claims
		NotBefore int64 `json:"nbf"`
	}
	if err := intake.Decode(token.Payload, &claims); err != nil {
		list.add("claims", err, "")
		return list
	}
	list.add("claims", required(claims.Claims), "sub, client_id, jti, iat and exp are there")
	v.checkMeaning(&list, claims.Claims)
	list.add("times", inTime(claims.Claims, claims.NotBefore, now), "expires "+distance(time.Unix(claims.Expires, 0), now))
	if claims.Confirmation != nil { // RFC 9449 §7.2, RFC 8705 §3
		list.add("binding", errors.New("the token is bound to a key (cnf), and no proof of possession comes with it"), "")
	}
	v.checkRevocation(ctx, &list, feed.SubjectsOf(token.KeyID, &claims.Claims), keys, now)
	return list
}

func (v verification) checkSignature(list *checklist, token *intake.Token, keys []intake.Key, where string) {
	i := slices.IndexFunc(keys, func(key intake.Key) bool { return key.ID == token.KeyID })
	state := v.stateOf(token.KeyID)
	if i < 0 {
		list.add("key", fmt.Errorf("kid %q is not published at %s%s", token.KeyID, where, state), "")
		list.skip("signature", "there is no key for it")
		return
	}
	list.add("key", nil, fmt.Sprintf("kid %s is published at %s%s", token.KeyID, where, state))
	list.add("signature", token.Verify(keys[i]), keys[i].Algorithm)
}

func (v verification) checkMeaning(list *checklist, claims accesstoken.Claims) {
	if v.issuer == "" {
		list.skip("issuer", fmt.Sprintf("--issuer was not given; the token says %q", claims.Issuer))
	} else {
		var err error
		if claims.Issuer != v.issuer {
			err = fmt.Errorf("iss is %q, expected %q", claims.Issuer, v.issuer)
		}
		list.add("issuer", err, v.issuer)
	}
	if v.audience == "" {
		list.skip("audience", fmt.Sprintf("--audience was not given; the token is meant for %q", []string(claims.Audience)))
	} else {
		var err error
		if !slices.Contains(claims.Audience, v.audience) {
			err = fmt.Errorf("aud is %q, expected %q", []string(claims.Audience), v.audience)
		}
		list.add("audience", err, v.audience)
	}
}

// required returns which required claim is missing (RFC 9068 §2.2).
func required(claims accesstoken.Claims) error {
	for _, claim := range []struct {
		name    string
		missing bool
	}{
		{"sub", claims.Subject == ""}, {"client_id", claims.ClientID == ""}, {"jti", claims.ID == ""},
		{"iat", claims.IssuedAt <= 0}, {"exp", claims.Expires <= 0},
	} {
		if claim.missing {
			return fmt.Errorf("%s is missing", claim.name)
		}
	}
	return nil
}

func inTime(claims accesstoken.Claims, notBefore int64, now time.Time) error {
	expires, issued, begins := time.Unix(claims.Expires, 0), time.Unix(claims.IssuedAt, 0), time.Unix(notBefore, 0)
	switch {
	case !now.Before(expires.Add(leeway)):
		return fmt.Errorf("expired %s, at %s", distance(expires, now), expires.UTC().Format(time.RFC3339))
	case issued.After(now.Add(leeway)):
		return fmt.Errorf("issued in the future: iat is %s", issued.UTC().Format(time.RFC3339))
	case begins.After(now.Add(leeway)):
		return fmt.Errorf("not valid yet: nbf is %s", begins.UTC().Format(time.RFC3339))
	}
	return nil
}
