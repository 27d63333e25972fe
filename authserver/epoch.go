package authserver

import (
	"context"
	"fmt"
	"time"

	"authserver/store"
)

// epoch is the record epoch/<level>/<id>. It ends all that a client or a user ever
// had in one write, however much that is.
type epoch struct {
	// NotBefore is when the epoch began, in seconds since 1970: what was issued or
	// authenticated at that instant or before is dead.
	NotBefore int64 `json:"not_before"`
	// number counts epochs: it is the version of the record. A grant remembers the
	// one that it was made in, and its tokens name it, so that it does not matter how
	// clocks differ.
	number uint64
}

// ends reports whether the beginning of a user's epoch ended a grant of his. An earlier
// version made grants without the epoch's number.
func (e epoch) ends(grant Grant) bool {
	return grant.SubjectEpoch < e.number && (grant.SubjectEpoch > 0 || grant.AuthTime <= e.NotBefore)
}

// endsCode reports whether the beginning of a client's epoch ended a code of its.
func (e epoch) endsCode(c code) bool {
	if c.ClientEpoch == nil {
		return c.Issued/1000 <= e.NotBefore
	}
	return *c.ClientEpoch < e.number
}

// The levels that have epochs.
const (
	clientEpoch  = "client"
	subjectEpoch = "sub"
)

// longestGrant is the most that the configuration lets a grant live. An epoch is
// kept as long.
const longestGrant = 10 * 8760 * time.Hour

func epochKey(level, id string) string { return "epoch/" + level + "/" + id }

// readEpoch reads an epoch that began at least at notBefore; see Config.NotBefore.
func readEpoch(record store.Record, notBefore int64) (epoch, error) {
	if !record.Exists() {
		return epoch{NotBefore: notBefore}, nil
	}
	e, err := store.Table[epoch]{Name: "epoch"}.Decode(record)
	if err != nil {
		return e, err
	}
	e.number, e.NotBefore = record.Version, max(e.NotBefore, notBefore)
	return e, nil
}

// beginEpoch ends what began at notBefore or earlier. It never moves an epoch back.
func (s *Server) beginEpoch(ctx context.Context, level, id string, notBefore int64) (epoch, error) {
	table := store.Table[epoch]{Store: s.store, Name: "epoch"}
	begun, record, err := table.Update(ctx, level+"/"+id, time.Now().Add(longestGrant), func(e *epoch) error {
		e.NotBefore = max(e.NotBefore+1, notBefore) // user.authTime may have gone one ahead
		return nil
	})
	if err != nil {
		return epoch{}, fmt.Errorf("ending all of a %s: %w", level, err)
	}
	begun.number = record.Version
	return begun, nil
}
