package authserver

import (
	"context"
	"errors"
	"sync"
	"time"
)

// How long what the store said of a client or a user is believed.
const (
	believed      = time.Second      // without asking again
	believedStale = 30 * time.Second // while the store does not answer
	askingTimeout = 5 * time.Second
	maxRemembered = 10_000
	maxQuestions  = 1000 // at once, of one kind: whoever makes keys up fills no memory with them
)

var errQuestions = errors.New("too many questions are put to the store at once")

// remembered holds what the store said of keys a moment ago, so that busy clients
// and users cost the store one question a second. The store is the judge: what has
// changed there counts everywhere a second later. When the store does not answer,
// the last answer holds for half a minute; then there is none.
//
// What does not exist is not remembered, so that strangers cannot fill it.
type remembered[T any] struct {
	// load asks the store; false means that there is no such thing.
	load      func(ctx context.Context, key string) (value T, exists bool, err error)
	questions chan struct{} // a place for each that is under way

	mu      sync.Mutex
	answers map[string]*remembrance[T]
}

// remembrance is what is remembered of one key.
type remembrance[T any] struct {
	value  T
	exists bool
	asked  time.Time // when the question was put whose answer this is
	failed time.Time // when the last question failed; zero when it did not
	err    error
	asking chan struct{} // closed when the question under way has its answer; nil when there is none
}

func remember[T any](load func(ctx context.Context, key string) (T, bool, error)) *remembered[T] {
	return &remembered[T]{load: load, questions: make(chan struct{}, maxQuestions), answers: make(map[string]*remembrance[T])}
}

// get returns the value of key and whether it exists.
func (m *remembered[T]) get(ctx context.Context, key string) (T, bool, error) {
	return m.within(ctx, key, believedStale)
}

// within is get that believes the last answer for another time while the store does
// not answer.
func (m *remembered[T]) within(ctx context.Context, key string, stale time.Duration) (T, bool, error) {
	var none T
	began := time.Now()
	m.mu.Lock()
	answer := m.entry(key)
	age := time.Since(answer.asked)
	trouble := !answer.failed.IsZero()
	if answer.asking == nil && age >= believed && (!trouble || time.Since(answer.failed) >= believed || age >= stale) {
		select {
		case m.questions <- struct{}{}:
			answer.asking = make(chan struct{})
			go m.ask(context.WithoutCancel(ctx), key, answer)
		default:
		}
	}
	if age < believed || trouble && age < stale { // nobody waits for a store in trouble
		defer m.mu.Unlock()
		return answer.value, answer.exists, nil
	}
	asking := answer.asking
	if asking == nil && answer.asked.IsZero() {
		delete(m.answers, key)
	}
	m.mu.Unlock()
	if asking == nil {
		return none, false, errQuestions
	}
	select {
	case <-asking:
	case <-ctx.Done():
		return none, false, ctx.Err()
	}
	m.mu.Lock()
	value, exists, asked, failed := answer.value, answer.exists, answer.asked, answer.err
	m.mu.Unlock()
	switch {
	case failed != nil && time.Since(asked) >= stale:
		return none, false, failed
	case failed == nil && began.Sub(asked) >= believed: // it was on its way for long, as where this process had been stopped
		return m.within(ctx, key, stale)
	}
	return value, exists, nil
}

// entry returns the remembrance of key. Beyond the bound it takes any other's place.
func (m *remembered[T]) entry(key string) *remembrance[T] {
	answer := m.answers[key]
	if answer == nil {
		for other := range m.answers {
			if len(m.answers) < maxRemembered {
				break
			}
			delete(m.answers, other)
		}
		answer = &remembrance[T]{}
		m.answers[key] = answer
	}
	return answer
}

// ask puts the one question for all who wait. It outlives the first of them.
func (m *remembered[T]) ask(ctx context.Context, key string, answer *remembrance[T]) {
	ctx, cancel := context.WithTimeout(ctx, askingTimeout)
	defer func() { cancel(); <-m.questions }()
	asked := time.Now()
	value, exists, err := m.load(ctx, key)
	m.mu.Lock()
	defer m.mu.Unlock()
	answer.err = err
	if err != nil {
		answer.failed = time.Now()
	} else {
		answer.value, answer.exists, answer.asked, answer.failed = value, exists, asked, time.Time{}
	}
	if (err == nil && !exists || answer.asked.IsZero()) && m.answers[key] == answer {
		delete(m.answers, key)
	}
	close(answer.asking)
	answer.asking = nil
}

// confirmed is get that believes nothing for longer than a second: what the store
// does not confirm is an error.
func (m *remembered[T]) confirmed(ctx context.Context, key string) (T, bool, error) {
	return m.within(ctx, key, 0)
}

// forget makes the next get ask the store.
func (m *remembered[T]) forget(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.answers, key)
}
