package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Batch is work that is done in this order: records are created, members are linked,
// records are read. It ends where a record exists already.
type Batch struct {
	Create []Creation
	Link   []Membership
	Get    []string
}

// Creation is one Create.
type Creation struct {
	Key     string
	Value   []byte
	Expires time.Time
}

// Membership is one Link.
type Membership struct {
	Index, Member string
	Expires       time.Time
}

// Batcher is a Store that can do a Batch in one round trip, and all of it or nothing.
type Batcher interface {
	Store
	// Do returns what Get would, or an *ExistsError and has done nothing.
	Do(ctx context.Context, b Batch) ([]Record, error)
}

// ErrSeparate is the answer of a Batcher that cannot do a batch in one round trip, since
// its keys are in different places. Nothing was done.
var ErrSeparate = errors.New("store: the keys are in different places")

// ExistsError is ErrExists, and which record it was.
type ExistsError struct{ Key string }

func (e *ExistsError) Error() string { return fmt.Sprintf("%v: %q", ErrExists, e.Key) }
func (e *ExistsError) Unwrap() error { return ErrExists }

// Do does a batch in one round trip where the store is a Batcher, and otherwise step by
// step. It returns what Get would, or an *ExistsError, and what comes after that record
// is not done; after any other error it is not known what is done.
func Do(ctx context.Context, s Store, b Batch) ([]Record, error) {
	if batcher, ok := s.(Batcher); ok {
		if records, err := batcher.Do(ctx, b); !errors.Is(err, ErrSeparate) {
			return records, err
		}
	}
	for _, c := range b.Create {
		if err := s.Create(ctx, c.Key, c.Value, c.Expires); errors.Is(err, ErrExists) {
			return nil, &ExistsError{c.Key}
		} else if err != nil {
			return nil, err
		}
	}
	for _, l := range b.Link {
		if err := s.Link(ctx, l.Index, l.Member, l.Expires); err != nil {
			return nil, err
		}
	}
	if len(b.Get) == 0 {
		return nil, nil
	}
	return s.Get(ctx, b.Get...)
}

// Check returns ErrInvalid, wrapped with what is wrong, unless a store can do b.
func (b Batch) Check() error {
	for _, c := range b.Create {
		if err := errors.Join(CheckKey(c.Key), CheckValue(c.Value, c.Expires)); err != nil {
			return err
		}
	}
	for _, l := range b.Link {
		if err := errors.Join(CheckKey(l.Index), CheckKey(l.Member), CheckValue(nil, l.Expires)); err != nil {
			return err
		}
	}
	for _, key := range b.Get {
		if err := CheckKey(key); err != nil {
			return err
		}
	}
	return nil
}
