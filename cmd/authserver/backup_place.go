package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"authserver/authserver"
	"authserver/store/boltstore"
	"authserver/store/guard"
)

// storePlace is where the embedded store of a data directory is, while no server may
// use it.
type storePlace struct {
	data    string
	admin   *authserver.AdminListener // no server of this data directory serves meanwhile
	present io.Closer                 // the lock of the store that is there; nil where there is none
}

// claimStore keeps servers from using the embedded store of a data directory.
func claimStore(data string) (*storePlace, error) {
	running := func(err error) error {
		return withHint(fmt.Errorf("the server is running: %w", err), "stop it first; a backup is restored while nobody uses the store")
	}
	admin, err := authserver.ListenAdmin(adminSocket(data))
	if errors.Is(err, authserver.ErrAdminInUse) {
		return nil, running(err)
	} else if err != nil {
		return nil, err
	}
	p := &storePlace{data: data, admin: admin}
	if _, err := os.Lstat(p.path()); errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	present, err := boltstore.Claim(p.path())
	if errors.Is(err, boltstore.ErrInUse) {
		admin.Close()
		return nil, running(err)
	}
	if err == nil { // one that cannot be opened is what backups are for
		p.present = present
	}
	return p, nil
}

func (p *storePlace) path() string { return filepath.Join(p.data, "store.db") }

func (p *storePlace) release() error {
	var err error
	if p.present != nil {
		err = p.present.Close()
	}
	return errors.Join(err, p.admin.Close())
}

// replace puts a store in the place and returns the name that the one that was there
// has now. At any instant the place holds one or the other. What the data directory
// expects comes first: if that is all that happens, the server refuses to start.
func (p *storePlace) replace(ctx context.Context, restored string) (aside string, err error) {
	opened, err := boltstore.Open(restored)
	if err != nil {
		return "", err
	}
	_, err = guard.Restored(ctx, opened, p.data)
	if err = errors.Join(err, opened.Close()); err != nil {
		return "", fmt.Errorf("the backup's store: %w", err)
	}
	if _, err := os.Lstat(p.path()); err == nil {
		aside = filepath.Join(p.data, "store-replaced-"+time.Now().UTC().Format("20060102T150405.000Z")+".db")
		if err := os.Link(p.path(), aside); err != nil {
			return "", fmt.Errorf("keeping the store that is there: %w", err)
		}
	}
	if err := os.Rename(restored, p.path()); err != nil {
		return aside, err
	}
	return aside, syncDirectory(p.data)
}
