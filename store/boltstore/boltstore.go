// Package boltstore is the embedded store: one bbolt file, used by one process at
// a time. What a method has acknowledged is on disk.
//
// One goroutine writes. It takes all operations that are waiting, runs them in one
// transaction and answers them after one fsync, so that parallel callers share
// its cost and a lone caller waits for nobody.
package boltstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"authserver/store"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

var (
	records  = []byte("records")  // key → record
	counters = []byte("counters") // key → expiry, count
	indexes  = []byte("indexes")  // index, 0, member → expiry
	logs     = []byte("logs")     // log, 0, position → event
	expiries = []byte("expiries") // expiry, bucket, key → nothing
)

const (
	queued    = 1024 // operations that wait at most
	perCommit = 256  // operations in one transaction at most
	sweepIdle = 10 * time.Second
	growBy    = 1 << 20 // bytes that the file becomes longer at a time
)

// mapped is the address space that the file may fill. A file that outgrows it is mapped
// anew, for which bbolt waits until nobody reads, and lets nobody begin to: a backup
// whose reader has stopped would hold up every request.
var mapped = min(int64(64<<30), int64(math.MaxInt/4))

// Store is a store.Store in a file.
type Store struct {
	db     *bbolt.DB
	queue  chan *operation
	closed chan struct{} // no more operations
	done   chan struct{} // the writer has ended
	close  sync.Once

	grown bool // by the transaction under way, the writer's alone

	mu       sync.Mutex
	failed   error         // why writes are refused for good
	appended chan struct{} // closed and replaced when a log grows
}

// operation is one write that waits for its transaction.
type operation struct {
	ctx    context.Context
	run    func(tx *bbolt.Tx) error // a sentinel of package store before it writes, errDamaged, or trouble
	result error
	done   chan struct{}
}

// ErrInUse says that another process has the file open.
var ErrInUse = errors.New("in use by another authserver process")

// Open opens the store in a file, which it creates with mode 0600 if it does not
// exist. While another process has the file open, it fails within a second.
func Open(path string) (*Store, error) {
	_, statErr := os.Stat(path)
	var file *os.File
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, InitialMmapSize: int(mapped),
		OpenFile: func(name string, flag int, mode os.FileMode) (opened *os.File, err error) {
			if file, err = os.OpenFile(name, flag, mode); err != nil {
				return nil, err
			}
			if err := whole(file); err != nil {
				return nil, errors.Join(err, file.Close())
			}
			return file, nil
		},
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("opening the store: %s is %w; "+
			"the embedded store serves one process at a time: stop the other one, or use Redis for several", path, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the store %s: %w", path, err)
	}
	if err := inPlace(file, path); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the store %s: %w", path, err), db.Close())
	}
	db.AllocSize = growBy
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{records, counters, indexes, logs, expiries} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && errors.Is(statErr, os.ErrNotExist) {
		err = syncDirectory(filepath.Dir(path))
	}
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("preparing the store %s: %w", path, err)
	}
	s := &Store{
		db: db, queue: make(chan *operation, queued),
		closed: make(chan struct{}), done: make(chan struct{}), appended: make(chan struct{}),
	}
	go s.write()
	return s, nil
}

// inPlace returns an error if another file has come to path since file was opened, as
// when a backup was restored while this process waited for the lock.
func inPlace(file *os.File, path string) error {
	opened, err := file.Stat()
	if err != nil {
		return err
	}
	present, err := os.Stat(path)
	if err == nil && !os.SameFile(opened, present) {
		err = errors.New("the file was replaced while it was opened; try again")
	}
	return err
}

// syncDirectory makes a new file's name durable.
func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	defer directory.Close()
	return directory.Sync()
}

// Close finishes what is queued and closes the file.
func (s *Store) Close() error {
	err := errClosed
	s.close.Do(func() {
		close(s.closed)
		<-s.done
		s.leaveFreelist()
		err = s.db.Close()
	})
	return err
}

