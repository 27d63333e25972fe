package authserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"authserver/internal/accesstoken"
	"authserver/internal/feed"
	"authserver/keys"
	"authserver/store"
)

// revocationLog is the log to which every revocation is appended before it is
// acknowledged. Its events are JSON, one revocation each. Servers of different
// versions share it, so a reader takes what it does not know for the most that it
// could mean; see entries. An event that is in the log twice counts once.
const revocationLog = "revocations"

// revocationVersion is of the events that this server writes. It grows when older
// servers would misunderstand what newer ones write.
const revocationVersion = 1

// revocationSlack is how much longer than the longest token's lifetime a
// revocation matters: the verifiers' leeway of a minute at most, and clocks that differ.
const revocationSlack = keys.ClockSkew + time.Minute

// markKept is for how much longer than what was spent or ended a mark of that is kept. The
// mark goes by the store's clock, and what it is about by that of an instance.
const markKept = keys.ClockSkew + time.Minute

// revocation says what has ended: exactly one of a token, a grant, a session, a
// subject, a client, a key or everything. It is the event in the log, and the record of a
// revoked access token. Times are seconds since 1970.
type revocation struct {
	Version int    `json:"v"`
	Token   string `json:"jti,omitempty"`       // one access token
	Grant   string `json:"grant_id,omitempty"`  // all tokens of a grant
	Session string `json:"sid,omitempty"`       // all tokens of a session
	Subject string `json:"sub,omitempty"`       // all tokens of a user that were issued at or before Before
	Client  string `json:"client_id,omitempty"` // all tokens of a client that were issued at or before Before
	Key     string `json:"kid,omitempty"`       // all tokens that a key signed
	All     bool   `json:"all,omitempty"`       // all tokens that were issued at or before Before
	Before  int64  `json:"before,omitempty"`    // At when absent
	Epoch   uint64 `json:"epoch,omitempty"`     // of the user or the client: instead of Before, all tokens of earlier ones
	Reason  string `json:"reason"`
	At      int64  `json:"at"`
	Until   int64  `json:"until"` // when the last token that it ends is accepted nowhere any more

	// Fence ends nothing: whoever wrote it asks to be told where all events before
	// it are enforced. See enforced.
	Fence string `json:"fence,omitempty"`
	From  string `json:"from,omitempty"` // the instance that asks
}

// Why something was ended, as far as the server decides it. Operators say it in
// their own words.
const (
	reasonByClient  = "revoked_by_client"
	reasonStoreLost = "store_lost"
	reasonTheft     = "refresh_theft"
	reasonReplay    = "code_replay"
	reasonMeanwhile = "ended_meanwhile"
	reasonOtherUser = "another_user_signed_in"
)

// What was begun to end is ended, also when the caller has gone away: a page that is closed
// as it signs out, or a thief who waits for no answer.
const (
	endWithin    = 5 * time.Second
	logOutWithin = 20 * time.Second
)

func withoutCaller(ctx context.Context, within time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), within)
}

// endGrant ends a grant and with it all its tokens: its record is gone when it
// returns, and the revocation is in the log. It is there first, so that nobody who
// repeats a call that failed half way finds the record gone and logs nothing.
func (s *Server) endGrant(ctx context.Context, grantID, reason string) error {
	ctx, cancel := withoutCaller(ctx, endWithin)
	defer cancel()
	if err := s.publish(ctx, revocation{Grant: grantID, Reason: reason}); err != nil {
		return err
	}
	if err := s.grants.Delete(ctx, grantID); err != nil {
		return fmt.Errorf("ending a grant: %w", err)
	}
	return nil
}

// endSession ends a session of a user and all its grants. No grant is made in it any more. It
// is logged first, and the session itself ends after its grants, so that nobody who
// repeats a call that failed half way finds the session gone and ends nothing.
func (s *Server) endSession(ctx context.Context, subject, sessionID, reason string) error {
	if err := s.publish(ctx, revocation{Session: sessionID, Reason: reason}); err != nil {
		return err
	}
	if err := s.tell(ctx, securityEvent{Type: sessionRevoked, Session: sessionID, Subject: subject, Reason: reason}); err != nil {
		return err
	}
	return s.closeSession(ctx, subject, sessionID)
}

// closeSession is what is left to do when the end of a session is logged; see finisher.
func (s *Server) closeSession(ctx context.Context, subject, sessionID string) error {
	if err := s.deleteSessionGrants(ctx, subject, sessionID); err != nil {
		return fmt.Errorf("ending a session: %w", err)
	}
	err := s.store.Create(ctx, endedSessionKey(sessionID), nil, time.Now().Add(s.sessionTimes.Max+time.Hour))
	if err != nil && !errors.Is(err, store.ErrExists) {
		return fmt.Errorf("ending a session: %w", err)
	}
	// Once more: some may have been made meanwhile.
	if err := s.deleteSessionGrants(ctx, subject, sessionID); err != nil {
		return fmt.Errorf("ending a session: %w", err)
	}
	if err := s.sessions.Delete(ctx, sessionID); err != nil {
		return fmt.Errorf("ending a session: %w", err)
	}
	return nil
}

