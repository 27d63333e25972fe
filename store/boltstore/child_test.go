package boltstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"authserver/store"
	"authserver/store/boltstore"
)

// childFile names the store's file to a test that runs itself as a child.
const childFile = "BOLTSTORE_TEST_CHILD_FILE"

// child returns a process that runs one test of this binary on the file, under another
// program if there is one.
func child(ctx context.Context, t *testing.T, path string, under ...string) *exec.Cmd {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	line := append(under, binary, "-test.run=^"+t.Name()+"$", "-test.v")
	command := exec.CommandContext(ctx, line[0], line[1:]...)
	command.Env = append(os.Environ(), childFile+"="+path)
	return command
}

const writers = 8

// What was acknowledged before a kill -9 is there afterwards, several times over
// on one file.
func TestKilled(t *testing.T) {
	if path := os.Getenv(childFile); path != "" {
		writeUntilKilled(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "store.db")
	for round := range 4 {
		acknowledged := killAfter(t, path, 200+150*round)
		s, err := boltstore.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range acknowledged {
			if err := verify(t.Context(), s, line); err != nil {
				t.Errorf("round %d: acknowledged %q: %v", round, line, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		t.Logf("round %d: %d acknowledged", round, len(acknowledged))
	}
}

// killAfter kills a child that has acknowledged so many writes, and returns all
// that it acknowledged until it died.
func killAfter(t *testing.T, path string, lines int, under ...string) (acknowledged []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	command := child(ctx, t, path, under...)
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) } // with what it runs under
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	var other strings.Builder
	reader := bufio.NewReader(output)
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			break // what has no end of line was not said
		}
		if rest, found := strings.CutPrefix(line, "acknowledged "); found {
			acknowledged = append(acknowledged, strings.TrimSpace(rest))
		} else {
			other.WriteString(line)
		}
		if len(acknowledged) == lines {
			command.Cancel()
		}
	}
	command.Wait()
	if len(acknowledged) < lines {
		t.Fatalf("the child acknowledged %d writes and ended:\n%s", len(acknowledged), other.String())
	}
	return acknowledged
}

// writeUntilKilled says each write when it is acknowledged, one line in one call.
func writeUntilKilled(t *testing.T, path string) {
	s, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	run := time.Now().UnixNano()
	for writer := range writers {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d/%d/%d", run, writer, i)
				if err := writeOne(t.Context(), s, key); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	t.Fatal(<-failed)
}

func writeOne(ctx context.Context, s store.Store, key string) error {
	if err := s.Create(ctx, key, []byte(key), store.Forever); err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "acknowledged create %s 0\n", key)
	if _, err := s.Swap(ctx, key, 1, []byte(key), store.Forever); err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "acknowledged swap %s 0\n", key)
	if err := s.Link(ctx, key, "member", store.Forever); err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "acknowledged link %s 0\n", key)
	position, err := s.Append(ctx, "log", []byte(key), store.KeepAll)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "acknowledged append %s %d\n", key, position)
	return nil
}

// verify looks for one acknowledged write.
func verify(ctx context.Context, s store.Store, line string) error {
	var what, key string
	var position store.Position
	if _, err := fmt.Sscan(line, &what, &key, &position); err != nil {
		return err
	}
	switch what {
	case "create", "swap":
		records, err := s.Get(ctx, key)
		if err != nil {
			return err
		}
		if r := records[0]; string(r.Value) != key || what == "swap" && r.Version != 2 {
			return fmt.Errorf("found %+v", r)
		}
	case "link":
		for member, err := range s.Linked(ctx, key, store.Member{}) {
			if err != nil || member.Name == "member" {
				return err
			}
		}
		return errors.New("the index lacks its member")
	case "append":
		events, err := s.Tail(ctx, "log", position-1, 0)
		if err != nil {
			return err
		}
		if len(events) == 0 || events[0].Position != position || string(events[0].Value) != key {
			return errors.New("the event is not in its place")
		}
	default:
		return errors.New("nobody writes that")
	}
	return nil
}

// When the file can grow no further, writes fail, what is there can be read, and
// once there is space the store goes on without a restart.
func TestDiskFull(t *testing.T) {
	if path := os.Getenv(childFile); path != "" {
		fillDisk(t, path)
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	path := filepath.Join(t.TempDir(), "store.db")
	output, err := child(ctx, t, path).CombinedOutput()
	if err != nil || !strings.Contains(string(output), "--- PASS: TestDiskFull") {
		t.Fatalf("%v\n%s", err, output)
	}
}

// fillDisk limits how long a file of this process may become, which is why it has
// a process of its own.
func fillDisk(t *testing.T, path string) {
	ctx := t.Context()
	s, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ) // then the write fails with EFBIG
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limited := before
	limited.Cur = 1 << 20
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limited); err != nil {
		t.Fatal(err)
	}
	value := make([]byte, store.MaxValue)
	kept := 0
	for ; kept < 100; kept++ {
		if err = s.Create(ctx, fmt.Sprint(kept), value, store.Forever); err != nil {
			break
		}
	}
	if err == nil || kept == 0 {
		t.Fatalf("%d writes of 64 KiB fit into 1 MiB, then %v", kept, err)
	}
	t.Logf("after %d writes: %v", kept, err)
	if err := s.Create(ctx, "another", value, store.Forever); err == nil {
		t.Error("a full store takes a write")
	}
	readable(t, s, kept)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(ctx, fmt.Sprint(kept), value, store.Forever); err != nil {
		t.Fatalf("with space again: %v", err)
	}
	readable(t, s, kept+1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = boltstore.Open(path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	readable(t, s, kept+1)
}

// readable finds the first n records whole, and not the one that was refused.
func readable(t *testing.T, s store.Store, n int) {
	t.Helper()
	for i := range n {
		records, err := s.Get(t.Context(), fmt.Sprint(i))
		if err != nil || len(records[0].Value) != store.MaxValue {
			t.Fatalf("record %d of %d is not whole, or %v", i, n, err)
		}
	}
	if records, err := s.Get(t.Context(), "another"); err != nil || records[0].Exists() {
		t.Errorf("a refused record exists, or %v", err)
	}
}
