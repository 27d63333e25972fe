package store

import (
	"context"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"
)

// Table is typed access to the records whose keys begin with Name and a slash.
// Values are JSON, or what a type makes of itself that implements
// encoding.BinaryMarshaler and, by its pointer, encoding.BinaryUnmarshaler. Releases
// differ in what they know: fields that T lacks are skipped, and where a JSON object is
// changed they stay as they are. See Written for what is more than a further field.
type Table[T any] struct {
	Store Store
	Name  string // for example "session"
	// Home is how many characters an id begins with that name its family; 0 for none.
	Home int
}

// Key returns the store's key for id.
func (t Table[T]) Key(id string) string {
	if t.Home > 0 && len(id) > t.Home {
		return MemberKey(t.Family(id[:t.Home]), id[t.Home:])
	}
	return t.Name + "/" + id
}

// Family returns the family of the ids that begin with home; the rest of each is the
// member's name.
func (t Table[T]) Family(home string) string { return t.Name + "/" + home }

// Get returns the record of id and its decoded value, or ErrNotFound.
func (t Table[T]) Get(ctx context.Context, id string) (T, Record, error) {
	var zero T
	records, err := t.Store.Get(ctx, t.Key(id))
	if err != nil {
		return zero, Record{}, err
	}
	if !records[0].Exists() {
		return zero, Record{}, ErrNotFound
	}
	value, err := t.Decode(records[0])
	return value, records[0], err
}

// Create stores value under id until expires, or returns ErrExists.
func (t Table[T]) Create(ctx context.Context, id string, value T, expires time.Time) error {
	encoded, err := t.encode(value)
	if err != nil {
		return err
	}
	return t.Store.Create(ctx, t.Key(id), encoded, expires)
}

// Creation is Create as part of a batch.
func (t Table[T]) Creation(id string, value T, expires time.Time) (Creation, error) {
	encoded, err := t.encode(value)
	return Creation{Key: t.Key(id), Value: encoded, Expires: expires}, err
}

// Touch moves id from version to version+1 with a new expiry and keeps its
// value; see Store.Swap. On ErrConflict the returned value and record are the
// current ones.
func (t Table[T]) Touch(ctx context.Context, id string, version uint64, expires time.Time) (T, Record, error) {
	var zero T
	record, swapErr := t.Store.Swap(ctx, t.Key(id), version, nil, expires)
	if !record.Exists() {
		return zero, record, swapErr
	}
	value, err := t.Decode(record)
	if err != nil {
		return zero, record, err
	}
	return value, record, swapErr
}

// updateAttempts bounds Update. Each failed attempt means that another caller's
// succeeded, so only a record that very many change at once needs so many.
const updateAttempts = 20

// Update lets change alter the value of id and stores the result until expires,
// again from the start when another caller was faster. Without a record, change
// sees the zero value and the result is created. Update returns the value and the
// record as stored; an error of change ends it and nothing is stored.
func (t Table[T]) Update(ctx context.Context, id string, expires time.Time, change func(value *T) error) (T, Record, error) {
	return t.change(ctx, id, true, func(Record) time.Time { return expires }, change)
}

// Change is Update for a record that exists, else it returns ErrNotFound. The
// record keeps its expiry.
func (t Table[T]) Change(ctx context.Context, id string, change func(value *T) error) (T, Record, error) {
	return t.change(ctx, id, false, func(r Record) time.Time { return r.Expires }, change)
}

func (t Table[T]) change(ctx context.Context, id string, create bool, expires func(Record) time.Time, change func(value *T) error) (T, Record, error) {
	var zero T
	for range updateAttempts {
		value, record, err := t.Get(ctx, id)
		if err != nil && !(create && errors.Is(err, ErrNotFound)) {
			return zero, Record{}, err
		}
		if err := change(&value); err != nil {
			return zero, Record{}, err
		}
		encoded, err := t.encodeChanged(record, value)
		if err != nil {
			return zero, Record{}, err
		}
		if until := expires(record); record.Exists() {
			record, err = t.Store.Swap(ctx, t.Key(id), record.Version, encoded, until)
		} else {
			err = t.Store.Create(ctx, t.Key(id), encoded, until)
			record = Record{Version: 1, Value: encoded, Changed: time.Now(), Expires: until}
		}
		switch {
		case err == nil:
			return value, record, nil
		case !errors.Is(err, ErrConflict) && !errors.Is(err, ErrExists) && !errors.Is(err, ErrNotFound):
			return zero, Record{}, err
		}
	}
	return zero, Record{}, fmt.Errorf("changing a %s record: %w after %d attempts", t.Name, ErrConflict, updateAttempts)
}

// Swap replaces the value and expiry of id if its version is the given one; see
// Store.Swap.
func (t Table[T]) Swap(ctx context.Context, id string, version uint64, value T, expires time.Time) (Record, error) {
	encoded, err := t.encode(value)
	if err != nil {
		return Record{}, err
	}
	return t.Store.Swap(ctx, t.Key(id), version, encoded, expires)
}

// Delete removes the record of id, if there is one.
func (t Table[T]) Delete(ctx context.Context, id string) error {
	return t.Store.Delete(ctx, t.Key(id))
}

// Decode returns the value of a record of this table.
func (t Table[T]) Decode(record Record) (T, error) {
	var value T
	encoded, err := unpack(Readable, record.Value)
	if err == nil {
		if binary, ok := any(&value).(encoding.BinaryUnmarshaler); ok {
			err = binary.UnmarshalBinary(encoded)
		} else {
			err = json.Unmarshal(encoded, &value)
		}
	}
	if err != nil {
		return value, fmt.Errorf("decoding %s record: %w", t.Name, err)
	}
	return value, nil
}

func (t Table[T]) encode(value T) (encoded []byte, err error) {
	if binary, ok := any(value).(encoding.BinaryMarshaler); ok {
		encoded, err = binary.MarshalBinary()
	} else {
		encoded, err = json.Marshal(value)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding %s record: %w", t.Name, err)
	}
	return pack(Written, encoded), nil
}

// encodeChanged encodes the value that the record had before, changed.
func (t Table[T]) encodeChanged(before Record, value T) ([]byte, error) {
	encoded, err := t.encode(value)
	if err != nil || !before.Exists() {
		return encoded, err
	}
	earlier, err := unpack(Readable, before.Value)
	if err == nil {
		encoded, err = unpack(Written, encoded)
	}
	if err == nil {
		encoded, err = keepUnknown(reflect.TypeFor[T](), earlier, encoded)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding %s record: %w", t.Name, err)
	}
	return pack(Written, encoded), nil
}
