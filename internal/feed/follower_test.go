package feed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"authserver/internal/intake"
	"authserver/internal/timetest"

	"github.com/go-jose/go-jose/v4"
)

// issuer signs frames as a server does, and keeps the chain.
type issuer struct {
	t      *testing.T
	key    *ecdsa.PrivateKey
	began  time.Time
	cursor Cursor
	count  uint64
}

func newIssuer(t *testing.T) *issuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{t: t, key: key, began: time.Now(), cursor: Origin}
}

const issuerName = "https://auth.example.com"

func (i *issuer) sign(typ string, payload any) string {
	i.t.Helper()
	text, err := json.Marshal(payload)
	if err != nil {
		i.t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: i.key}, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)).WithHeader("kid", "k"))
	if err != nil {
		i.t.Fatal(err)
	}
	signed, err := signer.Sign(text)
	if err != nil {
		i.t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		i.t.Fatal(err)
	}
	return compact
}

func (i *issuer) verify(token *intake.Token) error {
	return token.Verify(intake.Key{ID: "k", Algorithm: "ES256", Public: &i.key.PublicKey})
}

func (i *issuer) clock() int64 { return time.Since(i.began).Milliseconds() }

// frame returns the next frame of a stream, signed now.
func (i *issuer) frame(revoked ...Entry) Frame {
	f := Frame{Issuer: issuerName, Stream: "run", After: i.cursor, AsOf: i.clock(), Revoked: revoked}
	if len(revoked) > 0 {
		i.count++
		i.cursor = CursorOf(i.count, []byte("event"))
	}
	f.Cursor = i.cursor
	return f
}

func (i *issuer) hello(nonce string) string {
	f := i.frame()
	f.Nonce, f.Clock = nonce, i.clock()
	return i.sign(FrameType, f)
}

func (i *issuer) snapshot(entries ...Entry) []byte {
	encoded := Entries(entries).Encode()
	body, err := json.Marshal(SnapshotBody{
		Snapshot: i.sign(SnapshotType, Snapshot{Issuer: issuerName, Cursor: i.cursor, Count: len(entries), Digest: Digest(encoded)}),
		Revoked:  base64.RawURLEncoding.EncodeToString(encoded),
	})
	if err != nil {
		i.t.Fatal(err)
	}
	return body
}

// connected returns a follower that has loaded a snapshot and got its first frame.
func connected(t *testing.T, i *issuer) *Follower {
	t.Helper()
	f := NewFollower(issuerName)
	if err := f.Load(i.snapshot(), i.verify); err != nil {
		t.Fatal(err)
	}
	now := time.Now() // however long what follows takes
	if f.Fresh(now) {
		t.Fatal("a snapshot alone, which may be an old one, is fresh")
	}
	f.Connect("n", now)
	if _, err := f.Apply(i.hello("n"), now, i.verify); err != nil {
		t.Fatal(err)
	}
	if !f.Fresh(now) {
		t.Fatal("not fresh after the first frame")
	}
	return f
}

func revoked(f *Follower) bool {
	_, revoked := f.Set.Revoked(SubjectsOf("k", &claims))
	return revoked
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		f := connected(t, i)
		for range 10 {
			time.Sleep(Heartbeat)
			if _, err := f.Apply(i.sign(FrameType, i.frame()), time.Now(), i.verify); err != nil || !f.Fresh(time.Now()) {
				t.Fatalf("after a heartbeat: %v", err)
			}
		}
		if _, err := f.Apply(i.sign(FrameType, i.frame(entry(Grant, "g", 0))), time.Now(), i.verify); err != nil || !revoked(f) {
			t.Fatalf("the revocation is not applied: %v", err)
		}
		if f.Cursor() != i.cursor {
			t.Errorf("the cursor is %s, want %s", f.Cursor(), i.cursor)
		}
		time.Sleep(Lease)
		if !f.Fresh(time.Now()) {
			t.Error("the lease ended early")
		}
		time.Sleep(time.Millisecond)
		if f.Fresh(time.Now()) {
			t.Error("the lease did not end")
		}
		// A snapshot from before cannot take the revocation away.
		if err := f.Load((&issuer{t: t, key: i.key, cursor: Origin}).snapshot(), i.verify); err != nil || !revoked(f) {
			t.Errorf("a replayed snapshot took a revocation away: %v", err)
		}
	})
}

