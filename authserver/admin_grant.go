package authserver

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"authserver/store"
)

// GrantInfo is what operators are shown of a grant. Times are seconds since 1970.
type GrantInfo struct {
	GrantID    string   `json:"grant_id"`
	ClientID   string   `json:"client_id"`
	Subject    string   `json:"sub"`
	SessionID  string   `json:"sid,omitempty"`
	Scope      string   `json:"scope,omitempty"`
	Resources  []string `json:"resources,omitempty"`
	AuthTime   int64    `json:"auth_time,omitempty"`
	Created    int64    `json:"created"`
	Refreshed  int64    `json:"refreshed"` // when its refresh token last changed
	Generation uint64   `json:"generation"`
	Expires    int64    `json:"expires"` // unless it is refreshed before
}

// GrantQuery asks for the grants of a user or of a session; with ClientID only for
// those that are of a client as well. Of a session that has expired, the user has to
// be named too.
type GrantQuery struct {
	ListQuery
	UserRef
	SessionID string `json:"sid,omitempty"`
	ClientID  string `json:"client_id,omitempty"`
}

func (q GrantQuery) audited() adminRecord {
	record := q.UserRef.audited()
	if q.SessionID != "" {
		record.whom = "sid " + q.SessionID
	}
	return record
}

// GrantPage is the answer of /grant/list.
type GrantPage struct {
	Grants []GrantInfo `json:"grants"`
	Next   string      `json:"next,omitempty"`
}

func (s *Server) adminGrantList(ctx context.Context, query GrantQuery) (GrantPage, error) {
	subject, err := s.grantSubject(ctx, query.UserRef, query.SessionID)
	if err != nil {
		return GrantPage{}, err
	}
	limit, err := query.limit()
	if err != nil {
		return GrantPage{}, err
	}
	list := "grant " + subject + " " + query.SessionID + " " + query.ClientID
	at, err := s.positionOf(list, query.Cursor)
	if err != nil {
		return GrantPage{}, err
	}
	ids, err := s.grantsAfter(ctx, subject, string(at.After), limit+1)
	if err != nil {
		return GrantPage{}, err
	}
	answer := GrantPage{}
	if len(ids) > limit {
		ids = ids[:limit]
		if answer.Next, err = s.cursor(list, position{After: []byte(ids[limit-1])}); err != nil {
			return answer, err
		}
	}
	answer.Grants, err = s.grantInfos(ctx, ids, query.SessionID, query.ClientID)
	return answer, err
}

// grantsAfter returns the first ids of a user's grants after one, sorted, as many as n.
// A family is in no order, and all of it is read to know them: so the ids of the next pages
// are kept for a while, or whoever lists very many would read all of them for each page.
func (s *Server) grantsAfter(ctx context.Context, subject, after string, n int) ([]string, error) {
	if ids, known := s.listing.page(subject, after, n); known {
		return ids, nil
	}
	next := grantListing{subject: subject, after: after, whole: true, read: time.Now()}
	first := func(most int) { // what comes later may come before
		slices.Sort(next.ids)
		if next.ids = slices.Compact(next.ids); len(next.ids) > most {
			next.ids, next.whole = next.ids[:most], false
		}
	}
	for id, err := range s.grantIDs(ctx, subject) {
		if err != nil {
			return nil, unavailable(fmt.Errorf("listing grants: %w", err))
		}
		if id > after {
			next.ids = append(next.ids, id)
		}
		if len(next.ids) >= 2*pagesAhead*n {
			first(pagesAhead * n)
		}
	}
	first(pagesAhead * n)
	s.listing.keep(next)
	return next.ids[:min(n, len(next.ids))], nil
}

const (
	pagesAhead  = 64          // of a list of grants, whose ids are kept
	listingKept = time.Minute // at most, so that who goes on later sees what is new
)

// grantListing has the ids of the grants that come next in the list that was read last. A
// first page is read anew; the grants themselves always are.
type grantListing struct {
	subject string
	after   string   // ids come after this one
	ids     []string // sorted
	whole   bool     // no others come after them
	read    time.Time
}

type grantListings struct {
	mu   sync.Mutex
	last grantListing
}

func (l *grantListings) keep(next grantListing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = next
}

// page returns the ids after one, as many as n, if they are known.
func (l *grantListings) page(subject, after string, n int) (ids []string, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if after == "" || l.last.subject != subject || after < l.last.after || time.Since(l.last.read) > listingKept {
		return nil, false
	}
	at, found := slices.BinarySearch(l.last.ids, after)
	if found {
		at++
	}
	ids = l.last.ids[at:]
	if len(ids) < n && !l.last.whole {
		return nil, false
	}
	return ids[:min(n, len(ids))], true
}

