package authserver

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" // RFC 6238 §1.2: what authenticator apps use; HMAC-SHA-1 is unbroken
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/url"
	"strings"
	"time"
)

const (
	totpStep   = 30 * time.Second // RFC 6238 §5.2
	totpDigits = 6
	totpSkew   = 1 // steps before and after the present one that are accepted too (RFC 6238 §6)
	totpBytes  = 20
)

// totpEnrolment is the authenticator app of a user.
type totpEnrolment struct {
	Secret []byte `json:"secret"`    // sealed for the subject
	Since  int64  `json:"since"`     // seconds since 1970
	Last   int64  `json:"last_step"` // the newest step of which a code was used; no older one is accepted
}

func newTOTPSecret() []byte {
	secret := make([]byte, totpBytes) // RFC 4226 §4: 160 bits
	rand.Read(secret)
	return secret
}

func stepAt(at time.Time) int64 { return at.Unix() / int64(totpStep/time.Second) }

// totpCode is the code of one time step (RFC 4226 §5.3, RFC 6238 §4).
func totpCode(secret []byte, step int64) string {
	mac := hmac.New(sha1.New, secret)
	binary.Write(mac, binary.BigEndian, step)
	sum := mac.Sum(nil)
	offset := sum[len(sum)-1] & 15
	truncated := binary.BigEndian.Uint32(sum[offset:]) & 0x7fffffff
	return fmt.Sprintf("%0*d", totpDigits, truncated%1_000_000)
}

// matchTOTP returns the time step of which code is, if it is of about now.
func matchTOTP(secret []byte, code string, now time.Time) (int64, bool) {
	matched, found := int64(0), 0
	for step := stepAt(now) - totpSkew; step <= stepAt(now)+totpSkew; step++ {
		equal := subtle.ConstantTimeCompare([]byte(totpCode(secret, step)), []byte(code))
		matched, found = max(matched, step*int64(equal)), found|equal
	}
	return matched, found == 1
}

func base32Text(secret []byte) string {
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)
}

// totpURI is what authenticator apps read from a QR code.
func totpURI(service, username string, secret []byte) string {
	label := url.PathEscape(service) + ":" + url.PathEscape(username)
	return "otpauth://totp/" + label + "?" + url.Values{"secret": {base32Text(secret)}, "issuer": {service}}.Encode()
}

const recoveryCodes = 10

// newRecoveryCodes returns codes of 60 random bits, which are guessed by nobody, and
// the hashes that are stored of them.
func newRecoveryCodes() (codes, hashes []string) {
	for range recoveryCodes {
		random := make([]byte, 8)
		rand.Read(random)
		text := strings.ToLower(base32Text(random))[:12] // base32 has neither 0 nor 1
		code := text[:4] + "-" + text[4:8] + "-" + text[8:]
		codes = append(codes, code)
		hashes = append(hashes, recoveryHash(code))
	}
	return codes, hashes
}

// recoveryHash is the hash of a recovery code, however it is typed.
func recoveryHash(code string) string {
	clean := strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' {
			return -1
		}
		return r
	}, strings.ToLower(code))
	return digestOf("recovery code\x00" + clean)
}
