package authserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"authserver/store"
)

// Where a client or a user comes from.
const (
	SourceConfiguration = "configuration"
	SourceStore         = "store"
)

// ClientInfo is what operators are shown of a client. Times are seconds since 1970.
type ClientInfo struct {
	Client
	Source   string       `json:"source"`
	Disabled bool         `json:"disabled"`
	Created  int64        `json:"client_id_issued_at,omitempty"` // RFC 7591 §3.2.1
	Secrets  []SecretInfo `json:"secrets,omitempty"`             // of a stored client: that it may authenticate with now
}

// SecretInfo is what is shown of a secret.
type SecretInfo struct {
	Created int64 `json:"created,omitempty"`
	Expires int64 `json:"expires,omitempty"` // 0 for never
}

// ClientRef names a client in a call.
type ClientRef struct {
	ClientID string `json:"client_id"`
	Reason   string `json:"reason,omitempty"`
}

func (r ClientRef) audited() adminRecord { return adminRecord{r.ClientID, r.Reason} }

func (p ListQuery) audited() adminRecord { return adminRecord{} }

// ClientPage is the answer of /client/list.
type ClientPage struct {
	Clients []ClientInfo `json:"clients"`
	Next    string       `json:"next,omitempty"` // cursor of the next page; empty after the last
}

func (s *Server) adminClientList(ctx context.Context, page ListQuery) (ClientPage, error) {
	ids, next, err := s.adminPage(ctx, "client", s.clients.catalogue, slices.Sorted(maps.Keys(s.clients.described)), page)
	if err != nil {
		return ClientPage{}, err
	}
	answer := ClientPage{Clients: []ClientInfo{}, Next: next}
	records, err := getAll(ctx, s.store, ids, s.clients.records.Key)
	if err != nil {
		return ClientPage{}, err
	}
	for i, id := range ids {
		info, exists, err := s.clientInfo(id, records[i])
		if err != nil {
			return ClientPage{}, err
		}
		if exists {
			answer.Clients = append(answer.Clients, info)
		}
	}
	return answer, nil
}

// getAll gets one record for each id.
func getAll(ctx context.Context, s store.Store, ids []string, key func(id string) string) ([]store.Record, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = key(id)
	}
	records, err := s.Get(ctx, keys...)
	if err != nil {
		return nil, unavailable(fmt.Errorf("reading a list: %w", err))
	}
	return records, nil
}

// clientInfo describes a client by its configuration or its record.
func (s *Server) clientInfo(id string, record store.Record) (ClientInfo, bool, error) {
	if described, configured := s.clients.described[id]; configured {
		return ClientInfo{Client: described, Source: SourceConfiguration}, true, nil
	}
	if !record.Exists() {
		return ClientInfo{}, false, nil
	}
	stored, err := s.clients.records.Decode(record)
	info := ClientInfo{Client: stored.Client, Source: SourceStore, Disabled: stored.Disabled, Created: stored.Created}
	for _, secret := range stored.Secrets {
		if secret.live(time.Now()) {
			info.Secrets = append(info.Secrets, SecretInfo{secret.Created, secret.Expires})
		}
	}
	return info, err == nil, err
}

func (s *Server) adminClientShow(ctx context.Context, ref ClientRef) (ClientInfo, error) {
	info, exists, err := ClientInfo{}, false, error(nil)
	if isClientID(ref.ClientID) {
		var records []store.Record
		if records, err = s.store.Get(ctx, s.clients.records.Key(ref.ClientID)); err != nil {
			return info, unavailable(fmt.Errorf("reading a client: %w", err))
		}
		info, exists, err = s.clientInfo(ref.ClientID, records[0])
	}
	if err == nil && !exists {
		err = noSuchClient(ref.ClientID)
	}
	return info, err
}

func noSuchClient(id string) *AdminError {
	return adminNotFound("there is no client %q", id).hint("authserver client list shows all")
}

// ClientAdd asks for a new client. Without a ClientID one is made.
type ClientAdd struct{ Client }

func (a ClientAdd) audited() adminRecord { return adminRecord{whom: a.ClientID} }