// leaveFreelist writes which pages are free, which commits do not, since it would be
// written anew by each. The next start reads that instead of the whole file. Where it
// cannot be written, it does read the file, as after a crash.
func (s *Store) leaveFreelist() {
	if s.failure() == nil {
		s.db.NoFreelistSync = false
		_ = s.db.Update(func(*bbolt.Tx) error { return nil })
	}
}

var errClosed = errors.New("the store is closed")

// Ping reports whether the store takes writes.
func (s *Store) Ping(ctx context.Context) error {
	return s.update(ctx, func(*bbolt.Tx) error { return nil })
}

// update runs an operation in the next transaction and returns when it is on disk.
func (s *Store) update(ctx context.Context, run func(tx *bbolt.Tx) error) error {
	op := &operation{ctx: ctx, run: run, done: make(chan struct{})}
	select {
	case <-s.closed:
		return errClosed
	default:
	}
	select {
	case s.queue <- op:
	case <-s.closed:
		return errClosed
	case <-ctx.Done():
		return fmt.Errorf("waiting for the store: %w", ctx.Err())
	}
	select {
	case <-op.done:
		return op.result
	case <-ctx.Done():
		return fmt.Errorf("waiting for the store: %w", ctx.Err())
	case <-s.done:
		select { // the writer may have answered while it ended
		case <-op.done:
			return op.result
		default:
			return errClosed
		}
	}
}

// write is the writer.
func (s *Store) write() {
	defer close(s.done)
	idle := time.NewTicker(sweepIdle)
	defer idle.Stop()
	for {
		var batch []*operation
		select {
		case op := <-s.queue:
			batch = s.gather(op)
		case <-idle.C: // an idle store empties itself, too
		case <-s.closed:
			for len(s.queue) > 0 {
				s.commit(s.gather(<-s.queue))
			}
			return
		}
		s.commit(batch)
	}
}

// gather takes whatever else waits already.
func (s *Store) gather(first *operation) []*operation {
	batch := []*operation{first}
	for len(batch) < perCommit {
		select {
		case op := <-s.queue:
			batch = append(batch, op)
		default:
			return batch
		}
	}
	return batch
}

// commit runs operations in one transaction and answers them.
func (s *Store) commit(batch []*operation) {
	err := s.failure()
	if err == nil && (len(batch) > 0 || s.anythingDue()) {
		ran, limit := false, 2*len(batch)+sweepLeast
		if len(batch) == 0 {
			limit = sweepMost
		}
		s.grown = false
		err = s.db.Update(func(tx *bbolt.Tx) error {
			for _, op := range batch {
				if op.result = op.ctx.Err(); op.result != nil {
					continue
				}
				if op.result = op.run(tx); op.result != nil && !isDecision(op.result) && !errors.Is(op.result, errDamaged) {
					return op.result
				}
			}
			err := sweep(tx, time.Now(), limit)
			ran = err == nil
			return err
		})
		if ran {
			s.judge(err)
		}
		if err == nil && s.grown {
			s.wake()
		}
	}
	for _, op := range batch {
		if err != nil {
			op.result = fmt.Errorf("writing to the store: %w", err)
		}
		close(op.done)
	}
}

func isDecision(err error) bool {
	return errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound)
}

// errDamaged is about one entry of the file that cannot be read. It concerns only
// the operation that needs the entry, which returns it before it writes anything, or
// after a part of a batch.
var errDamaged = errors.New("the store's file is damaged; restore it from a copy")

// judge refuses all further writes after a commit that failed for another reason
// than space (an operation that fails before leaves the file as it was): after a
// failed fsync the kernel may have dropped what it had, and trying again would
// acknowledge what is not on disk.
func (s *Store) judge(err error) {
	if err == nil || isGrowth(err) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return
	}
	s.mu.Lock()
	s.failed = fmt.Errorf("the store takes no writes since one failed, restart after mending the disk: %w", err)
	s.mu.Unlock()
}

// isGrowth reports whether the file could not be made longer, which comes before
// the transaction writes anything. bbolt keeps only the text of the reason.
func isGrowth(err error) bool { return strings.HasPrefix(err.Error(), "file resize error") }

func (s *Store) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}