// What somebody between the two can do to the frames.
func TestTamperedFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			attack func(i *issuer) []string // the frames that arrive
			want   error
		}{
			"dropped": {func(i *issuer) []string {
				i.frame(entry(Grant, "g", 0))
				return []string{i.sign(FrameType, i.frame(entry(Grant, "h", 0)))}
			}, ErrGap},
			"dropped before a heartbeat": {func(i *issuer) []string {
				i.frame(entry(Grant, "g", 0))
				return []string{i.sign(FrameType, i.frame())}
			}, ErrGap},
			"reordered": {func(i *issuer) []string {
				one, two := i.sign(FrameType, i.frame(entry(Grant, "g", 0))), i.sign(FrameType, i.frame(entry(Grant, "h", 0)))
				return []string{two, one}
			}, ErrGap},
			"repeated": {func(i *issuer) []string {
				one := i.sign(FrameType, i.frame(entry(Grant, "h", 0)))
				return []string{one, one}
			}, ErrGap},
			"a heartbeat repeated later": {func(i *issuer) []string {
				one := i.sign(FrameType, i.frame())
				time.Sleep(Heartbeat)
				return []string{i.sign(FrameType, i.frame()), one}
			}, ErrGap},
			"of another run": {func(i *issuer) []string {
				f := i.frame()
				f.Stream = "other"
				return []string{i.sign(FrameType, f)}
			}, ErrGap},
			"the first of another connection": {func(i *issuer) []string { return []string{i.hello("n")} }, ErrGap},
			"of another issuer": {func(i *issuer) []string {
				f := i.frame()
				f.Issuer = "https://other.example.com"
				return []string{i.sign(FrameType, f)}
			}, ErrForged},
			"signed by somebody else": {func(i *issuer) []string {
				return []string{newIssuer(t).sign(FrameType, i.frame())}
			}, ErrForged},
			"an access token": {func(i *issuer) []string { return []string{i.sign("at+jwt", i.frame())} }, ErrForged},
			"signed by a key that was revoked": {func(i *issuer) []string {
				return []string{i.sign(FrameType, i.frame(entry(KeyID, "k", 0))), i.sign(FrameType, i.frame())}
			}, ErrForged},
			"no JWS": {func(*issuer) []string { return []string{"{}"} }, intake.ErrMalformed},
		} {
			i := newIssuer(t)
			f := connected(t, i)
			var err error
			for _, raw := range c.attack(i) {
				if err == nil {
					_, err = f.Apply(raw, time.Now(), i.verify)
				}
			}
			if !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
	})
}

// Frames that are held back do not prolong the lease, whenever the holding back
// begins: with the first frame, or later.
func TestDelayedFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		f := connected(t, i)
		var held []string
		for range 8 {
			time.Sleep(Heartbeat)
			held = append(held, i.sign(FrameType, i.frame()))
		}
		for n, raw := range held { // all of them arrive now
			if _, err := f.Apply(raw, time.Now(), i.verify); err != nil {
				t.Fatal(err)
			}
			age := time.Duration(len(held)-1-n) * Heartbeat
			if got := f.Age(time.Now()); got != age {
				t.Errorf("frame %d is %s old and taken for %s", n, age, got)
			}
		}
		f.Connect("m", time.Now())
		hello := i.hello("m")
		time.Sleep(3 * time.Second)
		if _, err := f.Apply(hello, time.Now(), i.verify); err != nil || f.Fresh(time.Now()) {
			t.Errorf("a first frame that was held back for 3 s is fresh: %v", err)
		}
		f.Connect("o", time.Now())
		if _, err := f.Apply(hello, time.Now(), i.verify); !errors.Is(err, ErrGap) {
			t.Errorf("the first frame of an earlier connection: %v, want ErrGap", err)
		}
	})
}

// A connection of which the server began too slowly to speak is given up: it would look
// stale for as long as it lasts. What the server or the network does later is no reason.
func TestSlowBeginning(t *testing.T) {
	for _, c := range []struct {
		before, after time.Duration // that the first frame was signed after the request, and came after that
		later         time.Duration // that the next frame takes
		want          error
	}{
		{Lease, 0, 0, nil}, {Lease + time.Millisecond, 0, 0, ErrSlow}, {time.Minute, 0, 0, ErrSlow},
		{Lease / 2, 0, Lease / 2, nil}, {Lease / 2, 0, Lease/2 + time.Millisecond, ErrSlow},
		{0, time.Minute, 0, nil}, {0, 0, Lease + time.Millisecond, nil}, {time.Millisecond, 0, time.Minute, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			i := newIssuer(t)
			f := NewFollower(issuerName)
			if err := f.Load(i.snapshot(), i.verify); err != nil {
				t.Fatal(err)
			}
			f.Connect("n", time.Now())
			time.Sleep(c.before)
			hello := i.hello("n")
			time.Sleep(c.after)
			if _, err := f.Apply(hello, time.Now(), i.verify); err != nil {
				t.Fatal(err)
			}
			next := i.sign(FrameType, i.frame())
			time.Sleep(c.later)
			if _, err := f.Apply(next, time.Now(), i.verify); !errors.Is(err, c.want) {
				t.Errorf("%+v: %v", c, err)
			}
		})
	}
}

// While the server cannot read its store it says so, and the lease ends.
func TestServerBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		f := connected(t, i)
		stuck := i.clock()
		for range 5 {
			time.Sleep(Heartbeat)
			frame := i.frame()
			frame.AsOf = stuck
			if _, err := f.Apply(i.sign(FrameType, frame), time.Now(), i.verify); err != nil {
				t.Fatal(err)
			}
		}
		if f.Fresh(time.Now()) {
			t.Error("fresh although the server has not read its store for 1.25 s")
		}
	})
}

