package authserver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"authserver/store"
)

// errNoClient says that no such client may do anything here now: it is unknown, or
// disabled. The reason is for the log.
var errNoClient = errors.New("no such client")

// storedClient is the record client/<client_id> of a client that is not in the
// configuration.
type storedClient struct {
	Client
	Secrets  []clientSecret `json:"secrets,omitempty"`
	Disabled bool           `json:"disabled,omitempty"`
	Created  int64          `json:"created"` // seconds since 1970
}

// clientDirectory knows all clients: the configured ones by heart, the others from
// the store.
type clientDirectory struct {
	configured map[string]*client
	described  map[string]Client // the configured clients as they were described
	subjects   map[string]bool   // of configured users, which are no client's id
	catalogue  catalogue         // of the stored clients
	origins    map[string]bool   // of the configured clients' redirect URIs
	nobody     *client           // stands in for unknown clients, so that they cost the same
	records    store.Table[storedClient]
	store      store.Store
	notBefore  func() int64
	lookups    *remembered[knownClient] // by client_id
	byOrigin   *remembered[struct{}]    // by origin: whether it is a stored client's
}

// knownClient is what the store says of a client.
type knownClient struct {
	client   *client // nil for a configured one
	disabled bool
	epoch    epoch
}

func newClientDirectory(configured []Client, users []User, s store.Store, notBefore func() int64) (*clientDirectory, error) {
	d := &clientDirectory{
		configured: make(map[string]*client, len(configured)),
		described:  make(map[string]Client, len(configured)),
		subjects:   make(map[string]bool, len(users)),
		catalogue:  catalogue{s, "clients"},
		origins:    make(map[string]bool),
		nobody:     &client{secrets: []clientSecret{newClientSecret(newID())}},
		records:    store.Table[storedClient]{Store: s, Name: "client"},
		store:      s,
		notBefore:  notBefore,
	}
	d.lookups, d.byOrigin = remember(d.load), remember(d.loadOrigin)
	for _, u := range users {
		d.subjects[u.subject()] = true
	}
	for _, c := range configured {
		var secrets []clientSecret
		if c.ClientSecret != "" {
			secrets = append(secrets, newClientSecret(c.ClientSecret))
		}
		compiled, err := newClient(c, secrets)
		if err != nil {
			return nil, err
		}
		d.configured[c.ClientID], d.described[c.ClientID] = compiled, c
		for _, origin := range originsOf(c) {
			d.origins[origin] = true
		}
	}
	return d, nil
}

// find returns the client with an id, errNoClient if it may do nothing here, or a
// refusal when the store is needed and does not answer.
func (d *clientDirectory) find(ctx context.Context, id string) (*client, error) {
	if c := d.configured[id]; c != nil {
		return c, nil
	}
	known, err := d.lookUp(ctx, id)
	if err != nil {
		return nil, err
	}
	return known.active()
}

func (k knownClient) active() (*client, error) {
	switch {
	case k.disabled:
		return nil, fmt.Errorf("%w: it is disabled", errNoClient)
	case k.client == nil:
		return nil, fmt.Errorf("%w: it is unknown", errNoClient)
	}
	return k.client, nil
}

// epoch returns the epoch of a client: what it was granted before it is dead.
func (d *clientDirectory) epoch(ctx context.Context, id string) (epoch, error) {
	known, err := d.lookUp(ctx, id)
	return known.epoch, err
}

// confirmedEpoch is epoch as the store says it now, or said it within a second.
func (d *clientDirectory) confirmedEpoch(ctx context.Context, id string) (epoch, error) {
	if !isClientID(id) {
		return epoch{}, errNoClient
	}
	known, _, err := d.lookups.confirmed(ctx, id)
	if err != nil {
		return epoch{}, unavailable(fmt.Errorf("looking up a client: %w", err))
	}
	return known.epoch, nil
}

// latestEpoch is the number of the epoch of a client as far as it is known, also when
// the store has not answered for long. A token that names an epoch that has ended is
// dead: that does no harm.
func (d *clientDirectory) latestEpoch(ctx context.Context, id string) uint64 {
	known, _, err := d.lookups.within(ctx, id, math.MaxInt64)
	if err != nil {
		return 0
	}
	return known.epoch.number
}

func (d *clientDirectory) lookUp(ctx context.Context, id string) (knownClient, error) {
	if !isClientID(id) {
		return knownClient{}, nil
	}
	known, _, err := d.lookups.get(ctx, id)
	if err != nil {
		return knownClient{}, unavailable(fmt.Errorf("looking up a client: %w", err))
	}
	return known, nil
}

func (d *clientDirectory) load(ctx context.Context, id string) (knownClient, bool, error) {
	records, err := d.store.Get(ctx, d.keys(id)...)
	if err != nil {
		return knownClient{}, false, err
	}
	known, err := d.read(id, records)
	return known, known.client != nil || d.configured[id] != nil, err
}

// keys are the store's keys of what it knows of a client, for read.
func (d *clientDirectory) keys(id string) []string {
	return []string{d.records.Key(id), epochKey(clientEpoch, id)}
}

// read makes a client of the records of keys.
func (d *clientDirectory) read(id string, records []store.Record) (known knownClient, err error) {
	if known.epoch, err = readEpoch(records[1], d.notBefore()); err != nil || !records[0].Exists() || d.configured[id] != nil {
		return known, err
	}
	stored, err := d.records.Decode(records[0])
	if err != nil {
		return known, err
	}
	known.disabled = stored.Disabled || d.subjects[id] // RFC 9700 §4.15: added before the user was configured
	if known.client, err = newClient(stored.Client, stored.Secrets); err == nil {
		known.client.created = stored.Created
	}
	return known, err
}

// changed makes this instance see at once what was changed of a client.
func (d *clientDirectory) changed(id string) { d.lookups.forget(id) }

// isClientID is RFC 6749 appendix A.1, with a bound.
func isClientID(id string) bool {
	return id != "" && len(id) <= 256 && !strings.ContainsFunc(id, notVSCHAR)
}

// allows reports whether an origin is that of a client's redirect URI.
func (d *clientDirectory) allows(ctx context.Context, origin string) bool {
	if d.origins[origin] {
		return true
	}
	if origin == "" || len(origin) > 300 || originOf(origin) != origin {
		return false
	}
	_, exists, err := d.byOrigin.get(ctx, origin)
	return err == nil && exists
}

// maxSharing bounds how many clients are looked at to find one that an origin is of.
const maxSharing = 10

func (d *clientDirectory) loadOrigin(ctx context.Context, origin string) (struct{}, bool, error) {
	looked := 0
	for member, err := range d.store.Linked(ctx, originIndex(origin), store.Member{}) {
		if err != nil {
			return struct{}{}, false, err
		}
		if _, err := d.find(ctx, member.Name); err == nil {
			return struct{}{}, true, nil
		} else if !errors.Is(err, errNoClient) {
			return struct{}{}, false, err
		}
		if looked++; looked == maxSharing {
			break
		}
	}
	return struct{}{}, false, nil
}

// originIndex names the index of the stored clients whose redirect URIs have an origin.
func originIndex(origin string) string { return "clients/origin/" + hashed(origin) }

// originsOf returns the web origins of a client's redirect URIs.
func originsOf(c Client) []string {
	var origins []string
	for _, uri := range c.RedirectURIs {
		if origin := originOf(uri); origin != "" {
			origins = append(origins, origin)
		}
	}
	return origins
}
