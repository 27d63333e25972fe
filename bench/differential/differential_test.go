package differential

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"authserver/internal/intake"
)

// ATTACKS JW-33: whatever ours accepts all accept, with the same payload; what ours
// refuses and another accepts, it refuses for a reason that is explained here.
func TestAttackJW33(t *testing.T) {
	libraries := []library{{name: "go-jose", verify: goJOSE}, {name: "golang-jwt", verify: golangJWT, claims: true}, {name: "jwx", verify: jwx}}
	if node := npmJOSE(t); node != nil {
		libraries = append(libraries, *node)
	}
	accepted, refused := 0, 0
	laxer := make(map[string]map[string]int) // by our reason and by the library
	examples := make(map[string]string)
	samples := 10_000
	if raced { // make test runs it unraced as well
		samples = 3000
	}
	for _, s := range corpus(t, samples) {
		payload, err := ours(s)
		if err == nil {
			accepted++
		} else {
			refused++
		}
		for _, l := range libraries {
			if l.claims && s.raw {
				continue
			}
			theirs, theirErr := l.verify(s)
			switch {
			case err == nil && theirErr != nil:
				if !stricter(l.name, s, theirErr) {
					t.Errorf("ours accepts and %s refuses %s: %v: %s", l.name, s.name, theirErr, s.token)
				}
			case err == nil && !same(payload, theirs, l.claims):
				t.Errorf("%s reads %s as %.200q, ours as %.200q", l.name, s.name, theirs, payload)
			case err != nil && theirErr == nil:
				reason := reasonOf(err)
				if laxer[reason] == nil {
					laxer[reason] = make(map[string]int)
				}
				laxer[reason][l.name]++
				examples[reason] = s.name
			}
		}
	}
	t.Logf("%d tokens accepted, %d refused", accepted, refused)
	if accepted < 800 || refused < samples/2 {
		t.Errorf("%d tokens accepted and %d refused: the corpus tries little", accepted, refused)
	}
	for reason, by := range laxer {
		t.Logf("%s: accepted by %v, for example %.100q", reason, by, examples[reason])
		if explained[reason] == "" {
			t.Errorf("ours refuses what others accept (%v), and nobody has explained it: %s; for example %.200q", by, reason, examples[reason])
		}
	}
	for reason := range explained {
		if laxer[reason] == nil {
			t.Errorf("explained, and no other library accepts such a token: %s", reason)
		}
	}
}

// reasonOf is our error without what differs from token to token.
func reasonOf(err error) string {
	reason := err.Error()
	if at := strings.Index(reason, " at byte "); at > 0 {
		reason = reason[:at]
	}
	if errors.Is(err, intake.ErrAlgorithm) {
		reason = intake.ErrAlgorithm.Error()
	}
	return reason
}

// same compares payloads: by their bytes, or as claims where the library has parsed them.
func same(ours, theirs []byte, claims bool) bool {
	if !claims {
		return bytes.Equal(ours, theirs)
	}
	var a, b map[string]any
	if json.Unmarshal(ours, &a) != nil || json.Unmarshal(theirs, &b) != nil {
		return false
	}
	return reflect.DeepEqual(a, b)
}

// stricter reports whether a library refuses what ours accepts because it reads a
// member of the header that nobody here reads: a key or certificate of the sender's.
func stricter(library string, s sample, err error) bool {
	member := map[string][]string{"go-jose": {"jwk", "x5c"}, "jwx": {"x5c"}}[library]
	return slices.ContainsFunc(member, func(name string) bool {
		return strings.Contains(s.name, `"`+name+`":`) && strings.Contains(strings.ToLower(err.Error()), name)
	})
}

// explained is why ours refuses what some other library accepts. go-jose, jwx and npm
// jose do not look into the payload: whoever calls them does.
var explained = map[string]string{
	"malformed: it is not in canonical base64url":                                       "RFC 7515 §2, RFC 4648 §3.5: each token has one spelling, by which it is remembered; others take white space, padding or stray bits",
	"malformed: the token is longer than 16384 bytes":                                   "a bound on what is looked at",
	"the header's alg is not the key's":                                                 "RFC 8725 §3.1: jwx verifies by the algorithm it is given, and does not mind another one in the header",
	"the signature is not by the expected key":                                          "RFC 7518 §3.5: go-jose takes PS256 signatures with a salt of another length than the hash's",
	"reading the header: malformed: not a JSON object":                                  "RFC 7515 §4: others take null or a byte order mark",
	"reading the header: malformed: the JSON has a member twice":                        "RFC 7515 §4: others take the first or the last",
	"reading the header: malformed: the JSON is not in UTF-8":                           "RFC 8259 §8.1: others replace what is not",
	"reading the header: malformed: the JSON is nested more than 8 levels deep":         "a bound on what is looked at",
	"reading the header: malformed: the JSON has something else where a string belongs": "RFC 7515 §4.1: others take null for absent",
	"reading the header: malformed: the kid is not a string of at most 256 bytes":       "RFC 7515 §4.1.4, and a bound on what is looked at",
	"reading the header: malformed: the header has crit, b64, zip or enc":               "RFC 7515 §4.1.11, RFC 7797: no extension is understood here, so none is skipped; others skip an empty or null crit, b64 without crit, zip and enc",
	"malformed: not a JSON object":                                                      "RFC 7519 §7.2: the claims are an object",
	"malformed: the JSON is broken":                                                     "RFC 8259",
	"malformed: the JSON has a control character in a string":                           "RFC 8259 §7",
	"malformed: the JSON has a broken escape":                                           "RFC 8259 §7",
	"malformed: the JSON is not in UTF-8":                                               "RFC 8259 §8.1",
	"malformed: the JSON has something after the object":                                "RFC 7519 §7.2",
	"malformed: the JSON has a member twice":                                            "RFC 7519 §4, RFC 8725 §2.6: others take the last, and two readers could take different ones",
	"malformed: the JSON has more than 128 members":                                     "a bound on what is looked at",
	"malformed: the JSON is nested more than 8 levels deep":                             "a bound on what is looked at",
	"malformed: the JSON has something else where a string belongs":                     "RFC 7519 §4.1, RFC 8693 §4.2: a claim of another type is not that claim",
	"malformed: the JSON has something else where a whole number belongs":               "RFC 7519 §2: NumericDates with a fraction or an exponent are legal; no access token of ours has one",
	"malformed: the JSON has something else where an array of strings belongs":          "RFC 7519 §4.1.3",
}
