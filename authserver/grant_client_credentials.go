package authserver

import (
	"context"
	"slices"
	"time"
)

// clientCredentialsGrant issues an access token to a client for itself (OAuth 2.1
// §4.2). Nothing is stored: the token carries all there is to know. The store is not
// needed either, but for whether all of the client was ended.
type clientCredentialsGrant struct{ server *Server }

func (g clientCredentialsGrant) Authorize(ctx context.Context, request tokenRequest) (Authorization, error) {
	c := request.client
	if c.public() {
		// OAuth 2.1 §4.2: confidential clients only.
		return Authorization{}, refusal("unauthorized_client", "client_credentials needs a client that can authenticate")
	}
	allowed := slices.DeleteFunc(slices.Clone(c.scopes), func(one string) bool { return slices.Contains(userScopes, one) })
	resource, scope, err := g.server.resources.target(request.form, allowed, nil)
	if err != nil {
		return Authorization{}, err
	}
	return Authorization{
		GrantID: newID(),
		// RFC 9068 §2.2: without a user, the subject is the client.
		Grant:    Grant{ClientID: c.id, Subject: c.id, ClientEpoch: g.server.clients.latestEpoch(ctx, c.id)},
		Scope:    scope,
		Resource: resource,
		TokenID:  newID(),
		IssuedAt: time.Now(),
	}, nil
}
