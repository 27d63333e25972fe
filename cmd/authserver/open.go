package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"authserver/keys"
	"authserver/store"
	"authserver/store/boltstore"
	"authserver/store/guard"
	"authserver/store/redisstore"
)

// openedStore is a store and what can be said of it.
type openedStore struct {
	store.Store
	description string
	mayLose     time.Duration                                // of what it acknowledged
	durability  string                                       // what an acknowledged write survives
	clock       store.Clock                                  // nil where the store has none of its own
	backup      func(ctx context.Context, w io.Writer) error // nil where the store makes its own
}

// Do implements store.Batcher.
func (o *openedStore) Do(ctx context.Context, b store.Batch) ([]store.Record, error) {
	return store.Do(ctx, o.Store, b)
}

// openGuarded opens the store and makes certain that it is the one that this instance
// knows, in steps of a start.
func openGuarded(ctx context.Context, config *config, log *slog.Logger, step func(func() error) error) (opened *openedStore, guarded *guard.Store, err error) {
	once := slog.New(onceHandler{log.Handler(), new(sync.Map)})
	if err := step(func() (err error) { opened, err = openStore(ctx, config, once); return err }); err != nil {
		return nil, nil, err
	}
	if err := step(func() (err error) {
		guarded, err = guard.Open(ctx, opened.Store, guard.Options{Directory: config.Data, MayLose: opened.mayLose,
			Replicated: opened.durability == redisstore.Replicated, Skew: keys.ClockSkew, Logger: log})
		return err
	}); err != nil {
		opened.Close()
		if lost := new(guard.LostError); errors.As(err, &lost) {
			log.Error("the store is not used", "event", "store", "error", err.Error())
			err = withHint(err, "put the right store back, or see `authserver store accept --help`")
		}
		return nil, nil, err
	}
	opened.clock, _ = opened.Store.(store.Clock)
	opened.Store = guarded
	return opened, guarded, nil
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
	return &openedStore{Store: opened, description: path, durability: redisstore.Fsync, backup: opened.Backup}, nil
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
	return syncDirectory(filepath.Dir(name))
}

// syncDirectory makes the names in a directory durable.
func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}
