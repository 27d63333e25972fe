package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// planted are bugs that a server could have, as changes of its source.
var planted = []struct{ name, scenario, file, old, new string }{
	{"a refresh that is not atomic: reads the version, then writes whatever it is", "three-redis", "store/redisstore/scripts.go",
		"if version ~= wanted then\n", "if version > wanted + 1 then\n"},
	{"a lost answer of Redis is taken for somebody else's refresh, and the window is closed", "one-redis", "authserver/grant_refresh_token.go",
		"return age >= 0 && age < *s.tokens.RetryWindow", "return age < 0"},
	{"a stolen token is refused and the grant lives on", "one-embedded", "authserver/grant_refresh_token.go",
		"if err := s.endGrant(ctx, claims.GrantID, reasonTheft); err != nil {", "if err := ctx.Err(); err != nil {"},
	{"a revocation is acknowledged before it is in the log, and the record stays", "one-redis", "authserver/revocation.go",
		"	if err := s.publish(ctx, revocation{Grant: grantID, Reason: reason}); err != nil {\n		return err\n	}\n	if err := s.grants.Delete", "	go s.publish(context.WithoutCancel(ctx), revocation{Grant: grantID, Reason: reason})\n	if ctx != nil {\n		return nil\n	}\n	if err := s.grants.Delete"},
	{"store trouble is answered with invalid_grant", "one-redis", "authserver/grant_refresh_token.go",
		"return Grant{}, store.Record{}, \"\", unavailable(fmt.Errorf(\"moving a grant: %w\", err))", "return Grant{}, store.Record{}, \"\", errGrantEnded.because(fmt.Errorf(\"moving a grant: %w\", err))"},
	{"a write is acknowledged before it is on disk", "one-embedded", "store/boltstore/boltstore.go",
		"	op := &operation{ctx: ctx, run: run, done: make(chan struct{})}\n", "	op := &operation{ctx: context.WithoutCancel(ctx), run: run, done: make(chan struct{})}\n	if s.acknowledgeEarly(op) {\n		return op.result\n	}\n"},
	{"each retry mints another successor", "three-redis", "authserver/grant_refresh_token.go",
		"Refresh:  &refresh{Generation: record.Version, Expires: record.Expires},", "Refresh:  &refresh{Generation: record.Version, Expires: time.Now().Add(time.Hour)},"},
	{"a key signs on after it was retired or declared compromised", "rotating", "keys/manager.go",
		"	signer := n.signers[ring]\n	if signer == nil {\n		return \"\", n.noKey(ring, m.config)\n	}\n	token", "	signer := n.signers[ring]\n	if signer == nil {\n		return \"\", n.noKey(ring, m.config)\n	}\n	signer = firstSigner(ring, signer)\n	token"},
	{"a revocation that meets a failover of the store is acknowledged and forgotten", "one-redis", "authserver/revocation.go",
		"	if err := s.publish(ctx, revocation{Grant: grantID, Reason: reason}); err != nil {\n		return err\n	}\n	if err := s.grants.Delete", "	if err := s.publish(ctx, revocation{Grant: grantID, Reason: reason}); err != nil {\n		return nil\n	}\n	if err := s.grants.Delete"},
	{"a cache of tokens without a bound", "sessions", "authserver/checked.go",
		"	if c.young == nil || len(c.young) == maxChecked {", "	kept = append(kept, make([]byte, 2<<10))\n	if c.young == nil || len(c.young) == maxChecked {"},
}

// further is source that a planted bug needs.
var further = map[string]string{
	"authserver/checked.go": "\nvar kept [][]byte\n",
	"keys/manager.go": `
var signersOnce = make(map[string]any)
var signersMu sync.Mutex

func firstSigner[T any](ring string, signer T) T {
	signersMu.Lock()
	defer signersMu.Unlock()
	if _, known := signersOnce[ring]; !known {
		signersOnce[ring] = signer
	}
	return signersOnce[ring].(T)
}
`,
	"store/boltstore/boltstore.go": `
func (s *Store) acknowledgeEarly(op *operation) bool {
	if len(s.queue) > cap(s.queue)/2 {
		return false
	}
	answered := make(chan struct{})
	run := op.run
	op.run = func(tx *bbolt.Tx) error {
		err := run(tx)
		op.result = err
		select {
		case <-answered:
		default:
			close(answered)
		}
		time.Sleep(5 * time.Millisecond)
		return err
	}
	s.queue <- op
	<-answered
	return true
}
`,
}

