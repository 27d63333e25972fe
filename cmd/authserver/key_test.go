package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/authserver"
	"authserver/internal/redistest"
	"authserver/keys"
)

// The commands for keys against the running binary, on both stores.
func TestKeyCommands(t *testing.T) {
	t.Run("bolt", func(t *testing.T) { t.Parallel(); keyCommands(t, "") })
	t.Run("redis", func(t *testing.T) { t.Parallel(); keyCommands(t, redistest.Start(t).URL()) })
}

func keyCommands(t *testing.T, store string) {
	c, issuer := operatedServer(t, store)
	const secret = "0123456789abcdef0123456789abcdef"
	list := func() (found authserver.KeyList) { t.Helper(); c.json(&found, "key", "list"); return found }
	// key returns the kid of a ring's key in a state; RSA keys take some seconds to make.
	key := func(ring, state string) (kid string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); kid == "" && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			for _, r := range list().Rings {
				for _, k := range r.Keys {
					if r.Name == ring && k.State == state {
						kid = k.KeyID
					}
				}
			}
		}
		if kid == "" {
			t.Fatalf("no key of %s is %s", ring, state)
		}
		return kid
	}
	signing, standby := key("ES256", "active"), key("ES256", "pending")
	text, _, status := c.run("key", "list")
	if status != 0 || !strings.Contains(text, signing[:12]) || !strings.Contains(text, "####") || strings.Contains(text, "\x1b") {
		t.Errorf("key list: %d\n%s", status, text)
	}
	for line := range strings.Lines(text) {
		if len(strings.TrimRight(line, "\n")) > 80 {
			t.Errorf("a line of %d columns: %s", len(line), line)
		}
	}

	// A plan changes nothing; an orderly rotation waits until everybody can know the key.
	var plan keys.RotationPlan
	before := list()
	c.json(&plan, "key", "rotate", "ES256", "--plan")
	if len(plan.Rotations) != 1 || plan.Rotations[0].From != signing || plan.Rotations[0].To != standby || len(plan.Transitions) == 0 {
		t.Errorf("plan: %+v", plan)
	}
	es256 := func(list []keys.Transition) []keys.Transition { // the first RSA key may still be in the making
		return slices.DeleteFunc(list, func(one keys.Transition) bool { return one.Ring != "ES256" })
	}
	if after := list(); !slices.EqualFunc(es256(before.Plan), es256(after.Plan), func(a, b keys.Transition) bool { return a.At.Equal(b.At) && a.KeyID == b.KeyID }) {
		t.Error("--plan changed something")
	}
	c.json(&plan, "key", "rotate", "ES256", "--reason", "practice")
	if wait := time.Until(plan.Rotations[0].At); wait < 23*time.Hour || wait > 24*time.Hour {
		t.Errorf("an orderly rotation is in %s, want publish_before from the start", wait)
	}
	c.fails(1, `there is no ring "RS384"`, "key", "rotate", "RS384")
	c.fails(1, "other instances may not know it", "key", "rotate", "ES256", "--now", "--yes") // it is seconds old

	// A key from elsewhere: the server takes it, and says nothing of it.
	ecKey, err := exec.Command("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout").Output()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(c.directory, "key.pem")
	if err := os.WriteFile(file, ecKey, 0o600); err != nil {
		t.Fatal(err)
	}
	var imported keys.KeyView
	c.json(&imported, "key", "import", file)
	if imported.Ring != "ES256" || imported.State != "pending" {
		t.Errorf("imported: %+v", imported)
	}
	// ATTACKS OP-04.
	c.fails(1, "is, or was, one of this issuer's keys", "key", "import", file)
	c.fails(1, "cannot be taken in", "key", "import", file, "--ring", "RS256", "--yes")
	for name, args := range map[string][]string{
		"512 bits": {"genrsa", "-traditional", "512"}, "P-384": {"ecparam", "-genkey", "-name", "secp384r1", "-noout"},
	} {
		weak, err := exec.Command("openssl", args...).Output()
		if err != nil {
			t.Fatal(err)
		}
		typed := c
		typed.stdin = string(weak)
		if _, stderr, status := typed.run("key", "import", "-"); status != 1 || strings.Contains(stderr, "BEGIN") {
			t.Errorf("a key of %s: exit status %d: %s", name, status, stderr)
		}
	}
	var shown keys.PublicKey
	c.json(&shown, "key", "show", "--", imported.KeyID[:12])
	if !strings.Contains(shown.PEM, "BEGIN PUBLIC KEY") || strings.Contains(string(shown.JWK), `"d"`) {
		t.Errorf("shown: %+v", shown)
	}
	publicOnly := c
	publicOnly.stdin = shown.PEM
	publicOnly.fails(1, "no private key", "key", "import", "-")

	// A stolen key: its tokens are dead when the command returns.
	status, tokens, err := postForm(t, issuer+"/token", "fixed", secret, tokenForm("password", "username", "alice", "password", "wonderland"))
	if err != nil || status != 200 {
		t.Fatal(status, tokens, err)
	}
	active := func() any {
		t.Helper()
		_, body, err := postForm(t, issuer+"/introspect", "fixed", secret, url.Values{"token": {tokens["access_token"].(string)}})
		if err != nil {
			t.Fatal(err)
		}
		return body["active"]
	}
	if active() != true {
		t.Fatal("the token is not active before the key is revoked")
	}
	c.fails(2, "--reason is required", "key", "revoke", "--", signing)
	c.fails(1, "nobody can be asked", "key", "revoke", "--reason", "stolen", "--", signing)
	c.fails(1, "there is no key", "key", "revoke", "unknown", "--reason", "stolen", "--yes")
	var revoked keys.RevokedKey
	c.json(&revoked, "key", "revoke", "--reason", "stolen", "--yes", "--", signing[:12])
	if revoked.KeyID != signing || active() != false {
		t.Errorf("revoked: %+v; its token is active: %v", revoked, active())
	}
	jwks := getText(t, issuer+"/.well-known/jwks.json")
	if strings.Contains(jwks, signing) || !strings.Contains(jwks, imported.KeyID) {
		t.Errorf("the key set: %s", jwks)
	}
	// That of refresh tokens as well.
	c.json(&revoked, "key", "revoke", "--reason", "stolen", "--yes", "--", key("refresh", "active"))
	if status, body, err := postForm(t, issuer+"/token", "fixed", secret, tokenForm("refresh_token", "refresh_token", tokens["refresh_token"].(string))); err != nil || status != 400 {
		t.Errorf("a refresh token of a revoked key: %d %v %v", status, body, err)
	}

	// Algorithms come and go; the log has it all, and knows when it was touched.
	var algorithm authserver.KeyAlgorithmAnswer
	c.json(&algorithm, "key", "algorithm", "add", "EdDSA")
	c.json(&algorithm, "key", "algorithm", "retire", "EdDSA", "--yes")
	c.fails(1, "is in keys.algorithms", "key", "algorithm", "retire", "ES256", "--yes")
	c.fails(1, "is not offered", "key", "algorithm", "add", "none")
	c.json(new(keys.Rewrapped), "key", "rewrap")
	var log authserver.KeyLog
	c.json(&log, "key", "log", "--verify")
	var actions []string
	for _, e := range log.Entries {
		if e.Action != keys.ActionState {
			actions = append(actions, e.Action)
			if !strings.Contains(e.Caller, "uid") {
				t.Errorf("an entry without its caller: %+v", e)
			}
		}
	}
	want := []string{keys.ActionRotate, keys.ActionImport, keys.ActionRevoke, keys.ActionRevoke, keys.ActionAddAlgorithm, keys.ActionRetireAlgorithm}
	if log.Verified == nil || len(log.Verified.Problems) != 0 || len(actions) < len(want) || !slices.Equal(actions[:len(want)], want) {
		t.Errorf("the log: %v %+v", actions, log.Verified)
	}

	// Nothing signs for ES256 until the key that was imported does. Another one is waited
	// for anew: whoever wants that says so.
	if ecKey, err = exec.Command("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout").Output(); err == nil {
		err = os.WriteFile(file, ecKey, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.fails(1, "Nothing signs for ES256 until", "key", "import", file)
	if kid := key("ES256", "pending"); kid != imported.KeyID {
		t.Errorf("nobody said yes, and the next key is %s", kid)
	}
	if text, stderr, status := c.run("key", "import", file, "--yes"); status != 0 || !strings.Contains(text, "in the place of "+imported.KeyID[:12]+", which never signs") {
		t.Errorf("exit status %d: %s%s", status, text, stderr)
	}
}

func getText(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The timeline: 80 columns, a column for the shortest state, refresh tokens cut off.
func TestTimeline(t *testing.T) {
	at := func(days float64) time.Time {
		return time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(days * 24 * float64(time.Hour)))
	}
	var list authserver.KeyList
	list.Rings = []keys.RingView{
		{Name: "ES256", Keys: []keys.KeyView{
			{KeyID: "first-key-of-the-ring", State: "active", Published: at(0), Activated: at(1)},
			{KeyID: "second", State: "pending", Published: at(1)}, {KeyID: "bad", State: "compromised", Published: at(0), Stopped: at(2)},
		}},
		{Name: keys.RefreshRing, Keys: []keys.KeyView{{KeyID: "refreshing", State: "active", Published: at(0), Activated: at(0)}}},
	}
	list.Plan = []keys.Transition{
		{At: at(10), Ring: "ES256", KeyID: "first-key-of-the-ring", To: "retiring"}, {At: at(10), Ring: "ES256", KeyID: "second", To: "active"},
		{At: at(10.01), Ring: "ES256", KeyID: "first-key-of-the-ring", To: "gone"}, {At: at(20), Ring: "ES256", KeyID: "second", To: "retiring"},
		{At: at(400), Ring: keys.RefreshRing, KeyID: "refreshing", To: "retiring"},
	}
	var drawn bytes.Buffer
	timeline(&drawn, list, at(5))
	want := `                                     now
                                     v
ES256    first-key-of   ..#########################-
ES256    second           .........................############################-
ES256    bad            .....xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
refresh  refreshing     #######################################################>
                        2026-11-01 00:00Z                      2026-11-21 00:00Z
# signs   . published, not signing   - its tokens verify   x compromised
`
	if drawn.String() != want {
		t.Errorf("drawn:\n%s\nwant:\n%s", drawn.String(), want)
	}
	// A key that is about to sign is not drawn as if it did, however short that is.
	drawn.Reset()
	list.Rings = []keys.RingView{{Name: "ES256", Keys: []keys.KeyView{{KeyID: "young", State: "pending", Published: at(4.99)}}}}
	list.Plan = []keys.Transition{{At: at(5.01), Ring: "ES256", KeyID: "young", To: "active"}, {At: at(95), Ring: "ES256", KeyID: "young", To: "retiring"}}
	timeline(&drawn, list, at(5))
	if !strings.Contains(drawn.String(), "ES256    young          .####") {
		t.Errorf("drawn:\n%s", drawn.String())
	}
	if text, err := json.Marshal(list); err != nil || strings.Contains(string(text), "private") {
		t.Errorf("%s %v", text, err)
	}
}
