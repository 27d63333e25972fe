package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"authserver/authserver"
	"authserver/internal/feed"
	"authserver/internal/intake"
	"authserver/keys"
)

// levels are what a revocation can name, in words.
var levels = map[feed.Level]string{
	feed.Token: "the token itself", feed.Grant: "its grant", feed.Session: "its session", feed.KeyID: "its key",
	feed.Subject: "everything of its user", feed.SubjectEpoch: "everything of its user",
	feed.Client: "everything of its client", feed.ClientEpoch: "everything of its client", feed.Issuer: "everything that the issuer had issued",
}

// checkRevocation asks the running server, which knows when and why, or else the
// issuer's feed, which knows whether.
func (v verification) checkRevocation(ctx context.Context, list *checklist, token feed.Subjects, keys []intake.Key, now time.Time) {
	const name = "revocation"
	if v.server != nil {
		var answer authserver.TokenEnds
		if err := v.server.call("/token/show", authserver.TokenQuery{Keys: token}, &answer); err != nil {
			list.skip(name, fmt.Sprintf("the server was asked, and did not say: %v", err))
			return
		}
		list.add(name, endedBy(answer.Ended, now), "not revoked, by the server's log")
		return
	}
	if v.issuer == "" {
		list.skip(name, "--issuer was not given, nor --socket or --config for the running server")
		return
	}
	if v.jwks != "" && !strings.Contains(v.jwks, "://") {
		list.skip(name, "the key set is a file, so nothing is fetched")
		return
	}
	level, revoked, err := askFeed(ctx, v.issuer, token, keys)
	switch {
	case err != nil:
		list.skip(name, fmt.Sprintf("%v; ask the running server with --socket or --config, or the introspection endpoint", err))
	case revoked:
		list.add(name, fmt.Errorf("%s was revoked, by the issuer's feed; the running server knows when and why: --socket or --config", levels[level]), "")
	default:
		list.add(name, nil, "not revoked, by the issuer's feed")
	}
}

// endedBy says what ended a token, and when.
func endedBy(all []authserver.TokenEnd, now time.Time) error {
	var said []string
	for _, end := range all {
		at := time.Unix(end.At, 0)
		text := fmt.Sprintf("%s was revoked %s, at %s", levels[end.Level], distance(at, now), at.UTC().Format(time.RFC3339))
		if end.Reason != "" {
			text += fmt.Sprintf(" (%s)", end.Reason)
		}
		said = append(said, text)
	}
	if len(said) == 0 {
		return nil
	}
	return errors.New(strings.Join(said, "; "))
}

// askFeed loads the snapshot of the issuer's feed of revocations.
func askFeed(ctx context.Context, issuer string, token feed.Subjects, keys []intake.Key) (feed.Level, bool, error) {
	metadata, err := discover(ctx, issuer)
	if err != nil {
		return "", false, err
	}
	if metadata.Revocations == "" {
		return "", false, errors.New("the issuer publishes no feed of revocations")
	}
	body, err := fetch(ctx, metadata.Revocations, feed.MaxSnapshot)
	if err != nil {
		return "", false, fmt.Errorf("reading the feed of revocations: %w", err)
	}
	follower := feed.NewFollower(issuer)
	err = follower.Load(body, func(signed *intake.Token) error {
		i := slices.IndexFunc(keys, func(key intake.Key) bool { return key.ID == signed.KeyID })
		if i < 0 {
			return fmt.Errorf("kid %q is not published", signed.KeyID)
		}
		return signed.Verify(keys[i])
	})
	if err != nil {
		return "", false, fmt.Errorf("reading the feed of revocations: %w", err)
	}
	level, revoked := follower.Set.Revoked(token)
	return level, revoked, nil
}

// stateOf says what the running server says of a key, if it is asked.
func (v verification) stateOf(keyID string) string {
	if v.server == nil {
		return ""
	}
	var key keys.PublicKey
	if err := v.server.call("/key/show", authserver.KeyRef{KeyID: keyID}, &key); err != nil {
		return fmt.Sprintf("; the server says of it: %v", err)
	}
	return fmt.Sprintf("; it is %s, activated %s", key.State, minute(key.Activated))
}
