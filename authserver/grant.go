package authserver

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"authserver/internal/accesstoken"
	"authserver/store"

	"github.com/fxamacker/cbor/v2"
)

// GrantType is one way to get tokens at the token endpoint. It sees no HTTP.
type GrantType interface {
	// Authorize checks the request, makes the one change in the store that the
	// grant needs, and says what is to be issued. A refusal is an *Error.
	Authorize(ctx context.Context, request tokenRequest) (Authorization, error)
}

// tokenRequest is a token request of an authenticated client that may use the grant.
type tokenRequest struct {
	client  *client
	form    form
	address netip.Addr // of the caller, for throttling
}

// Grant is the record of one authorization that a user gave to a client. Its
// version in the store is the generation of its refresh token. There may be a hundred
// million of them, so they are stored as CBOR (RFC 8949) with a number for each field.
// A number is never used for another field, and what is not known is skipped, so that
// servers of different versions can share a store.
type Grant struct {
	ClientID     string                    `cbor:"1,keyasint"`
	Subject      string                    `cbor:"2,keyasint"`
	Scope        string                    `cbor:"3,keyasint,omitempty"` // space-separated
	Resources    []string                  `cbor:"4,keyasint,omitempty"` // identifiers
	AuthTime     int64                     `cbor:"5,keyasint,omitempty"` // seconds since 1970, like all times here
	ACR          string                    `cbor:"6,keyasint,omitempty"`
	AMR          []string                  `cbor:"7,keyasint,omitempty"`
	SessionID    string                    `cbor:"8,keyasint,omitempty"`
	Confirmation *accesstoken.Confirmation `cbor:"9,keyasint,omitempty"`
	// Single claims that were asked for, beside those of the scope (OpenID Connect Core §5.5).
	IDTokenClaims  []string `cbor:"10,keyasint,omitempty"`
	UserInfoClaims []string `cbor:"11,keyasint,omitempty"`
	ClientEpoch    uint64   `cbor:"12,keyasint,omitempty"` // number of the client's epoch that it was made in
	Created        int64    `cbor:"13,keyasint"`
	Expires        int64    `cbor:"14,keyasint"`           // refreshes never prolong it
	SubjectEpoch   uint64   `cbor:"15,keyasint,omitempty"` // number of the user's; 0 also where an earlier version made it
}

// grantFields is Grant without its methods.
type grantFields Grant

// MarshalBinary implements encoding.BinaryMarshaler.
func (g Grant) MarshalBinary() ([]byte, error) { return cbor.Marshal(grantFields(g)) }

// UnmarshalBinary implements encoding.BinaryUnmarshaler.
func (g *Grant) UnmarshalBinary(b []byte) error { return cbor.Unmarshal(b, (*grantFields)(g)) }

// Authorization is a grant's decision: what issue is to sign.
type Authorization struct {
	GrantID  string
	Grant    Grant
	User     user          // who gave it; the zero user for a client's own token
	Scope    []string      // of the access token: the grant's or a part of it
	Resource string        // the access token's audience
	TokenID  string        // jti of the access token
	IssuedAt time.Time     // iat of the tokens
	Age      time.Duration // how long ago that is, by the clock that says so
	Refresh  *refresh      // the refresh token to issue; nil for none
	Nonce    string        // of the authentication request, for the ID token

	// unsent is called when no tokens could be signed: it makes that the request can be
	// repeated, which would look like theft. nil where it can be anyway.
	unsent func(ctx context.Context) error
}

// refresh is the part of a refresh token that changes with each rotation.
type refresh struct {
	Generation uint64    // the grant record's version
	Expires    time.Time // the grant record's expiry
}

// basis is what a grant is made of.
type basis struct {
	standing                  // of all who are behind it, when it was decided
	given    time.Time        // when its user gave it
	session  string           // sid of where he did; of one that has ended comes no grant, also none that would outlive it
	proof    *proof           // his, where he gave it by proving himself to the client; else nil
	spends   []store.Creation // marks that nobody may have made before; *store.ExistsError is wrapped where somebody has
}

