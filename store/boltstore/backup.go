package boltstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// A backup is a copy of the store's file, followed by one line with the SHA-256 of the
// copy. Without the line, or with another digest, it is cut short or damaged.
const (
	backupMark   = "\nauthserver backup 1 sha256 "
	backupFooter = len(backupMark) + 2*sha256.Size + 1 // bytes
)

// Backup writes a backup of the store as it is at this moment, while others read and
// write it. Pages that are replaced meanwhile are kept until it ends, so that the file
// may grow.
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	digest := sha256.New()
	err := s.db.View(func(tx *bbolt.Tx) error {
		_, err := tx.WriteTo(io.MultiWriter(writerUntil{ctx, w}, digest))
		return err
	})
	if err == nil {
		_, err = io.WriteString(w, backupMark+hex.EncodeToString(digest.Sum(nil))+"\n")
	}
	if err != nil {
		return fmt.Errorf("writing a backup: %w", err)
	}
	return nil
}

// writerUntil writes until ctx ends.
type writerUntil struct {
	ctx context.Context
	w   io.Writer
}

func (u writerUntil) Write(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.w.Write(b)
}

// Unpack checks a backup of so many bytes and writes the store's file that is in it.
// What it has written is of no use when it fails.
func Unpack(backup io.ReaderAt, size int64, into io.Writer) error {
	notOne := errors.New("it is not a whole backup made by `authserver backup`: it has another ending")
	length := size - int64(backupFooter)
	if length <= 0 {
		return notOne
	}
	footer := make([]byte, backupFooter)
	if _, err := backup.ReadAt(footer, length); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	named, is := bytes.CutPrefix(footer, []byte(backupMark))
	if !is {
		return notOne
	}
	digest := sha256.New()
	if _, err := io.Copy(io.MultiWriter(into, digest), io.NewSectionReader(backup, 0, length)); err != nil {
		return err
	}
	if string(named) != hex.EncodeToString(digest.Sum(nil))+"\n" {
		return errors.New("it is damaged: its content has another SHA-256 than its last line says")
	}
	return nil
}

// Claim keeps every process from opening a store's file until it is closed, and changes
// nothing in it. While another process has it open, the error is ErrInUse.
func Claim(path string) (io.Closer, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%s is %w", path, ErrInUse)
	}
	return db, err
}

// Verify reads all of a store's file that no process uses and returns what is wrong
// with it.
func Verify(path string) (err error) {
	defer func() {
		if p := recover(); p != nil { // bbolt panics on pages that make no sense
			err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	if _, err := os.Stat(path); err != nil {
		return err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.View(func(tx *bbolt.Tx) error {
		var wrong error
		for found := range tx.Check() {
			if wrong == nil {
				wrong = fmt.Errorf("%w: %w", errDamaged, found)
			}
		}
		for _, name := range [][]byte{records, counters, indexes, logs, expiries} {
			if wrong == nil && tx.Bucket(name) == nil {
				wrong = fmt.Errorf("it is not a store of authserver: it has no %s", name)
			}
		}
		return wrong
	})
}
