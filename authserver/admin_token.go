package authserver

import (
	"context"
	"fmt"

	"authserver/internal/feed"
	"authserver/store"
)

// TokenQuery asks what has ended an access token. The token itself stays with the
// caller: its keys say what it could be ended by.
type TokenQuery struct {
	Keys feed.Subjects `json:"keys"`
}

func (TokenQuery) audited() adminRecord { return adminRecord{} }

// TokenEnds is the answer of /token/show: all that has ended the token, as far as it is
// remembered, the earliest first.
type TokenEnds struct {
	Ended []TokenEnd `json:"ended"`
}

// TokenEnd is one end of a token. Times are seconds since 1970.
type TokenEnd struct {
	Level  feed.Level `json:"level"` // what the revocation names
	At     int64      `json:"at"`
	Reason string     `json:"reason"`
}

// adminTokenShow reads the whole log: it holds every revocation for as long as a token
// that it ends could be accepted.
func (s *Server) adminTokenShow(ctx context.Context, query TokenQuery) (TokenEnds, error) {
	answer := TokenEnds{Ended: []TokenEnd{}}
	for after := store.Position(0); ; {
		events, err := s.store.Tail(ctx, revocationLog, after, 0)
		if err != nil {
			return answer, unavailable(fmt.Errorf("reading the log of revocations: %w", err))
		}
		for _, event := range events {
			r, entries, _ := s.entries(event.Value)
			for _, e := range entries {
				if level, ended := query.Keys.EndedBy(e); ended {
					answer.Ended = append(answer.Ended, TokenEnd{Level: level, At: r.At, Reason: r.Reason})
					break
				}
			}
			after = event.Position
		}
		if len(events) == 0 {
			return answer, nil
		}
	}
}