// grantIDs yields the ids of a user's grants, in no order.
func (s *Server) grantIDs(ctx context.Context, subject string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		home := grantHome(subject)
		for member, err := range s.store.Members(ctx, s.grants.Family(home)) {
			if !yield(home+member.Name, err) {
				return
			}
		}
	}
}

// grantSubject returns the subject whose grants are meant: of a user who is named, or
// of a session's.
func (s *Server) grantSubject(ctx context.Context, named UserRef, sessionID string) (string, error) {
	if len(sessionID) > 256 {
		return "", adminBadRequest("a session's sid has at most 256 bytes")
	}
	var subject string
	if sessionID == "" || named.Username+named.Subject != "" {
		known, err := s.resolve(ctx, named)
		if err != nil || sessionID == "" {
			return known.user.subject, err
		}
		subject = known.user.subject
	}
	one, _, err := s.sessions.Get(ctx, sessionID)
	switch {
	case err == nil && subject != "" && subject != one.Subject:
		return "", adminBadRequest("the session is not one of that user")
	case err == nil:
		return one.Subject, nil
	case !errors.Is(err, store.ErrNotFound):
		return "", unavailable(fmt.Errorf("looking up a session: %w", err))
	case subject == "":
		return "", adminNotFound("there is no session %q, or it has expired", sessionID).hint("name its user too, with --user NAME, for the grants that an expired session has left")
	}
	return subject, nil
}

// grantInfos describes those of the grants that live, and are of a session and of a
// client where these are given.
func (s *Server) grantInfos(ctx context.Context, ids []string, sessionID, clientID string) ([]GrantInfo, error) {
	infos := []GrantInfo{}
	records, err := getAll(ctx, s.store, ids, s.grants.Key)
	if err != nil {
		return infos, err
	}
	var holder user // one and the same for all of them
	for i, record := range records {
		if !record.Exists() {
			continue
		}
		grant, err := s.grants.Decode(record)
		if err != nil {
			return infos, err
		}
		if holder.subject != grant.Subject {
			known, err := s.userRecord(ctx, grant.Subject)
			if err != nil {
				return infos, err
			}
			holder = known.user
			holder.subject = grant.Subject // also of one who is gone
		}
		client, err := s.clients.epoch(ctx, grant.ClientID)
		if err != nil {
			return infos, err
		}
		if sessionID != "" && grant.SessionID != sessionID || clientID != "" && grant.ClientID != clientID || s.grantEnded(grant, client, holder) != nil {
			continue
		}
		infos = append(infos, GrantInfo{
			GrantID: ids[i], ClientID: grant.ClientID, Subject: grant.Subject, SessionID: grant.SessionID, Scope: grant.Scope,
			Resources: grant.Resources, AuthTime: grant.AuthTime, Created: grant.Created,
			Refreshed: record.Changed.Unix(), Generation: record.Version, Expires: record.Expires.Unix(),
		})
	}
	return infos, nil
}

// GrantRevoke asks for the end of one grant, or of everything of a session, a user
// or a client; with a user and a client, of the grants that are of both. Of a session
// that has expired, the user has to be named too.
type GrantRevoke struct {
	UserRef
	GrantID   string `json:"grant_id,omitempty"`
	SessionID string `json:"sid,omitempty"`
	ClientID  string `json:"client_id,omitempty"`
}

func (r GrantRevoke) audited() adminRecord {
	record := r.UserRef.audited()
	if record.whom != "" {
		record.whom = "user " + record.whom
	}
	for _, named := range []struct{ level, id string }{{"grant", r.GrantID}, {"session", r.SessionID}, {"client", r.ClientID}} {
		if named.id != "" {
			record.whom = join(record.whom, named.level+" "+named.id)
		}
	}
	return record
}

func join(first, second string) string {
	if first == "" {
		return second
	}
	return first + ", " + second
}

// Revoked is the answer of /grant/revoke.
type Revoked struct {
	Level string `json:"level"` // grant, session, subject, client; or grants, of a user and a client
	ID    string `json:"id"`
	// Grants is how many grants ended; absent for a client and for a user with more than
	// a thousand, which are not counted: they are dead where they are met.
	Grants *int `json:"grants,omitempty"`
}