// findPlanted builds the server with each bug whose name contains only and says how long
// it took to find.
func findPlanted(ctx context.Context, s settings, only string) error {
	missed, tried := 0, 0
	for _, bug := range planted {
		if !strings.Contains(bug.name, only) {
			continue
		}
		tried++
		changes := []change{{bug.file, bug.old, bug.new}}
		if slices.ContainsFunc(scenarios, func(one scenario) bool { return one.name == bug.scenario && one.quickKeys }) {
			changes = append(changes, quickKeys...)
		}
		binary, err := plant(changes...)
		if err != nil {
			return fmt.Errorf("%s: %w", bug.name, err)
		}
		var total totals
		with := s
		with.binary, with.planted, with.scenario, with.untilFirst, with.histories = binary, true, bug.scenario, true, 50
		began := time.Now()
		if err := run(ctx, with, &total); err != nil {
			fmt.Println("the run ended:", err)
			total.Violations++
		}
		os.RemoveAll(filepath.Dir(binary))
		found := fmt.Sprintf("found after %s, %d histories, %d calls", time.Since(began).Round(100*time.Millisecond), total.Histories, total.Calls)
		if total.Violations == 0 {
			found = "NOT FOUND"
			missed++
		}
		fmt.Printf("planted: %s: %s\n", bug.name, found)
	}
	if tried == 0 {
		return fmt.Errorf("no planted bug has %q in its name", only)
	}
	if missed > 0 {
		return fmt.Errorf("%d planted bugs were not found", missed)
	}
	return nil
}

// change is one of a file of the server's source.
type change struct{ file, old, new string }

// quickKeys bounds clocks and leases by seconds, as nobody can configure it: a key may
// then rotate every ten seconds instead of every five minutes.
var quickKeys = []change{
	{"keys/config.go", "const ClockSkew = 4 * time.Minute", "const ClockSkew = time.Second"},
	{"keys/config.go", "{&c.Lease, 30 * time.Second},", "{&c.Lease, 3 * time.Second},"},
}

// keyLease is for how long an instance signs without having read the key set.
func (w *world) keyLease() time.Duration {
	if w.scenario.quickKeys {
		return 3 * time.Second
	}
	return 30 * time.Second
}

// plant copies the module, changes files and builds the server.
func plant(changes ...change) (binary string, err error) {
	directory, err := os.MkdirTemp("", "authserver-planted-")
	if err != nil {
		return "", err
	}
	source, err := filepath.Abs("..")
	if err != nil {
		return "", err
	}
	if output, err := exec.Command("cp", "-r", filepath.Join(source, "authserver"), filepath.Join(source, "cmd"), filepath.Join(source, "internal"),
		filepath.Join(source, "keys"), filepath.Join(source, "store"), filepath.Join(source, "verifier"), filepath.Join(source, "go.mod"),
		filepath.Join(source, "go.sum"), directory).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, output)
	}
	for _, c := range changes {
		name := filepath.Join(directory, c.file)
		text, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		if !strings.Contains(string(text), c.old) {
			return "", fmt.Errorf("%s has changed: plant the bug anew", c.file)
		}
		if err := os.WriteFile(name, []byte(strings.Replace(string(text), c.old, c.new, 1)+further[c.file]), 0o600); err != nil {
			return "", err
		}
	}
	binary = filepath.Join(directory, "planted")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, "./cmd/authserver") // the same path in each copy, so that only what changed is compiled
	build.Dir = directory
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, output)
	}
	return binary, nil
}
