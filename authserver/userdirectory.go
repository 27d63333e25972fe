package authserver

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"authserver/store"
)

// errNoUser says that no such user may do anything here now: he is unknown, or
// disabled. The reason is for the log.
var errNoUser = errors.New("no such user")

// storedUser is the record user/<sub>. For a configured user it holds no more than
// whether he was disabled.
type storedUser struct {
	Username string         `json:"username,omitempty"`
	Roles    []string       `json:"roles,omitempty"`
	Claims   map[string]any `json:"claims,omitempty"`
	Disabled bool           `json:"disabled,omitempty"`
	Created  int64          `json:"created,omitempty"` // seconds since 1970
}

// userDirectory knows all users. Who is configured is known by heart, everything
// else is in the store: the other users, and who was disabled.
type userDirectory struct {
	configured map[string]configuredUser // by subject
	names      map[string]string         // subjects of the configured by folded username
	clients    map[string]bool           // the ids of configured clients, which are no user's subject
	catalogue  catalogue                 // of the stored users' subjects
	records    store.Table[storedUser]
	store      store.Store
	notBefore  func() int64
	lookups    *remembered[knownUser] // by subject
}

type configuredUser struct {
	user
	disabled bool
}

// knownUser is a user and whether he is disabled.
type knownUser struct {
	user     user
	exists   bool
	disabled bool
}

func newUserDirectory(configured []User, clients []Client, s store.Store, notBefore func() int64) *userDirectory {
	d := &userDirectory{
		configured: make(map[string]configuredUser),
		names:      make(map[string]string),
		clients:    make(map[string]bool),
		catalogue:  catalogue{s, "users"},
		records:    store.Table[storedUser]{Store: s, Name: "user"},
		store:      s,
		notBefore:  notBefore,
	}
	d.lookups = remember(d.load)
	for _, c := range clients {
		d.clients[c.ClientID] = true
	}
	for _, u := range configured {
		compiled := user{subject: u.subject(), username: u.Username, roles: u.Roles, claims: u.Claims, hash: u.PasswordHash}
		d.configured[compiled.subject] = configuredUser{compiled, u.Disabled}
		d.names[foldUsername(u.Username)] = compiled.subject
	}
	return d
}

// bySubject returns the user with a subject identifier, errNoUser if he may do
// nothing here, or a refusal when the store does not answer.
func (d *userDirectory) bySubject(ctx context.Context, subject string) (user, error) {
	if !isSubject(subject) {
		return user{}, fmt.Errorf("%w: he is unknown", errNoUser)
	}
	known, _, err := d.lookups.get(ctx, subject)
	if err != nil {
		return user{}, unavailable(fmt.Errorf("looking up a user: %w", err))
	}
	return known.active()
}

// confirmed is bySubject as the store says it now, or said it within a second.
func (d *userDirectory) confirmed(ctx context.Context, subject string) (user, error) {
	known, _, err := d.lookups.confirmed(ctx, subject)
	if err != nil {
		return user{}, unavailable(fmt.Errorf("looking up a user: %w", err))
	}
	return known.active()
}

func (k knownUser) active() (user, error) {
	switch {
	case !k.exists:
		return user{}, fmt.Errorf("%w: he is unknown", errNoUser)
	case k.disabled:
		return user{}, fmt.Errorf("%w: he is disabled", errNoUser)
	}
	return k.user, nil
}

// byName is bySubject for a username in any spelling. The store is asked for everybody
// alike, also for who is remembered, configured or unknown, so that all take as long
// (ATTACKS BF-06).
func (d *userDirectory) byName(ctx context.Context, username string) (user, error) {
	name := foldUsername(username)
	subject, exists, err := d.loadName(ctx, name)
	if err != nil {
		return user{}, unavailable(fmt.Errorf("looking up a username: %w", err))
	}
	if configured := d.names[name]; configured != "" {
		subject = configured
	} else if !exists {
		subject = "nobody"
	}
	known, _, err := d.load(ctx, subject)
	if err != nil {
		return user{}, unavailable(fmt.Errorf("looking up a user: %w", err))
	}
	u, err := known.active()
	if err == nil && foldUsername(u.username) != name {
		return user{}, fmt.Errorf("%w: he is unknown", errNoUser)
	}
	return u, err
}

func (d *userDirectory) load(ctx context.Context, subject string) (knownUser, bool, error) {
	records, err := d.store.Get(ctx, d.keys(subject)...)
	if err != nil {
		return knownUser{}, false, err
	}
	known, err := d.read(subject, records)
	return known, known.exists, err
}

// keys are the store's keys of what it knows of a user, for read.
func (d *userDirectory) keys(subject string) []string {
	return []string{d.records.Key(subject), epochKey(subjectEpoch, subject)}
}

// read makes a user of the records of keys.
func (d *userDirectory) read(subject string, records []store.Record) (knownUser, error) {
	var stored storedUser
	var err error
	if records[0].Exists() {
		if stored, err = d.records.Decode(records[0]); err != nil {
			return knownUser{}, err
		}
	}
	epoch, err := readEpoch(records[1], d.notBefore())
	if err != nil {
		return knownUser{}, err
	}
	configured, exists := d.configured[subject]
	known := knownUser{user: configured.user, exists: exists, disabled: configured.disabled || stored.Disabled || d.clients[subject]} // RFC 9700 §4.15
	if !exists {
		known.exists = stored.Username != ""
		known.user = user{subject: subject, username: stored.Username, roles: stored.Roles, claims: stored.Claims}
	}
	known.user.epoch = epoch
	return known, nil
}

func (d *userDirectory) loadName(ctx context.Context, name string) (string, bool, error) {
	records, err := d.store.Get(ctx, usernameKey(name))
	if err != nil {
		return "", false, err
	}
	return string(records[0].Value), records[0].Exists(), nil
}

// usernameKey is the store's key of the subject that has a folded username.
func usernameKey(folded string) string { return "username/" + hashed(folded) }

// changed makes this instance see at once what was changed of a user.
func (d *userDirectory) changed(subject string) { d.lookups.forget(subject) }

// isSubject is OpenID Connect Core §2: at most 255 ASCII characters, here printable.
func isSubject(subject string) bool {
	return subject != "" && len(subject) <= 255 && !strings.ContainsFunc(subject, notVSCHAR)
}