// ClientSecretAnswer is a client and the secret that was made for it, which is
// shown this once.
type ClientSecretAnswer struct {
	Client       ClientInfo `json:"client"`
	ClientSecret string     `json:"client_secret,omitempty"`
}

func (s *Server) adminClientAdd(ctx context.Context, request ClientAdd) (ClientSecretAnswer, error) {
	stored, secret, err := s.addClient(ctx, request.Client, store.Forever)
	if err != nil {
		return ClientSecretAnswer{}, err
	}
	info, err := s.adminClientShow(ctx, ClientRef{ClientID: stored.ClientID})
	return ClientSecretAnswer{info, secret}, err
}

// ClientSecretRequest asks for a new secret. The old ones work for Overlap more seconds.
type ClientSecretRequest struct {
	ClientRef
	Overlap int64 `json:"overlap,omitempty"`
}

const maxOverlap = 90 * 24 * time.Hour

func (s *Server) adminClientSecret(ctx context.Context, request ClientSecretRequest) (ClientSecretAnswer, error) {
	if request.Overlap < 0 || request.Overlap > int64(maxOverlap.Seconds()) {
		return ClientSecretAnswer{}, adminBadRequest("the overlap is out of bounds; allowed are 0 to %s", maxOverlap)
	}
	now, secret := time.Now(), newSecret()
	err := s.updateClient(ctx, request.ClientID, func(stored *storedClient) error {
		if len(stored.Secrets) == 0 {
			return adminRefusal(409, "conflict", "client %q has no secret: it authenticates with %s", stored.ClientID, describeAuth(stored.Client))
		}
		kept := []clientSecret{newClientSecret(secret)}
		kept[0].Created = now.Unix()
		for _, old := range stored.Secrets {
			if end := now.Unix() + request.Overlap; old.Expires == 0 || old.Expires > end {
				old.Expires = end
			}
			if old.live(now) && len(kept) < maxSecrets {
				kept = append(kept, old)
			}
		}
		stored.Secrets = kept
		return nil
	})
	if err != nil {
		return ClientSecretAnswer{}, err
	}
	info, err := s.adminClientShow(ctx, request.ClientRef)
	return ClientSecretAnswer{info, secret}, err
}

func describeAuth(c Client) string {
	if methods := c.authMethods(false); len(methods) > 0 && methods[0] != methodNone {
		return methods[0]
	}
	return "nothing, it is public"
}

func (s *Server) adminClientDisable(ctx context.Context, ref ClientRef) (ClientInfo, error) {
	if err := s.disableClient(ctx, ref.ClientID, orReason(ref.Reason, reasonByOperator)); err != nil {
		return ClientInfo{}, err
	}
	return s.adminClientShow(ctx, ref)
}

func (s *Server) adminClientEnable(ctx context.Context, ref ClientRef) (ClientInfo, error) {
	err := s.updateClient(ctx, ref.ClientID, func(stored *storedClient) error { stored.Disabled = false; return nil })
	if err != nil {
		return ClientInfo{}, err
	}
	return s.adminClientShow(ctx, ref)
}

func (s *Server) adminClientRemove(ctx context.Context, ref ClientRef) (ClientInfo, error) {
	info, err := s.adminClientShow(ctx, ref)
	if err == nil {
		err = s.removeClient(ctx, ref.ClientID, orReason(ref.Reason, reasonByOperator))
	}
	return info, err
}

const reasonByOperator = "operator"

func orReason(reason, otherwise string) string {
	if reason == "" {
		return otherwise
	}
	return reason
}

// adminPage returns the ids on one page of a catalogue and the next cursor.
func (s *Server) adminPage(ctx context.Context, list string, c catalogue, configured []string, page ListQuery) ([]string, string, error) {
	limit, err := page.limit()
	if err != nil {
		return nil, "", err
	}
	at, err := s.positionOf(list, page.Cursor)
	if err != nil {
		return nil, "", err
	}
	ids, last, done, err := c.page(ctx, configured, at, limit)
	if err != nil || done {
		return ids, "", err
	}
	next, err := s.cursor(list, last)
	return ids, next, errors.Join(err)
}