// Clocks on the wall: a step of the follower's counts as age until the next frame
// and no longer; the monotonic clock that slept adapts.
func TestClockSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		f := connected(t, i)
		forward := time.Now().Add(time.Hour).Round(0) // has no monotonic reading
		if f.Fresh(forward) {
			t.Error("an hour passed on the wall clock, as in sleep, and it is fresh")
		}
		slow := time.Now() // this clock stood still while the server's went on
		time.Sleep(2 * time.Second)
		if _, err := f.Apply(i.sign(FrameType, i.frame()), slow, i.verify); err != nil || f.Age(slow) != 0 {
			t.Errorf("after sleep: %v, age %s", err, f.Age(slow))
		}
	})
}

// A connection may begin with more than one frame holds. What is fresh before the last
// of them would lack revocations, also where the server has just started.
func TestFirstFramesOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		f := NewFollower(issuerName)
		if err := f.Load(i.snapshot(), i.verify); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // so long the server runs
		f.Connect("n", time.Now())
		first := i.frame(NewEntry(Grant, "other", time.Hour, 0))
		first.Nonce, first.Clock, first.AsOf = "n", i.clock(), -1
		if _, err := f.Apply(i.sign(FrameType, first), time.Now(), i.verify); err != nil {
			t.Fatal(err)
		}
		if f.Fresh(time.Now()) {
			t.Error("fresh, and the rest is still to come")
		}
		if _, err := f.Apply(i.sign(FrameType, i.frame(NewEntry(Grant, claims.GrantID, time.Hour, 0))), time.Now(), i.verify); err != nil {
			t.Fatal(err)
		}
		if !f.Fresh(time.Now()) || !revoked(f) {
			t.Error("not fresh after the last of them")
		}
	})
}

// A frame that lay in a buffer while the machine slept confirms nothing; the next
// connection does.
func TestSleep(t *testing.T) { // in no bubble, where time has no monotonic clock
	i := newIssuer(t)
	f := connected(t, i)
	waiting := i.sign(FrameType, i.frame())
	now := time.Now()
	woken := timetest.AfterSleep(now.Add(time.Hour), time.Hour)
	if _, err := f.Apply(waiting, woken, i.verify); !errors.Is(err, ErrGap) {
		t.Errorf("%v, want ErrGap", err)
	}
	if f.Fresh(woken) {
		t.Error("fresh by a frame of an hour ago")
	}
	f.Connect("again", woken)
	if _, err := f.Apply(i.hello("again"), woken, i.verify); err != nil || !f.Fresh(woken) {
		t.Errorf("the next connection: %v, age %s", err, f.Age(woken))
	}
}

func TestForgedSnapshots(t *testing.T) {
	i := newIssuer(t)
	good := i.snapshot(entry(Grant, "g", 0))
	var body SnapshotBody
	if err := json.Unmarshal(good, &body); err != nil {
		t.Fatal(err)
	}
	other := i.snapshot()
	var empty SnapshotBody
	if err := json.Unmarshal(other, &empty); err != nil {
		t.Fatal(err)
	}
	for name, forged := range map[string]SnapshotBody{
		"entries of another": {body.Snapshot, empty.Revoked},
		"header of another":  {empty.Snapshot, body.Revoked},
		"unsigned":           {"", body.Revoked},
		"signed by another":  {newIssuer(t).sign(SnapshotType, Snapshot{Issuer: issuerName, Cursor: Origin, Digest: Digest(nil)}), ""},
		"a frame":            {i.sign(FrameType, i.frame()), ""},
		"of another issuer":  {i.sign(SnapshotType, Snapshot{Issuer: "https://other.example.com", Cursor: Origin, Digest: Digest(nil)}), ""},
		"cut short":          {body.Snapshot, body.Revoked[:8]},
	} {
		text, err := json.Marshal(forged)
		if err != nil {
			t.Fatal(err)
		}
		if f := NewFollower(issuerName); f.Load(text, i.verify) == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if f := NewFollower(issuerName); f.Load(good, i.verify) != nil || !revoked(f) {
		t.Error("the genuine one was not taken")
	}
}

// FuzzFollower: whatever arrives, nothing but what the issuer signed is taken.
func FuzzFollower(f *testing.F) {
	f.Add("a.b.c", []byte(`{"snapshot":"a.b.c","revoked":""}`))
	f.Add("eyJhbGciOiJFUzI1NiIsImtpZCI6ImsiLCJ0eXAiOiJyZXZvY2F0aW9ucytqd3QifQ.e30.AAAA", []byte(`{}`))
	f.Fuzz(func(t *testing.T, frame string, snapshot []byte) {
		refuse := func(*intake.Token) error { return intake.ErrSignature }
		follower := NewFollower(issuerName)
		follower.Connect("n", time.Now())
		if _, err := follower.Apply(frame, time.Now(), refuse); err == nil {
			t.Error("took an unsigned frame")
		}
		if follower.Load(snapshot, refuse) == nil {
			t.Error("took an unsigned snapshot")
		}
		DecodeEntries(snapshot)
	})
}
