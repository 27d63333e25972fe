// Package keys makes, rotates, publishes and uses the keys that sign tokens.
//
// Keys live in rings: one for each published algorithm, and one for refresh
// tokens, which nobody but the server verifies. A ring has one key that signs, one
// that is already published and signs next, and those whose tokens still live:
//
//	pending ──▶ active ──▶ retiring ──▶ gone
//	   └───────────┴───────────┴──────▶ compromised
//
// All rings together are one value in a Store, changed by compare-and-swap. What
// has to change is a pure function of the stored value, the policy and the time
// (ring.go, set.go). Any instance may compute it; the one whose swap wins has
// rotated. There are no locks and there is no leader.
//
// Operators change the same value by the same swap (operation.go). What happened is
// written to a hash-chained log, which the set has the end of (journal.go, log.go).
// Private keys are with a Backend: sealed in the set, or in a token or a service
// (backend.go, remote).
//
// Two promises decide every duration here: a verifier that honours Cache-Control
// never meets a key that it cannot know, and a token verifies until it expires.
package keys
