package feed

import (
	"sync/atomic"
	"time"
)

// always as the Before of an entry ends tokens whenever they were issued.
const always = 1<<32 - 1

// Entry is one live revocation.
type Entry struct {
	Key Key
	// TTL is how many seconds longer the entry matters; after that no token that it
	// ends can be accepted.
	TTL uint32
	// Before ends the tokens whose iat is not later, in seconds since 1970. The iat
	// has whole seconds, so a token of the same second may be older or younger than
	// the revocation: it is refused.
	Before uint32
}

// Set holds live revocations. One goroutine at a time may change it; any number
// may look, without locks. It takes 16 bytes a slot and has two to four slots for
// an entry.
//
// An entry is dropped when its TTL has passed on the monotonic clock since it was
// added: clocks on the wall that jump neither lose a revocation nor keep one.
type Set struct {
	began      time.Time
	slots      atomic.Pointer[[]slot]
	used       int // slots that hold an entry, live or not
	generation atomic.Uint64
}

// slot holds one entry: its key, and its deadline in seconds since the set began
// above its Before. A key of zero is a free slot.
type slot struct{ key, value atomic.Uint64 }

const smallest = 64 // slots, a power of two

// NewSet returns an empty set.
func NewSet() *Set {
	s := &Set{began: time.Now()}
	slots := make([]slot, smallest)
	s.slots.Store(&slots)
	return s
}

// Generation changes whenever an entry comes in: a token that was not revoked at
// one generation needs no second look at the same.
func (s *Set) Generation() uint64 { return s.generation.Load() }

// Revoked reports whether a token is ended, and at which level.
func (s *Set) Revoked(token Subjects) (Level, bool) {
	slots := *s.slots.Load()
	for i, key := range token.keys {
		if key == 0 {
			continue
		}
		if value, found := find(slots, key); found && token.issuedAt <= uint32(value) {
			return levels[i], true
		}
	}
	return "", false
}

// Holds reports whether adding an entry would end no further token.
func (s *Set) Holds(e Entry) bool {
	value, found := find(*s.slots.Load(), e.Key)
	return found && uint32(value) >= e.Before
}

// find probes from the key's own slot to the first free one.
func find(slots []slot, key Key) (value uint64, found bool) {
	mask := uint64(len(slots) - 1)
	for i := uint64(key) & mask; ; i = (i + 1) & mask {
		switch slots[i].key.Load() {
		case uint64(key):
			return slots[i].value.Load(), true
		case 0:
			return 0, false
		}
	}
}

// Add puts entries in. Of two entries with one key, the later deadline and the
// later Before count.
func (s *Set) Add(entries []Entry) {
	now := s.elapsed()
	for _, e := range entries {
		if (s.used+1)*4 > len(*s.slots.Load())*3 {
			s.rebuild(now)
		}
		deadline := min(now+1+uint64(e.TTL), always) // the current second has begun already
		if put(*s.slots.Load(), e.Key, deadline, uint64(e.Before)) {
			s.used++
		}
	}
	if len(entries) > 0 {
		s.generation.Add(1)
	}
}

// put reports whether it took a free slot. The value is there before its key is,
// so whoever finds the key finds it whole.
func put(slots []slot, key Key, deadline, before uint64) bool {
	mask := uint64(len(slots) - 1)
	for i := uint64(key) & mask; ; i = (i + 1) & mask {
		switch slots[i].key.Load() {
		case uint64(key):
			held := slots[i].value.Load()
			slots[i].value.Store(max(held>>32, deadline)<<32 | max(held&always, before))
			return false
		case 0:
			slots[i].value.Store(deadline<<32 | before)
			slots[i].key.Store(uint64(key))
			return true
		}
	}
}

// Expire drops the entries that no longer matter, and returns how many are left.
// It is for the goroutine that adds, now and then.
func (s *Set) Expire() int {
	now, live := s.elapsed(), 0
	slots := *s.slots.Load()
	for i := range slots {
		if slots[i].key.Load() != 0 && slots[i].value.Load()>>32 > now {
			live++
		}
	}
	if s.used > live+live/4 {
		s.rebuild(now)
	}
	return live
}

// rebuild moves what is live to slots of its own size.
func (s *Set) rebuild(now uint64) {
	old := *s.slots.Load()
	live := 0
	for i := range old {
		if old[i].value.Load()>>32 > now {
			live++
		}
	}
	size := smallest
	for size < 2*(live+1) {
		size *= 2
	}
	slots := make([]slot, size)
	for i := range old {
		if value := old[i].value.Load(); value>>32 > now {
			put(slots, Key(old[i].key.Load()), value>>32, value&always)
		}
	}
	s.used = live
	s.slots.Store(&slots)
}

// Entries returns the live entries with the time that they have left. It may be
// called while another goroutine adds; what is added meanwhile may be missing.
func (s *Set) Entries() []Entry {
	now := s.elapsed()
	slots := *s.slots.Load()
	var entries []Entry
	for i := range slots {
		key := slots[i].key.Load()
		if value := slots[i].value.Load(); key != 0 && value>>32 > now {
			entries = append(entries, Entry{Key: Key(key), TTL: uint32(value>>32 - now), Before: uint32(value)})
		}
	}
	return entries
}

func (s *Set) elapsed() uint64 { return uint64(time.Since(s.began) / time.Second) }
