package authserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"authserver/keys"
)

// KeyList is the answer of /key/list.
type KeyList struct {
	keys.Overview
	Plan []keys.Transition `json:"plan"` // what will happen by itself
}

// noRequest is the body of calls that take nothing.
type noRequest struct{}

func (noRequest) audited() adminRecord { return adminRecord{} }

func (s *Server) adminKeyList(context.Context, noRequest) (KeyList, error) {
	return KeyList{s.keys.Describe(), s.keys.Plan()}, nil
}

// KeyRef names a key in a call.
type KeyRef struct {
	KeyID  string `json:"kid"`
	Reason string `json:"reason,omitempty"`
}

func (r KeyRef) audited() adminRecord { return adminRecord{"key " + r.KeyID, r.Reason} }

func (s *Server) adminKeyShow(_ context.Context, ref KeyRef) (keys.PublicKey, error) {
	shown, err := s.keys.Show(ref.KeyID)
	return shown, keyError(err)
}

// KeyRotate asks for a rotation of rings, all of them when none is named.
type KeyRotate struct {
	Rings  []string `json:"rings,omitempty"`
	Now    bool     `json:"now,omitempty"` // at once, whomever it breaks
	Reason string   `json:"reason,omitempty"`
}

func (r KeyRotate) audited() adminRecord {
	return adminRecord{"rings " + strings.Join(r.Rings, " "), r.Reason}
}

func (s *Server) adminKeyPlan(_ context.Context, r KeyRotate) (keys.RotationPlan, error) {
	plan, err := s.keys.PlanRotation(r.Now, r.Rings...)
	return plan, keyError(err)
}

func (s *Server) adminKeyRotate(ctx context.Context, r KeyRotate) (keys.RotationPlan, error) {
	rotate := s.keys.Rotate
	if r.Now {
		rotate = s.keys.RotateNow
	}
	plan, err := rotate(ctx, by(ctx, r.Reason), r.Rings...)
	return plan, keyError(err)
}

// adminKeyRevoke declares a key compromised, then tells verifiers, then answers. In
// the other order they would refuse tokens of a key that still signs; if the server
// dies in between, the operator's repetition does both again.
func (s *Server) adminKeyRevoke(ctx context.Context, ref KeyRef) (keys.RevokedKey, error) {
	revoked, err := s.keys.Revoke(ctx, by(ctx, ref.Reason), ref.KeyID)
	if err != nil {
		return revoked, keyError(err)
	}
	if time.Now().Before(revoked.Until) {
		err = s.publish(ctx, revocation{Key: revoked.KeyID, Reason: ref.Reason, Until: revoked.Until.Unix()})
	}
	return revoked, unavailableUnless(err, "telling verifiers of a revoked key")
}

// KeyImport hands over a private key that was made elsewhere.
type KeyImport struct {
	Ring   string `json:"ring"`
	Key    string `json:"key"` // PEM or JWK, not encrypted; it never appears in a log
	Reason string `json:"reason,omitempty"`
}

func (i KeyImport) audited() adminRecord { return adminRecord{"ring " + i.Ring, i.Reason} }

func (s *Server) adminKeyImport(ctx context.Context, request KeyImport) (keys.KeyView, error) {
	private, err := keys.ParsePrivateKey([]byte(request.Key), nil)
	if err != nil {
		return keys.KeyView{}, adminBadRequest("the key cannot be read: %v", err)
	}
	view, err := s.keys.Import(ctx, by(ctx, request.Reason), request.Ring, private)
	return view, keyError(err)
}

// KeyLog is the answer of /key/log. Verified is there when it was asked for.
type KeyLog struct {
	Entries  []keys.Entry    `json:"entries"`
	Verified *keys.LogReport `json:"verified,omitempty"`
}

// KeyLogQuery asks for the key log.
type KeyLogQuery struct {
	Verify bool `json:"verify,omitempty"`
}

func (KeyLogQuery) audited() adminRecord { return adminRecord{} }

func (s *Server) adminKeyLog(ctx context.Context, query KeyLogQuery) (KeyLog, error) {
	entries, err := s.keys.Log(ctx)
	if err != nil {
		return KeyLog{}, keyError(err)
	}
	answer := KeyLog{Entries: entries}
	if query.Verify {
		report, err := s.keys.VerifyLog(ctx)
		if err != nil {
			return KeyLog{}, keyError(err)
		}
		answer.Verified = &report
	}
	return answer, nil
}

// KeyAlgorithm names a signing algorithm in a call.
type KeyAlgorithm struct {
	Algorithm string `json:"alg"`
	Reason    string `json:"reason,omitempty"`
}

func (a KeyAlgorithm) audited() adminRecord { return adminRecord{"algorithm " + a.Algorithm, a.Reason} }

// KeyAlgorithmAnswer says from when on an algorithm signs, or ends. The zero time
// is while its first key is still being made.
type KeyAlgorithmAnswer struct {
	Algorithm string    `json:"alg"`
	At        time.Time `json:"at,omitzero"`
}

func (s *Server) adminKeyAlgorithmAdd(ctx context.Context, a KeyAlgorithm) (KeyAlgorithmAnswer, error) {
	at, err := s.keys.AddAlgorithm(ctx, by(ctx, a.Reason), a.Algorithm)
	return KeyAlgorithmAnswer{a.Algorithm, at}, keyError(err)
}

func (s *Server) adminKeyAlgorithmRetire(ctx context.Context, a KeyAlgorithm) (KeyAlgorithmAnswer, error) {
	at, err := s.keys.RetireAlgorithm(ctx, by(ctx, a.Reason), a.Algorithm)
	return KeyAlgorithmAnswer{a.Algorithm, at}, keyError(err)
}

// KeyRewrap asks for all private keys to be sealed under the first master key.
type KeyRewrap struct {
	Reason string `json:"reason,omitempty"`
}

func (r KeyRewrap) audited() adminRecord { return adminRecord{why: r.Reason} }

func (s *Server) adminKeyRewrap(ctx context.Context, r KeyRewrap) (keys.Rewrapped, error) {
	done, err := s.keys.Rewrap(ctx, by(ctx, r.Reason))
	return done, keyError(err)
}

// by names the operator to the key log.
func by(ctx context.Context, reason string) keys.By {
	caller, err := adminCaller(ctx)
	if err != nil { // the funnel has refused it
		return keys.By{}
	}
	return keys.By{Caller: fmt.Sprintf("%s (uid %d)", caller.name(), caller.UID), Reason: reason}
}

// keyError makes a refusal of an error of the keys. Operators are told the cause of
// trouble: there is nothing secret in it.
func keyError(err error) error {
	var refused keys.Refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return adminRefusal(http.StatusConflict, "conflict", "%s", refused.Error())
	}
	return adminRefusal(http.StatusServiceUnavailable, "unavailable", "the keys cannot be reached: %v", err).
		hint("repeat the same command: what was carried out is not carried out twice; authserver key log tells what was")
}
