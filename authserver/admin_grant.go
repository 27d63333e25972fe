package authserver

import (
	"context"
	"errors"
	"fmt"
	"slices"

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
// those that are of a client as well.
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
	index, err := s.grantIndex(ctx, query)
	if err != nil {
		return GrantPage{}, err
	}
	limit, err := query.limit()
	if err != nil {
		return GrantPage{}, err
	}
	list := "grant " + index + " " + query.ClientID
	at, err := s.positionOf(list, query.Cursor)
	if err != nil {
		return GrantPage{}, err
	}
	all, err := sortedMembers(ctx, s.store, index)
	if err != nil {
		return GrantPage{}, err
	}
	from, found := slices.BinarySearch(all, at.After)
	if found {
		from++
	}
	answer, ids := GrantPage{}, all[from:min(from+limit, len(all))]
	if from+limit < len(all) {
		if answer.Next, err = s.cursor(list, position{After: ids[limit-1]}); err != nil {
			return answer, err
		}
	}
	answer.Grants, err = s.grantInfos(ctx, ids, query.ClientID)
	return answer, err
}

// grantIndex names the index that a query reads.
func (s *Server) grantIndex(ctx context.Context, query GrantQuery) (string, error) {
	if query.SessionID != "" {
		if query.Username+query.Subject != "" || len(query.SessionID) > 256 {
			return "", adminBadRequest("grants are listed of a user or of a session, of one of them")
		}
		return sessionGrants(query.SessionID), nil
	}
	known, err := s.resolve(ctx, query.UserRef)
	if err != nil {
		return "", err
	}
	return subjectGrants(known.user.subject), nil
}

// grantInfos describes those of the grants that live, and are of a client if one is given.
func (s *Server) grantInfos(ctx context.Context, ids []string, clientID string) ([]GrantInfo, error) {
	infos := []GrantInfo{}
	records, err := getAll(ctx, s.store, ids, s.grants.Key)
	if err != nil {
		return infos, err
	}
	for i, record := range records {
		if !record.Exists() {
			continue
		}
		grant, err := s.grants.Decode(record)
		if err != nil {
			return infos, err
		}
		client, err := s.clients.epoch(ctx, grant.ClientID)
		if err != nil {
			return infos, err
		}
		if clientID != "" && grant.ClientID != clientID || grant.ClientEpoch < client.number {
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
// or a client; with a user and a client, of the grants that are of both.
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
	// Grants is how many grants ended; absent for a client, whose grants are not
	// counted: they are dead where they are met.
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
	case named != 1:
		return Revoked{}, adminBadRequest("name a grant, a session, a user or a client, one of them; or a user and a client")
	case r.GrantID != "":
		return s.revokeGrant(ctx, r.GrantID, reason)
	case r.SessionID != "":
		if len(r.SessionID) > 256 {
			return Revoked{}, adminBadRequest("a session's sid has at most 256 bytes")
		}
		return s.revokeIndexed(ctx, "session", r.SessionID, sessionGrants(r.SessionID), func() error { return s.endNamedSession(ctx, r.SessionID, reason) })
	case user:
		known, err := s.resolve(ctx, r.UserRef)
		if err != nil {
			return Revoked{}, err
		}
		subject := known.user.subject
		return s.revokeIndexed(ctx, "subject", subject, subjectGrants(subject), func() error { return s.endSubject(ctx, subject, reason) })
	}
	if _, err := s.adminClientShow(ctx, ClientRef{ClientID: r.ClientID}); err != nil {
		return Revoked{}, err
	}
	return Revoked{Level: "client", ID: r.ClientID}, unavailableUnless(s.endClient(ctx, r.ClientID, reason), "ending all of a client")
}

// endNamedSession ends a session and tells its clients, as a sign-out does; of one
// whose record is gone it ends what may be left.
func (s *Server) endNamedSession(ctx context.Context, id, reason string) error {
	one, _, err := s.sessions.Get(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return s.endSession(ctx, id, reason)
	} else if err != nil {
		return err
	}
	return s.logOut(ctx, &one, reason)
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

// revokeIndexed ends a level whose grants an index holds, and counts them.
func (s *Server) revokeIndexed(ctx context.Context, level, id, index string, end func() error) (Revoked, error) {
	members, err := sortedMembers(ctx, s.store, index)
	if err != nil {
		return Revoked{}, err
	}
	live := 0
	for chunk := range slices.Chunk(members, maxPage) {
		infos, err := s.grantInfos(ctx, chunk, "")
		if err != nil {
			return Revoked{}, err
		}
		live += len(infos)
	}
	return Revoked{level, id, &live}, unavailableUnless(end(), "ending a "+level)
}

// revokeOfBoth ends the grants that a user gave to a client.
func (s *Server) revokeOfBoth(ctx context.Context, r GrantRevoke, reason string) (Revoked, error) {
	known, err := s.resolve(ctx, r.UserRef)
	if err != nil {
		return Revoked{}, err
	}
	members, err := sortedMembers(ctx, s.store, subjectGrants(known.user.subject))
	if err != nil {
		return Revoked{}, err
	}
	ended := 0
	for chunk := range slices.Chunk(members, maxPage) {
		infos, err := s.grantInfos(ctx, chunk, r.ClientID)
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
