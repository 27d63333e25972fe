package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"authserver/authserver"
	"authserver/keys"
	"authserver/store"
	"authserver/store/boltstore"
)

// openedStore is a store and what can be said of it.
type openedStore struct {
	store.Store
	description string
	durability  string // what an acknowledged write survives
}

// openStore opens the store that the configuration names.
func openStore(ctx context.Context, config *config, log *slog.Logger) (*openedStore, error) {
	if config.Store != "" {
		return openRedis(ctx, config, log)
	}
	if err := makeDirectory(config.Data, log); err != nil {
		return nil, err
	}
	path := filepath.Join(config.Data, "store.db")
	_, statErr := os.Stat(path)
	opened, err := boltstore.Open(path)
	if err != nil {
		return nil, err
	}
	if errors.Is(statErr, fs.ErrNotExist) {
		log.Info("created the embedded store", "file", path)
	}
	return &openedStore{opened, path, "fsync"}, nil
}

func makeDirectory(path string, log *slog.Logger) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && !info.IsDir():
		return withHint(fmt.Errorf("data: %s is a file, not a directory", path), "name another directory with data")
	case err == nil:
		return nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return withHint(fmt.Errorf("data: making the directory: %w", err), "name a directory that this user may write to with data")
	}
	log.Info("created the data directory", "directory", path)
	return nil
}

// masterKey returns the master key. It makes one only where nothing is sealed yet:
// keys that cannot be opened any more must be noticed, not replaced.
func masterKey(ctx context.Context, config *config, opened store.Store, log *slog.Logger) (keys.MasterKey, error) {
	if config.MasterKey != "" {
		master, err := keys.ParseMasterKey([]byte(config.MasterKey))
		if err != nil {
			return master, fmt.Errorf("master_key: %w", err)
		}
		return master, nil
	}
	name := config.MasterKeyFile
	text, mode, err := readFile(name, maxSecretFile)
	if errors.Is(err, fs.ErrNotExist) {
		return newMasterKey(ctx, name, opened, log)
	}
	if err != nil {
		return keys.MasterKey{}, fmt.Errorf("reading the master key: %w", err)
	}
	if mode.Perm()&0o007 != 0 {
		return keys.MasterKey{}, withHint(fmt.Errorf("the master key file %s is open to every user of this machine (mode %04o)",
			name, mode.Perm()), "chmod 600 %s", name)
	}
	master, err := keys.ParseMasterKey(text)
	if err != nil {
		return master, fmt.Errorf("reading the master key %s: %w", name, err)
	}
	return master, nil
}

func newMasterKey(ctx context.Context, name string, opened store.Store, log *slog.Logger) (keys.MasterKey, error) {
	_, version, err := authserver.KeyStore(opened).Load(ctx)
	if err != nil {
		return keys.MasterKey{}, fmt.Errorf("looking for keys in the store: %w", err)
	}
	if version != 0 {
		// keys.Open says which master key the stored keys want.
		log.Error("the store holds sealed keys, but the master key file is missing", "file", name)
		return keys.MasterKey{}, nil
	}
	master, err := keys.NewMasterKey()
	if err != nil {
		return master, fmt.Errorf("making a master key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return master, fmt.Errorf("making a place for the master key: %w", err)
	}
	if err := writeDurably(name, master.Text()); err != nil {
		return keys.MasterKey{}, fmt.Errorf("writing the master key: %w", err)
	}
	log.Info("created the master key: keep a copy, without it the signing keys are lost", "file", name, "id", master.ID())
	return master, nil
}

// writeDurably makes a file for its owner only. When it returns, the file survives
// a power cut: keys that are sealed with it would be lost otherwise.
func writeDurably(name string, content []byte) error {
	// O_EXCL: never over a key that another process has just made.
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	directory, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}
