package authserver

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"time"
)

// user is somebody who can sign in, ready for use.
type user struct {
	subject  string
	username string
	roles    []string
	claims   map[string]any
	hash     string // of the configured password; empty for stored users
	epoch    epoch
}

// authTime is the auth_time of u who signs in now: after the beginning of his epoch
// even when that was in this very second.
func (u user) authTime(now time.Time) int64 { return max(now.Unix(), u.epoch.NotBefore+1) }

// ended reports whether what u authenticated at authTime was ended since.
func (u user) ended(authTime int64) bool { return authTime <= u.epoch.NotBefore }

// subject returns the subject identifier of u.
func (u User) subject() string {
	if u.Sub != "" {
		return u.Sub
	}
	hash := sha256.Sum256([]byte("authserver subject\x00" + foldUsername(u.Username)))
	return "user-" + base64.RawURLEncoding.EncodeToString(hash[:16])
}

// foldUsername makes the spellings of one account equal.
func foldUsername(name string) string { return strings.ToLower(strings.TrimSpace(name)) }

// errSignIn is the one answer to every failed sign-in.
var errSignIn = invalidGrant("the username or the password is wrong, or the account cannot sign in")

// accountInLog names an account that somebody typed. It may be a password that went into
// the wrong box, which is soon guessed from a hash that has no secret in it.
func (s *Server) accountInLog(username string) string {
	mac := hmac.New(sha256.New, s.keys.Salt("accounts in the log"))
	mac.Write([]byte(foldUsername(username)))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// maxUsername is the most bytes of a username.
const maxUsername = 256

// signIn checks a username and password. Unknown and disabled users cost what
// known ones do and get the same answer.
func (s *Server) signIn(ctx context.Context, username, password string, from caller) (proof, error) {
	if len(username) > maxUsername { // nobody's, and nothing to be kept
		return proof{}, errSignIn.because(errors.New("the username is too long to be one"))
	}
	attempt, err := s.throttle.admit(ctx, foldUsername(username), from)
	if err != nil {
		return proof{}, err
	}
	named, unknown := s.users.byName(ctx, username)
	if unknown != nil && !errors.Is(unknown, errNoUser) {
		return proof{}, unknown
	}
	subject := named.subject
	if subject == "" {
		subject = "nobody" // asked for all the same, so that unknown names take as long
	}
	found, err := s.accountOf(ctx, subject)
	if errors.Is(err, errNoUser) {
		found, unknown = account{}, err
	} else if err != nil {
		return proof{}, err
	}
	hash, err := s.passwordOf(found)
	if err != nil {
		return proof{}, err
	}
	matches, err := s.passwords.verify(ctx, hash, password)
	if err != nil { // nothing was tried: a busy server must not slow down people who come back
		return proof{}, errors.Join(err, s.throttle.withdraw(ctx, attempt))
	}
	if !matches || unknown != nil {
		// A name that is none may be a password typed into the wrong box.
		refused := errSignIn.because(recorded{errors.New("sign-in refused")})
		refused.trace = newTrace()
		attrs := []any{"event", "sign_in_refused", "trace_id", refused.trace, "account", s.accountInLog(username), "address", from.address.String()}
		if from.client != "" {
			attrs = append(attrs, "client_id", from.client)
		}
		if unknown != nil {
			attrs = append(attrs, "cause", unknown.Error())
		} else {
			attrs = append(attrs, "sub", found.user.subject)
		}
		s.log.Info("sign-in refused", attrs...)
		return proof{}, refused
	}
	if err := s.throttle.succeeded(ctx, attempt); err != nil {
		return proof{}, err
	}
	u := found.user
	shown := proof{user: u, credentials: found.credentials, password: found.credentials.passwordID(u)}
	if hash.weak() {
		s.upgradePassword(ctx, shown, password)
	}
	s.auditSignIn(u, "password", from)
	return shown, nil
}

// auditSignIn writes the audit record of a first proof that was right.
func (s *Server) auditSignIn(u user, method string, from caller) {
	attrs := []any{"event", "sign_in", "method", method, "sub", u.subject, "username", u.username, "address", from.address.String()}
	if from.client != "" {
		attrs = append(attrs, "client_id", from.client)
	}
	s.log.Info("signed in", attrs...)
}