// endedSessionKey is the key of the record that says that a session has ended. It
// outlives the requests and codes that the session began, and the session's own
// record, should a sign-in that was under way write that once more.
func endedSessionKey(sessionID string) string { return "ended/" + sessionID }

// endSubject ends all grants and sessions that a user has now. He may sign in again
// unless he is disabled.
// His clients are told of the end of each session (OpenID Connect Back-Channel Logout
// §2.5); what has to be told is stored first, so that it is not forgotten.
func (s *Server) endSubject(ctx context.Context, subject, reason string) error {
	known, err := s.userRecord(ctx, subject)
	if err != nil {
		return err
	}
	sessions, err := s.sessionsOfUser(ctx, known.user)
	if err != nil {
		return err
	}
	for _, one := range sessions {
		clients, err := s.toldClients(ctx, &one)
		if err == nil {
			err = s.backchannel.announce(ctx, &one, clients)
		}
		if err != nil {
			return fmt.Errorf("telling clients of the end of a session: %w", err)
		}
	}
	defer s.backchannel.soon()
	if err := s.tell(ctx, securityEvent{Type: sessionRevoked, Subject: subject, Reason: reason}); err != nil {
		return err
	}
	// Grants of an earlier epoch are dead where they are met, and their tokens say that
	// they are of it. So nothing depends on when which of them goes, and to delete very
	// many may take its time.
	begun, err := s.beginEpoch(ctx, subjectEpoch, subject, time.Now().Unix())
	if err != nil {
		return err
	}
	s.users.changed(subject)
	if err := s.publish(ctx, revocation{Subject: subject, Before: begun.NotBefore, Epoch: begun.number, Reason: reason}); err != nil {
		return err
	}
	if err := s.deleteGrants(ctx, subject, begun); err != nil {
		return fmt.Errorf("ending all of a user: %w", err)
	}
	for _, one := range sessions {
		if one.AuthTime > begun.NotBefore { // begun where the clock is ahead of this one
			if err := s.endSession(ctx, subject, one.ID, reason); err != nil {
				return err
			}
		}
	}
	return nil
}

// endClient ends all grants and tokens that a client has now, however many: grants
// of an earlier epoch are dead where they are met, when it returns at every instance.
func (s *Server) endClient(ctx context.Context, clientID, reason string) error {
	begun, err := s.beginEpoch(ctx, clientEpoch, clientID, time.Now().Unix())
	if err != nil {
		return err
	}
	s.clients.changed(clientID)
	if err := s.publish(ctx, revocation{Client: clientID, Before: begun.NotBefore, Epoch: begun.number, Reason: reason}); err != nil {
		return err
	}
	return s.everywhere(ctx)
}

// everywhere waits until an epoch that has begun is the one that every instance goes by.
// One that has asked the store a moment before would refresh a grant of the epoch before.
func (s *Server) everywhere(ctx context.Context) error {
	if s.shared {
		pause(ctx, believed)
	}
	return ctx.Err()
}

// deleteGrants deletes the grants of a user that an epoch has ended. Who has very many
// does not wait for all of it: they are dead, and the rest is deleted later.
func (s *Server) deleteGrants(ctx context.Context, subject string, begun epoch) error {
	visited := 0
	err := s.eachGrant(ctx, subject, func(id string, grant Grant, _ store.Record) error {
		if visited++; visited > deletedBefore {
			return errLater
		}
		if !begun.ends(grant) {
			return nil // made meanwhile
		}
		return s.grants.Delete(ctx, id)
	})
	if errors.Is(err, errLater) {
		s.feed.finishing.addSubject(subject, begun)
		return s.everywhere(ctx)
	}
	return err
}

const deletedBefore = 100 // grants of a user, before whoever ends them returns

var errLater = errors.New("the rest is deleted later")

// deleteSessionGrants deletes those grants of a user that belong to a session.
func (s *Server) deleteSessionGrants(ctx context.Context, subject, sessionID string) error {
	return s.deleteAll(ctx, subject, func(grant Grant) bool { return grant.SessionID == sessionID })
}

// endToken ends one access token.
func (s *Server) endToken(ctx context.Context, claims accesstoken.Claims, reason string) error {
	ctx, cancel := withoutCaller(ctx, endWithin)
	defer cancel()
	r := revocation{Token: claims.ID, Reason: reason, At: time.Now().Unix(), Until: claims.Expires}
	err := s.revoked.Create(ctx, claims.ID, r, time.Unix(claims.Expires, 0).Add(revocationSlack))
	if err != nil && !errors.Is(err, store.ErrExists) {
		return fmt.Errorf("revoking an access token: %w", err)
	}
	r.Until += int64(revocationSlack.Seconds())
	return s.publish(ctx, r)
}

