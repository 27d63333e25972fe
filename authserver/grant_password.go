package authserver

import (
	"context"
	"errors"
	"strings"
	"time"
)

// passwordGrant is the resource owner password credentials grant (RFC 6749 §4.3),
// for first-party clients that were explicitly given it. OAuth 2.1 has removed it;
// docs/divergences.md says why it is here.
type passwordGrant struct{ server *Server }

func (g passwordGrant) Authorize(ctx context.Context, request tokenRequest) (Authorization, error) {
	s, c, f := g.server, request.client, request.form
	username, password := f.get("username"), f.get("password")
	if username == "" || password == "" {
		return Authorization{}, invalidRequest("username and password are required")
	}
	resource, scope, err := s.resources.target(f, c.scopes, nil)
	if err != nil {
		return Authorization{}, err
	}
	shown, err := s.signIn(ctx, username, password, caller{address: request.address, client: c.id})
	if err != nil {
		return Authorization{}, err
	}
	if shown.credentials.hasSecondFactor() { // nobody is asked for it here
		return Authorization{}, errSignIn.because(errors.New("the user has a second factor, which this grant cannot ask for"))
	}
	shown.acr = acrPassword // nor has he set one up meanwhile
	grant := Grant{
		ClientID:  c.id,
		Subject:   shown.user.subject,
		Scope:     strings.Join(scope, " "),
		Resources: []string{resource},
		AuthTime:  shown.user.authTime(time.Now()),
		AMR:       []string{"pwd"}, // RFC 8176 §2
	}
	before, err := s.mayHold(ctx, grant)
	if err != nil {
		return Authorization{}, err
	}
	return s.createGrant(ctx, c, NewGrantID(grant.Subject), grant, resource, basis{standing: before, given: time.Now(), proof: &shown})
}
