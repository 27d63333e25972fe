package authserver

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"authserver/store"
)

const (
	maxUnfinished = 100_000 // grants; 10 MB
	finishEvery   = time.Second
	finishAtOnce  = 100 // grants in one question
	deletedAtOnce = 8   // grants of one user; the embedded store writes what comes at once together
)

// finisher deletes grants and sessions that the log has ended. Whoever logged it does so as
// well, unless it was killed in between or had no answer, or there were very many. It is
// in no hurry, and nobody who reads the log waits for it: see endedByLog. A session that
// was left would be one that somebody is signed in in, and of whose tokens verifiers take
// none.
type finisher struct {
	mu       sync.Mutex
	ended    []string         // keys; those beyond maxUnfinished wait for the log to be read again, after a restart
	sessions []string         // sids, likewise
	subjects map[string]epoch // users, all of whose grants of earlier epochs have ended
}

func (f *finisher) add(ended []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = append(f.ended, ended[:min(len(ended), maxUnfinished-len(f.ended))]...)
}

func (f *finisher) addSessions(ended []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sessions = append(f.sessions, ended[:min(len(ended), maxUnfinished-len(f.sessions))]...)
}

func (f *finisher) addSubject(subject string, begun epoch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.subjects == nil {
		f.subjects = make(map[string]epoch)
	}
	if len(f.subjects) < maxUnfinished && f.subjects[subject].number <= begun.number {
		f.subjects[subject] = begun
	}
}

// take returns what is to be finished, the oldest first.
func (f *finisher) take() (ended, sessions []string, subjects map[string]epoch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ended, sessions, subjects = f.ended, f.sessions, f.subjects
	f.ended, f.sessions, f.subjects = nil, nil, nil
	return ended, sessions, subjects
}

// finishAll deletes what the log has ended, until ctx ends.
func (s *Server) finishAll(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, finishEvery)
		keys, sessions, subjects := s.feed.finishing.take()
		for ended := range slices.Chunk(keys, finishAtOnce) {
			if s.finish(ctx, ended) != nil {
				s.feed.finishing.add(ended) // once more
			}
		}
		for ended := range slices.Chunk(sessions, finishAtOnce) {
			s.feed.finishing.addSessions(s.finishSessions(ctx, ended))
		}
		for subject, begun := range subjects {
			if s.finishSubject(ctx, subject, begun) != nil {
				s.feed.finishing.addSubject(subject, begun)
			}
		}
	}
}

func (s *Server) finish(ctx context.Context, ended []string) error {
	records, err := s.store.Get(ctx, ended...)
	for i, record := range records {
		if err == nil && record.Exists() {
			err = s.store.Delete(ctx, ended[i])
		}
	}
	return err
}

// finishSessions closes those sessions that are still there, and returns those of which it
// could not.
func (s *Server) finishSessions(ctx context.Context, ids []string) (left []string) {
	records, err := getAll(ctx, s.store, ids, s.sessions.Key)
	if err != nil {
		return ids
	}
	for i, record := range records {
		if !record.Exists() {
			continue
		}
		one, unread := s.sessions.Decode(record)
		if unread != nil {
			continue // nobody is signed in in it either
		}
		if s.closeSession(ctx, one.Subject, ids[i]) != nil {
			left = append(left, ids[i])
		}
	}
	return left
}

// finishSubject deletes the grants of a user that an epoch has ended.
func (s *Server) finishSubject(ctx context.Context, subject string, begun epoch) error {
	return s.deleteAll(ctx, subject, begun.ends)
}

// deleteAll deletes those grants of a user that have ended, several at once.
func (s *Server) deleteAll(ctx context.Context, subject string, hasEnded func(Grant) bool) error {
	var ended []string
	remove := func() error {
		failures := make([]error, len(ended))
		var wait sync.WaitGroup
		for i, id := range ended {
			wait.Go(func() { failures[i] = s.grants.Delete(ctx, id) })
		}
		wait.Wait()
		ended = ended[:0]
		return errors.Join(failures...)
	}
	err := s.eachGrant(ctx, subject, func(id string, grant Grant, _ store.Record) error {
		if !hasEnded(grant) {
			return nil
		}
		if ended = append(ended, id); len(ended) < deletedAtOnce {
			return nil
		}
		return remove()
	})
	return errors.Join(err, remove())
}
