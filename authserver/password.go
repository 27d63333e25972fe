package authserver

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	gometrics "runtime/metrics"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"
)

// Parameters of new password hashes: OWASP's second recommendation for argon2id.
const (
	argonMemory  = 19 * 1024 // KiB
	argonTime    = 2
	argonThreads = 1
	argonSalt    = 16 // bytes
	argonKey     = 32 // bytes

	maxPassword   = 1024            // bytes
	passwordWait  = 2 * time.Second // longest a sign-in queues for its turn
	queuedPerTurn = 64              // as many as take about as long
	smallHeap     = 64 << 20        // bytes; to mark them takes a millisecond or two
)

// passwordHash is an argon2id hash of a password.
type passwordHash struct {
	memory, time uint32 // KiB, passes
	threads      uint8
	salt, key    []byte
}

// HashPassword returns the argon2id hash of password as a PHC string, for
// password_hash in the configuration. The password has 1 to 1024 bytes.
func HashPassword(password string) (string, error) {
	if password == "" || len(password) > maxPassword {
		return "", fmt.Errorf("a password has 1 to %d bytes, this one has %d", maxPassword, len(password))
	}
	return newPasswordHash(password).String(), nil
}

func newPasswordHash(password string) passwordHash {
	hash := passwordHash{memory: argonMemory, time: argonTime, threads: argonThreads, salt: make([]byte, argonSalt)}
	rand.Read(hash.salt)
	hash.key = make([]byte, argonKey)
	hash.key = hash.derive(password)
	return hash
}

func (h passwordHash) derive(password string) []byte {
	return argon2.IDKey([]byte(password), h.salt, h.time, h.memory, h.threads, uint32(len(h.key)))
}

// String is the PHC string.
func (h passwordHash) String() string {
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, h.memory, h.time, h.threads, encode(h.salt), encode(h.key))
}

// weak reports whether new hashes cost more.
func (h passwordHash) weak() bool {
	return uint64(h.memory)*uint64(h.time) < argonMemory*argonTime || len(h.key) < argonKey
}

// parsePasswordHash reads a PHC string. The bounds keep one sign-in from taking
// all the memory or time there is.
func parsePasswordHash(phc string) (passwordHash, error) {
	parts := strings.Split(phc, "$")
	if len(parts) < 2 || parts[0] != "" {
		return passwordHash{}, errors.New("not a PHC string; make one with `authserver user hash`")
	}
	if parts[1] != "argon2id" {
		return passwordHash{}, fmt.Errorf("hashes of kind %.20q are not supported, argon2id is; make one with `authserver user hash`", parts[1])
	}
	var h passwordHash
	if len(parts) != 6 || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return passwordHash{}, errors.New("an argon2id hash looks like $argon2id$v=19$m=19456,t=2,p=1$SALT$KEY")
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.threads); err != nil ||
		parts[3] != fmt.Sprintf("m=%d,t=%d,p=%d", h.memory, h.time, h.threads) {
		return passwordHash{}, errors.New("the parameters of an argon2id hash look like m=19456,t=2,p=1")
	}
	var err1, err2 error
	h.salt, err1 = base64.RawStdEncoding.Strict().DecodeString(parts[4])
	h.key, err2 = base64.RawStdEncoding.Strict().DecodeString(parts[5])
	switch {
	case err1 != nil || err2 != nil:
		return passwordHash{}, errors.New("salt and key of the hash are not unpadded base64")
	case len(h.salt) < 8 || len(h.salt) > 64 || len(h.key) < 16 || len(h.key) > 64:
		return passwordHash{}, errors.New("the salt has 8 to 64 bytes and the key 16 to 64")
	case h.threads < 1 || h.threads > 4 || h.time < 1 || h.time > 10 ||
		h.memory < 8*uint32(h.threads) || h.memory > 64*1024:
		return passwordHash{}, errors.New("the parameters are out of bounds: m up to 65536 (KiB), t 1 to 10, p 1 to 4")
	}
	return h, nil
}

// passwordHasher verifies passwords, a bounded number at a time: each takes 19 MiB
// and a CPU, and a flood of sign-ins must exhaust neither. One CPU is left to
// everything else, where there are several, and few enough wait for a turn that each
// gets it in time.
type passwordHasher struct {
	turns  chan struct{}
	queue  chan struct{} // holds one for each that waits for a turn, or has it
	nobody passwordHash  // no password has it; for unknown users
	small  uint64        // a heap with less than this alive is collected after hashes, in bytes
}

func newPasswordHasher() *passwordHasher {
	turns := min(max(runtime.GOMAXPROCS(0)-1, 1), 16)
	hasher := &passwordHasher{
		turns: make(chan struct{}, turns),
		queue: make(chan struct{}, turns*queuedPerTurn),
		small: smallHeap,
		nobody: passwordHash{memory: argonMemory, time: argonTime, threads: argonThreads,
			salt: make([]byte, argonSalt), key: make([]byte, argonKey)},
	}
	rand.Read(hasher.nobody.salt)
	rand.Read(hasher.nobody.key)
	return hasher
}

// verify reports whether password has the hash. When too many others wait it
// gives up with a 503.
func (p *passwordHasher) verify(ctx context.Context, hash passwordHash, password string) (bool, error) {
	if len(password) > maxPassword {
		return false, nil
	}
	done, err := p.turn(ctx)
	if err != nil {
		return false, err
	}
	defer done()
	return subtle.ConstantTimeCompare(hash.derive(password), hash.key) == 1, nil
}

// hash makes the hash of a password, of at most maxPassword bytes, in its turn.
func (p *passwordHasher) hash(ctx context.Context, password string) (passwordHash, error) {
	done, err := p.turn(ctx)
	if err != nil {
		return passwordHash{}, err
	}
	defer done()
	return newPasswordHash(password), nil
}

// collect frees what hashes have left behind. Go lets garbage pile up to as much as was
// alive when it looked last, and a hash was. Where far more than hashes is alive, looking
// would cost too much and they make little difference.
func (p *passwordHasher) collect() {
	if len(p.turns) > 1 {
		return // who ends last collects
	}
	alive := []gometrics.Sample{{Name: "/gc/heap/live:bytes"}}
	if gometrics.Read(alive); alive[0].Value.Uint64() < p.small {
		runtime.GC()
	}
}

var errManySignIns = &Error{Code: "temporarily_unavailable", Status: http.StatusServiceUnavailable, RetryAfter: time.Second,
	Description: "too many people sign in at this moment; try again", cause: errors.New("too many sign-ins at once")}

// turn waits until one more password may be hashed. The caller says when it is done.
func (p *passwordHasher) turn(ctx context.Context) (done func(), err error) {
	select {
	case p.queue <- struct{}{}:
	default:
		return nil, errManySignIns
	}
	timeout := time.NewTimer(passwordWait)
	defer timeout.Stop()
	select {
	case p.turns <- struct{}{}:
		return func() { p.collect(); <-p.turns; <-p.queue }, nil
	case <-ctx.Done():
		err = unavailable(ctx.Err())
	case <-timeout.C:
		err = errManySignIns
	}
	<-p.queue
	return nil, err
}