// publish is the one door to the log: what it returned nil for is kept there for
// as long as it matters. It fills in Version and At, and Until and Before unless
// they are set.
func (s *Server) publish(ctx context.Context, r revocation) error {
	now := time.Now()
	keep := s.keys.LongestToken() + revocationSlack
	r.Version, r.At = revocationVersion, now.Unix()
	if r.Until == 0 {
		r.Until = now.Add(keep).Unix()
	}
	if r.Before == 0 && (r.Subject != "" || r.Client != "") {
		r.Before = r.At
	}
	event, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding a revocation: %w", err)
	}
	if _, err := s.store.Append(ctx, revocationLog, event, keep); err != nil {
		return fmt.Errorf("logging a revocation: %w", err)
	}
	s.auditRevocation(r)
	return nil
}

// auditRevocation writes the audit record of what has ended. A fence ends nothing.
func (s *Server) auditRevocation(r revocation) {
	if r.Fence != "" {
		return
	}
	attrs := []any{"event", "revocation", "reason", r.Reason}
	if r.Token != "" {
		attrs = append(attrs, "jti", r.Token)
	}
	if r.Grant != "" {
		attrs = append(attrs, "grant_id", r.Grant)
	}
	if r.Session != "" {
		attrs = append(attrs, "sid", r.Session)
	}
	if r.Subject != "" {
		attrs = append(attrs, "sub", r.Subject)
	}
	if r.Client != "" {
		attrs = append(attrs, "client_id", r.Client)
	}
	if r.Key != "" {
		attrs = append(attrs, "kid", r.Key)
	}
	if r.Before != 0 {
		attrs = append(attrs, "before", r.Before)
	}
	s.log.Info("ended", attrs...)
}

// EndAll tells verifiers that all tokens that were issued until an instant, by whichever
// instance's clock, have ended. It is for a store that has lost revocations, while no
// server uses it, and none does before that instant: see Config.NotBefore. Epochs, by
// which all of a user or a client ends, are no help here: the store may have forgotten them.
func EndAll(ctx context.Context, s store.Store, until time.Time) error {
	now := time.Now()
	event, err := json.Marshal(revocation{
		Version: revocationVersion, All: true, Before: until.Unix(), Reason: reasonStoreLost, At: now.Unix(), Until: now.Add(longestKept).Unix(),
	})
	if err != nil {
		return fmt.Errorf("encoding a revocation: %w", err)
	}
	if _, err := s.Append(ctx, revocationLog, event, longestKept); err != nil {
		return fmt.Errorf("logging a revocation: %w", err)
	}
	return nil
}

// epochsNamed is how many of the epochs before the one that has begun go to the
// verifiers. One would do, were each of them logged: an instance may be killed, or the
// store go away, between the beginning of an epoch and that.
const epochsNamed = 16

// longestKept is longer than any configuration lets a token live that others verify.
const longestKept = 25 * time.Hour

// entries returns an event of the log as it goes to the verifiers. All that it names
// is ended. One that names nothing known, that a later version wrote or that cannot
// be read ends every token issued until then as well: people refresh, and nothing
// that was revoked is accepted.
func (s *Server) entries(event []byte) (r revocation, entries feed.Entries, understood bool) {
	err := json.Unmarshal(event, &r)
	if err != nil || r.At == 0 {
		r = revocation{At: time.Now().Unix()}
	}
	ttl := s.keys.LongestToken() + revocationSlack
	if r.Until > r.At { // both by the writer's clock
		ttl = min(ttl, time.Duration(r.Until-r.At)*time.Second)
	}
	add := func(level feed.Level, value string, before int64) {
		if value != "" {
			entries = append(entries, feed.NewEntry(level, value, ttl, before))
		}
	}
	if r.Before == 0 {
		r.Before = r.At
	}
	add(feed.Token, r.Token, 0)
	add(feed.Grant, r.Grant, 0)
	add(feed.Session, r.Session, 0)
	if r.Epoch == 0 { // of a version that did not count them
		add(feed.Subject, r.Subject, r.Before)
		add(feed.Client, r.Client, r.Before)
	}
	for number := r.Epoch - min(r.Epoch, epochsNamed); number < r.Epoch; number++ {
		add(feed.SubjectEpoch, feed.EpochOf(r.Subject, number), 0)
		add(feed.ClientEpoch, feed.EpochOf(r.Client, number), 0)
	}
	add(feed.KeyID, r.Key, 0)
	if r.All {
		add(feed.Issuer, s.issuer, r.Before)
	}
	understood = err == nil && r.Version <= revocationVersion && (len(entries) > 0 || r.Fence != "")
	if !understood {
		add(feed.Issuer, s.issuer, r.At)
	}
	return r, entries, understood
}
