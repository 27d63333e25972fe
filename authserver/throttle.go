package authserver

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"authserver/store"
)

// Failed sign-ins are counted for throttleWindow, per account and per address.
// Beyond the free ones, each further attempt must wait twice as long as the one
// before, so a guesser gets a handful and a person who mistypes is never locked out.
//
// All together are counted per minute, which slows down who tries one password on
// many accounts from many addresses. That, and guessing at an account from elsewhere,
// leaves alone the browsers in which an account's user has signed in before.
const (
	throttleWindow = 15 * time.Minute
	freePerAccount = 5
	freePerAddress = 50
	maxDelay       = 5 * time.Minute

	globalWindow  = time.Minute
	freeGlobal    = 2000 // failures of everybody in globalWindow, sign-ins under way included
	globalRefusal = 10 * time.Second
)

// throttle slows down guessing. Its state is in the store, so that all instances
// count together.
type throttle struct{ store store.Store }

// attempt is an admitted sign-in.
type attempt struct {
	account, address string // store keys without prefix
	failures         int64  // of the account, this one included
	global           bool   // counted among those of everybody
}

// admit counts an attempt before its password is looked at, so that parallel
// guesses cannot outrun the count, and refuses it if it comes too early.
func (t throttle) admit(ctx context.Context, account string, from caller) (attempt, error) {
	a := attempt{account: "account/" + hashed(account), address: "address/" + network(from.address), global: from.device == ""}
	if from.device != "" {
		a.account = "device/" + hashed(from.device+"\x00"+account)
	}
	waits, err := t.store.Get(ctx, "wait/"+a.account, "wait/"+a.address)
	if err != nil {
		return a, unavailable(fmt.Errorf("throttling a sign-in: %w", err))
	}
	for _, wait := range waits {
		if wait.Exists() {
			return a, tooMany(time.Until(wait.Expires))
		}
	}
	if a.failures, err = t.count(ctx, a.account, freePerAccount); err != nil {
		return a, err
	}
	if _, err = t.count(ctx, a.address, freePerAddress); err != nil || !a.global {
		return a, err
	}
	n, err := t.store.Add(ctx, globalFailures, 1, globalWindow)
	if err != nil {
		return a, unavailable(fmt.Errorf("counting a sign-in: %w", err))
	}
	if n > freeGlobal {
		return a, tooMany(globalRefusal)
	}
	return a, nil
}

const globalFailures = "failures/all"

// count adds an attempt. Beyond the free ones, one attempt gets through and
// starts the wait that the next one meets.
func (t throttle) count(ctx context.Context, key string, free int64) (int64, error) {
	n, err := t.store.Add(ctx, "failures/"+key, 1, throttleWindow)
	if err != nil {
		return 0, unavailable(fmt.Errorf("counting a sign-in: %w", err))
	}
	if n <= free {
		return n, nil
	}
	delay := delayAfter(n - free)
	err = t.store.Create(ctx, "wait/"+key, nil, time.Now().Add(delay))
	if errors.Is(err, store.ErrExists) {
		return n, tooMany(delay)
	}
	if err != nil {
		return n, unavailable(fmt.Errorf("throttling a sign-in: %w", err))
	}
	return n, nil
}

// succeeded forgets the failures of an account whose user has signed in. An
// address gets only this attempt back, or one's own account would open it to
// guessing at others'.
func (t throttle) succeeded(ctx context.Context, a attempt) error {
	_, err := t.store.Add(ctx, "failures/"+a.account, -a.failures, throttleWindow)
	if err == nil {
		_, err = t.store.Add(ctx, "failures/"+a.address, -1, throttleWindow)
	}
	if err == nil && a.global {
		_, err = t.store.Add(ctx, globalFailures, -1, globalWindow)
	}
	if err == nil && a.failures > freePerAccount {
		err = t.store.Delete(ctx, "wait/"+a.account)
	}
	if err != nil {
		return unavailable(fmt.Errorf("recording a sign-in: %w", err))
	}
	return nil
}

// withdraw takes back an attempt whose password nobody has looked at, even when
// the caller has gone.
func (t throttle) withdraw(ctx context.Context, a attempt) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, err1 := t.store.Add(ctx, "failures/"+a.account, -1, throttleWindow)
	_, err2 := t.store.Add(ctx, "failures/"+a.address, -1, throttleWindow)
	if !a.global {
		return errors.Join(err1, err2)
	}
	_, err3 := t.store.Add(ctx, globalFailures, -1, globalWindow)
	return errors.Join(err1, err2, err3)
}

// delayAfter is 1s, 2s, 4s … for the first, second, third attempt too many.
func delayAfter(excess int64) time.Duration {
	if excess > 10 {
		return maxDelay
	}
	return min(time.Second<<(excess-1), maxDelay)
}

// hashed makes a store key of fixed form from something a stranger has typed.
func hashed(s string) string {
	hash := sha256.Sum256([]byte(s))
	return base64.RawURLEncoding.EncodeToString(hash[:16])
}
