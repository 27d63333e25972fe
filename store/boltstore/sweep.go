package boltstore

import (
	"bytes"
	"time"

	"authserver/store"

	"go.etcd.io/bbolt"
)

// Everything that expires has one entry in the expiries bucket, filed under an
// instant at or before its real expiry. Each transaction looks at a few entries
// that are due: what has expired goes, what was prolonged is filed anew. So a
// write never has to move an entry, and the file does not grow with the dead.

const (
	sweepLeast = 16   // due entries that a transaction looks at, at least
	sweepMost  = 1024 // and that an idle store looks at
)

// expireAt files key under an instant; what lives forever is not filed.
func expireAt(tx *bbolt.Tx, expires time.Time, bucket, key []byte) error {
	if !expires.Before(store.Forever) {
		return nil
	}
	entry := append(append(millis(expires), bucket[0]), key...)
	filed := tx.Bucket(expiries)
	filed.FillPercent = 0.7 // most come last, and leave pages behind to which nothing is added
	return filed.Put(entry, nil)
}

var swept = map[byte][]byte{records[0]: records, counters[0]: counters, indexes[0]: indexes, logs[0]: logs}

// sweep handles up to limit due entries.
func sweep(tx *bbolt.Tx, now time.Time, limit int) error {
	var due [][]byte
	cursor := tx.Bucket(expiries).Cursor()
	until := millis(now)
	for entry, _ := cursor.First(); entry != nil && len(due) < limit && isDue(entry, until); entry, _ = cursor.Next() {
		due = append(due, bytes.Clone(entry))
	}
	for _, entry := range due {
		if err := tx.Bucket(expiries).Delete(entry); err != nil {
			return err
		}
		if len(entry) <= 9 || swept[entry[8]] == nil {
			continue // damaged, and of use to nobody
		}
		bucket, key := swept[entry[8]], entry[9:]
		value := tx.Bucket(bucket).Get(key)
		if value == nil {
			continue // deleted, or filed twice
		}
		if bucket[0] == records[0] {
			value = value[min(16, len(value)):]
		}
		expires, err := expiryOf(value)
		if err != nil {
			continue // what cannot be read stays, so that its readers hear of it
		}
		if now.Before(expires) {
			err = expireAt(tx, expires, bucket, key)
		} else {
			err = tx.Bucket(bucket).Delete(key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isDue reports whether the instant that an entry begins with has come.
func isDue(entry, now []byte) bool { return bytes.Compare(entry[:min(8, len(entry))], now) <= 0 }

// anythingDue reports whether sweep would find something.
func (s *Store) anythingDue() bool {
	due := false
	s.db.View(func(tx *bbolt.Tx) error {
		entry, _ := tx.Bucket(expiries).Cursor().First()
		due = entry != nil && isDue(entry, millis(time.Now()))
		return nil
	})
	return due
}