func (s *Server) adminGrantRevoke(ctx context.Context, r GrantRevoke) (Revoked, error) {
	user, reason := r.Username+r.Subject != "", orReason(r.Reason, reasonByOperator)
	named := 0
	for _, given := range []bool{r.GrantID != "", r.SessionID != "", user, r.ClientID != ""} {
		if given {
			named++
		}
	}
	switch {
	case user && r.ClientID != "" && named == 2:
		return s.revokeOfBoth(ctx, r, reason)
	case r.SessionID != "" && (named == 1 || user && named == 2):
		return s.revokeSession(ctx, r, reason)
	case named != 1:
		return Revoked{}, adminBadRequest("name a grant, a session, a user or a client, one of them; or a user and a client")
	case r.GrantID != "":
		return s.revokeGrant(ctx, r.GrantID, reason)
	case user:
		known, err := s.resolve(ctx, r.UserRef)
		if err != nil {
			return Revoked{}, err
		}
		subject := known.user.subject
		live, err := s.countGrants(ctx, subject, "")
		if err != nil {
			return Revoked{}, err
		}
		return Revoked{"subject", subject, live}, unavailableUnless(s.endSubject(ctx, subject, reason), "ending all of a user")
	}
	if _, err := s.adminClientShow(ctx, ClientRef{ClientID: r.ClientID}); err != nil {
		return Revoked{}, err
	}
	return Revoked{Level: "client", ID: r.ClientID}, unavailableUnless(s.endClient(ctx, r.ClientID, reason), "ending all of a client")
}

func (s *Server) revokeGrant(ctx context.Context, id, reason string) (Revoked, error) {
	if len(id) > 256 {
		return Revoked{}, adminBadRequest("a grant_id has at most 256 bytes")
	}
	records, err := s.store.Get(ctx, s.grants.Key(id))
	if err != nil {
		return Revoked{}, unavailable(fmt.Errorf("reading a grant: %w", err))
	}
	if !records[0].Exists() {
		return Revoked{}, adminNotFound("there is no grant %q, or it has ended", id).hint("authserver grant list --user NAME shows a user's grants")
	}
	one := 1
	return Revoked{"grant", id, &one}, unavailableUnless(s.endGrant(ctx, id, reason), "ending a grant")
}

// revokeSession ends a session and tells its clients, as a sign-out does; of one that
// has expired it ends the grants that it left.
func (s *Server) revokeSession(ctx context.Context, r GrantRevoke, reason string) (Revoked, error) {
	subject, err := s.grantSubject(ctx, r.UserRef, r.SessionID)
	if err != nil {
		return Revoked{}, err
	}
	live, err := s.countGrants(ctx, subject, r.SessionID)
	if err != nil {
		return Revoked{}, err
	}
	err = s.logOut(ctx, &session{ID: r.SessionID, Subject: subject}, reason)
	return Revoked{"session", r.SessionID, live}, unavailableUnless(err, "ending a session")
}

const mostCounted = 1000 // grants

// countGrants counts the live grants of a user, or of one of his sessions; nil where he
// has so many that whoever ends them should not wait for it.
func (s *Server) countGrants(ctx context.Context, subject, sessionID string) (*int, error) {
	var ids []string
	for id, err := range s.grantIDs(ctx, subject) {
		if err != nil {
			return nil, unavailable(fmt.Errorf("counting grants: %w", err))
		}
		if ids = append(ids, id); len(ids) > mostCounted {
			return nil, nil
		}
	}
	slices.Sort(ids)
	live := 0
	for chunk := range slices.Chunk(slices.Compact(ids), maxPage) {
		infos, err := s.grantInfos(ctx, chunk, sessionID, "")
		if err != nil {
			return nil, err
		}
		live += len(infos)
	}
	return &live, nil
}

// revokeOfBoth ends the grants that a user gave to a client.
func (s *Server) revokeOfBoth(ctx context.Context, r GrantRevoke, reason string) (Revoked, error) {
	known, err := s.resolve(ctx, r.UserRef)
	if err != nil {
		return Revoked{}, err
	}
	if err := s.markRemoved(ctx, known.user.subject, r.ClientID); err != nil { // for the codes that are out
		return Revoked{}, err
	}
	ids := make(map[string]bool) // some may come twice
	err = s.eachGrant(ctx, known.user.subject, func(id string, grant Grant, _ store.Record) error {
		if grant.ClientID == r.ClientID {
			ids[id] = true
		}
		return nil
	})
	if err != nil {
		return Revoked{}, err
	}
	ended := 0
	for chunk := range slices.Chunk(slices.Collect(maps.Keys(ids)), maxPage) {
		infos, err := s.grantInfos(ctx, chunk, "", r.ClientID) // those that live
		if err != nil {
			return Revoked{}, err
		}
		for _, info := range infos {
			if err := s.endGrant(ctx, info.GrantID, reason); err != nil {
				return Revoked{}, unavailable(err)
			}
			ended++
		}
	}
	return Revoked{"grants", known.user.subject + " at " + r.ClientID, &ended}, nil
}