// createGrant stores a new grant of a user under id, a NewGrantID, and returns the decision to issue
// tokens for all of it. Where the client may not refresh, the record lives as
// long as the access token, so that its state can be asked for.
//
// Everyone behind the grant was presumed to be there before. The store is asked, for
// them and all else that could have ended it, when the grant can be found by whoever
// ends the user, the session or the client: of two that meet, one sees the other.
func (s *Server) createGrant(ctx context.Context, c *client, id string, grant Grant, resource string, before basis) (Authorization, error) {
	if !strings.HasPrefix(id, grantHome(grant.Subject)) { // whoever ends the user would not find it
		return Authorization{}, fmt.Errorf("the id of a grant of %q begins as another user's", grant.Subject)
	}
	now := time.Now()
	end := now.Add(s.tokens.RefreshMax)
	expires := now.Add(s.tokens.RefreshIdle)
	switch {
	case !c.may("refresh_token"):
		end = now.Add(s.tokens.Access)
		expires = end
	case !c.rotates:
		expires = end // nothing ever moves the record, so idleness cannot be seen
	}
	expires = earlier(expires, end)
	grant.ClientID, grant.Created, grant.Expires = c.id, max(now.Unix(), s.notBefore()+1), end.Unix()
	grant.ClientEpoch, grant.SubjectEpoch = before.epoch.number, before.user.epoch.number
	creation, err := s.grants.Creation(id, grant, expires)
	if err != nil {
		return Authorization{}, err
	}
	keys := append(s.standingKeys(c.id, grant.Subject, before.session), endedGrantKey(id), s.removedApps().Key(removedApp(grant.Subject, c.id)))
	if before.proof != nil {
		keys = append(keys, s.credentialsTable().Key(grant.Subject))
	}
	records, err := store.Do(ctx, s.store, store.Batch{
		Create: append(before.spends, creation),
		Get:    keys,
	})
	if err != nil {
		return Authorization{}, unavailable(fmt.Errorf("storing a grant: %w", err))
	}
	after, err := grant.heldBy(s.readStanding(c.id, grant.Subject, before.session, records))
	if err == nil {
		err = s.overtaken(before, after)
	}
	if err != nil {
		return Authorization{}, errors.Join(err, s.endGrant(ctx, id, reasonMeanwhile))
	}
	if after.records[0].Exists() {
		// The code was replayed meanwhile. The answer is what it would have been had
		// that been a moment later: tokens that are dead already.
		if err := s.endGrant(ctx, id, reasonReplay); err != nil {
			return Authorization{}, unavailable(err)
		}
	}
	authorization := Authorization{
		GrantID: id, Grant: grant, User: after.user, Scope: strings.Fields(grant.Scope), Resource: resource, TokenID: newID(), IssuedAt: now,
	}
	if c.may("refresh_token") {
		authorization.Refresh = &refresh{Generation: 1, Expires: expires}
	}
	return authorization, nil
}

// overtaken refuses a grant that was decided before something ended that after shows.
func (s *Server) overtaken(before basis, after standing) error {
	if after.epoch != before.epoch || after.user.epoch != before.user.epoch {
		return errGrantEnded.because(errors.New("all of the client or the user was ended meanwhile"))
	}
	removed, err := s.removedSince(after.records[1], before.given)
	switch {
	case err != nil:
		return err
	case removed:
		return errGrantEnded.because(errors.New("its user has taken all access from the client"))
	case before.proof == nil:
		return nil
	}
	now := account{user: after.user}
	if after.records[2].Exists() {
		if now.credentials, err = s.credentialsTable().Decode(after.records[2]); err != nil {
			return err
		}
	}
	if err := before.proof.holds(now); err != nil {
		return errSignIn.because(fmt.Errorf("overtaken: %w", err))
	}
	return nil
}

// mayHold refuses a grant whose client, user or session is not there any more.
// The standing has the records of keys.
func (s *Server) mayHold(ctx context.Context, grant Grant, keys ...string) (standing, error) {
	return grant.heldBy(s.standingOf(ctx, grant.ClientID, grant.Subject, grant.SessionID, keys...))
}

// heldBy refuses a grant by what was found of those behind it.
func (grant Grant) heldBy(found standing, err error) (standing, error) {
	switch {
	case errors.Is(err, errNoClient):
		return standing{}, invalidClient(err)
	case errors.Is(err, errNoUser):
		return standing{}, errUserGone.because(err)
	case errors.Is(err, errEnded):
		return standing{}, errGrantEnded.because(err)
	case err != nil:
		return standing{}, err
	case grant.AuthTime != 0 && found.user.ended(grant.AuthTime):
		return standing{}, errGrantEnded.because(errors.New("all of the user was ended after he signed in"))
	}
	return found, nil
}

// The id of a grant begins with its user's home, and the rest is random. So the grants of
// a user are a family in the store, which is how they are found to be listed or ended;
// those of a session are found among them: users have few.
//
// The home says no more of a user than the sub that is in every token with a grant_id.
const (
	homeSize   = 16 // characters of base64url
	memberSize = 16
)

// NewGrantID returns the id of a new grant of a user: 32 characters of base64url.
func NewGrantID(subject string) string { return grantHome(subject) + newID()[:memberSize] }

func grantHome(subject string) string { return hashOf("grants\x00" + subject)[:homeSize] }

// Grants returns the grants in a store.
func Grants(s store.Store) store.Table[Grant] {
	return store.Table[Grant]{Store: s, Name: "grant", Home: homeSize}
}

// eachGrant visits the grants that a user has given and that have not ended.
func (s *Server) eachGrant(ctx context.Context, subject string, visit func(id string, grant Grant, record store.Record) error) error {
	home := grantHome(subject)
	for member, err := range s.store.Members(ctx, s.grants.Family(home)) {
		if err != nil {
			return unavailable(fmt.Errorf("listing grants: %w", err))
		}
		grant, err := s.grants.Decode(member.Record)
		if err == nil && grant.Subject == subject { // two users' homes might be the same, once in 2^96
			err = visit(home+member.Name, grant, member.Record)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// newID returns 192 random bits as 32 characters of base64url.
func newID() string {
	var b [24]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// derivedID returns the jti of the access token that goes with one generation of
// a grant: the same for every repetition of a refresh.
func derivedID(grantID string, generation uint64, resource string, scope []string) string {
	text := strings.Join([]string{"access", grantID, strconv.FormatUint(generation, 10), resource, strings.Join(scope, " ")}, "\x00")
	hash := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(hash[:24])
}

var errNoGrant = errors.New("no record of the grant")

var (
	errGrantEnded = invalidGrant("the grant has ended")
	errUserGone   = invalidGrant("the user can no longer sign in")
)
