package authserver

import "testing"

// Who is removed leaves nothing that counts for the next one who is given his sub: what he
// has allowed is asked anew, and his passkeys lead to nobody.
func TestRemovedUserLeavesNothing(t *testing.T) {
	s := browserServer(t, nil)
	ctx := t.Context()
	add := func(username string) {
		t.Helper()
		if _, err := s.addUser(ctx, newUser{subject: "u-1", username: username}); err != nil {
			t.Fatal(err)
		}
	}
	add("eve")
	b := newBrowser(t, s)
	b.signIn("u-1")
	b.code()
	handle := userHandle("u-1")
	if _, err := s.addPasskey(ctx, b.user("u-1"), passkey{Name: "key"}, nil); err != nil {
		t.Fatal(err)
	}
	if page := b.send("GET", authorizeURL(), nil); page.on("/consent") {
		t.Fatal("she is asked again: this shows nothing")
	}
	if _, err := s.adminUserRemove(ctx, UserRef{Subject: "u-1"}); err != nil {
		t.Fatal(err)
	}
	records, err := s.store.Get(ctx, s.consents.Key(consentKey("u-1", "web")), passkeyOwnerKey(handle), s.credentialsTable().Key("u-1"), s.users.records.Key("u-1"))
	if err != nil {
		t.Fatal(err)
	}
	for i, what := range []string{"a consent", "the way from a passkey", "credentials", "the user"} {
		if records[i].Exists() {
			t.Errorf("%s is left", what)
		}
	}
	add("frank")
	next := newBrowser(t, s)
	next.signIn("u-1")
	if page := next.send("GET", authorizeURL(), nil); !page.on("/consent") {
		t.Errorf("the next one is not asked: %d %v", page.status, page.location)
	}
}
