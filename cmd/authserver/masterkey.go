package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"authserver/authserver"
	"authserver/keys"
	"authserver/keys/remote"
	"authserver/store"
)

// credentialName is what the systemd credential with the master keys is called:
// LoadCredential=master.key:/etc/authserver/master.key
const credentialName = "master.key"

// credential takes the master keys from a systemd credential, if the unit has one
// and the configuration names no other place.
func (c *config) credential(environ []string) {
	if c.MasterKey != "" || c.MasterKeyFile != "" {
		return
	}
	for _, entry := range environ {
		if directory, ok := strings.CutPrefix(entry, "CREDENTIALS_DIRECTORY="); ok && directory != "" {
			name := filepath.Join(directory, credentialName)
			if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
				c.MasterKeyFile = name
			}
		}
	}
}

// masterKeys returns the master keys, the one that seals first. It makes one only
// where nothing is sealed yet: keys that cannot be opened any more must be noticed,
// not replaced. None at all is left to keys.Open, which says what is missing.
func masterKeys(ctx context.Context, config *config, opened store.Store, log *slog.Logger) ([]keys.MasterKey, error) {
	if config.MasterKey != "" {
		masters, err := keys.ParseMasterKeys([]byte(config.MasterKey))
		if err != nil {
			return nil, fmt.Errorf("master_key: %w", err)
		}
		return masters, nil
	}
	name := config.MasterKeyFile
	text, mode, err := readFile(name, maxSecretFile)
	if errors.Is(err, fs.ErrNotExist) {
		return newMasterKey(ctx, name, opened, log)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the master key: %w", err)
	}
	if mode.Perm()&0o007 != 0 {
		return nil, withHint(fmt.Errorf("the master key file %s is open to every user of this machine (mode %04o)",
			name, mode.Perm()), "chmod 600 %s", name)
	}
	masters, err := keys.ParseMasterKeys(text)
	if err != nil {
		return nil, fmt.Errorf("reading the master key %s: %w", name, err)
	}
	return masters, nil
}

// dialBackend connects to the process that keeps the keys.
func dialBackend(ctx context.Context, socket string) (keys.Backend, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	backend, err := remote.Dial(ctx, socket)
	if err != nil {
		return nil, withHint(fmt.Errorf("keys.backend: %w", err), "start the process that keeps the keys, for example authserver-pkcs11 --socket %s", socket)
	}
	return backend, nil
}

func newMasterKey(ctx context.Context, name string, opened store.Store, log *slog.Logger) ([]keys.MasterKey, error) {
	_, version, err := authserver.KeyStore(opened).Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking for keys in the store: %w", err)
	}
	if version != 0 {
		// keys.Open says which master key the stored keys want.
		log.Error("the store holds sealed keys, but the master key file is missing", "file", name)
		return nil, nil
	}
	master, err := keys.NewMasterKey()
	if err != nil {
		return nil, fmt.Errorf("making a master key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("making a place for the master key: %w", err)
	}
	if err := writeDurably(name, master.Text()); err != nil {
		return nil, fmt.Errorf("writing the master key: %w", err)
	}
	log.Info("created the master key: keep a copy, without it the signing keys are lost", "event", "master_key", "file", name, "id", master.ID())
	return []keys.MasterKey{master}, nil
}
