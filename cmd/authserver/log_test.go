package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"authserver/internal/timetest"

	"github.com/prometheus/client_golang/prometheus"
)

// An output that takes nothing holds up nobody. What is lost is counted, and told in
// its place once the output takes records again.
func TestStuckOutputLosesWithCount(t *testing.T) {
	reader, writer := io.Pipe()
	log, err := openLog(logConfig{Level: "info"}, writer)
	if err != nil {
		t.Fatal(err)
	}
	const records = 60_000 // twice as many as may wait
	for i := range records {
		log.Info("something happened that has a text of some length, as records have", "event", "refused", "n", i)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(log)
	metrics, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	lost := int64(metrics[0].GetMetric()[0].GetCounter().GetValue())
	if lost == 0 || lost == records {
		t.Fatalf("%d of %d records lost", lost, records)
	}
	var found, told int64
	read := make(chan struct{})
	go func() {
		defer close(read)
		decoder := json.NewDecoder(reader)
		for last := -1; ; {
			var record struct {
				Event   string
				N       int
				Records int64
			}
			if err := decoder.Decode(&record); err != nil {
				return
			}
			if record.Event == "log_lost" {
				told += record.Records
				continue
			}
			if found++; record.N <= last {
				t.Errorf("record %d after %d", record.N, last)
			}
			last = record.N
		}
	}()
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	<-read
	if found+lost != records || told != lost {
		t.Errorf("%d records, %d lost, %d told of as lost", found, lost, told)
	}
}

// At the end an output that takes nothing is given up, and said to be.
func TestStuckOutputAtTheEnd(t *testing.T) {
	_, writer := io.Pipe()
	log, err := openLog(logConfig{Level: "info"}, writer)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("x")
	if err := log.Close(); err == nil || !strings.Contains(err.Error(), "stderr") {
		t.Error(err)
	}
}

// failing is a file on a disk that is full until it is not.
type failing struct {
	mu   sync.Mutex
	full bool
	text strings.Builder
}

func (f *failing) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.full {
		return 0, errors.New("no space left on device")
	}
	return f.text.Write(b)
}

func (f *failing) set(full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.full = full
}

func TestOutputFails(t *testing.T) {
	disk := &failing{full: true}
	troubles := make(chan error, 10)
	output := newLogOutput("audit_file", disk, func(err error) { troubles <- err })
	output.Write([]byte("lost\n"))
	if err := <-troubles; err == nil {
		t.Fatal("no trouble")
	}
	output.Write([]byte("lost\n"))
	timetest.Await(t, "the second loss is counted", func() bool { return output.total.Load() == 2 })
	disk.set(false)
	output.Write([]byte("kept\n"))
	if err := output.Close(); err != nil {
		t.Fatal(err)
	}
	if text := disk.text.String(); strings.Count(text, "kept") != 1 || !strings.Contains(text, `"records":2`) || strings.Contains(text, "lost\n") {
		t.Errorf("%q", text)
	}
	if len(troubles) != 0 {
		t.Error("one trouble was told of more than once")
	}
}

// A file is put aside when it is full; the oldest go.
func TestLogFileRotates(t *testing.T) {
	directory := t.TempDir()
	path := filepath.Join(directory, "audit.log")
	for _, other := range []string{"audit-notes.log", "audit.log.1", "audit-20260101T000000.000000000Z.txt"} {
		os.WriteFile(filepath.Join(directory, other), nil, 0o600)
	}
	file, err := openLogFile(path, 100, 3)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if _, err := fmt.Fprintf(file, "%039d\n", i); err != nil { // two in a file
			t.Fatal(err)
		}
	}
	old, _ := filepath.Glob(filepath.Join(directory, "audit-2*Z.log"))
	if len(old) != 3 {
		t.Fatal(old)
	}
	var all strings.Builder
	for _, name := range append(old, path) {
		text, _ := os.ReadFile(name)
		all.Write(text)
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 || info.Size() != 80 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	for i := 12; i < 20; i++ {
		if !strings.Contains(all.String(), fmt.Sprintf("%039d\n", i)) {
			t.Errorf("%d is missing", i)
		}
	}
	if others, _ := filepath.Glob(filepath.Join(directory, "*")); len(others) != 7 {
		t.Errorf("other files were touched: %v", others)
	}
	// Somebody else moves it.
	os.Rename(path, path+".moved")
	file.Reopen()
	file.Write([]byte("new\n"))
	if text, err := os.ReadFile(path); err != nil || string(text) != "new\n" {
		t.Errorf("%q %v", text, err)
	}
	file.Close()
	again, err := openLogFile(path, 100, 3) // appended to after a restart
	if err != nil {
		t.Fatal(err)
	}
	again.Write([]byte("newer\n"))
	again.Close()
	if text, _ := os.ReadFile(path); string(text) != "new\nnewer\n" {
		t.Errorf("%q", text)
	}
	if _, err := openLogFile("/dev/null", 100, 3); err == nil {
		t.Error("a device was taken for a file")
	}
}

// ATTACKS FT-54, with the real server: nobody reads its standard error, and requests go
// on; the audit file has all decisions and nothing else, whatever the level; it can be moved.
func TestStuckStandardError(t *testing.T) {
	directory, port := t.TempDir(), freePort(t)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for err == nil { // full, so that already the first record is stuck
		writer.SetWriteDeadline(time.Now().Add(time.Second))
		_, err = writer.WriteString(strings.Repeat("x", 4095) + "\n")
	}
	audit := filepath.Join(directory, "audit.log")
	p := &process{url: "http://localhost:" + port}
	environment := append(on(port), "AUTHSERVER_LOG_AUDIT_FILE="+audit)
	launch(t, p, writer, directory, environment, "serve")
	writer.Close()
	const requests = 300
	asked := 0
	ask := func() (int, error) { // as another client each time, who would be slowed down
		asked++
		status, _, err := postForm(t, p.url+"/token", fmt.Sprint("nobody", asked), "wrong", url.Values{"grant_type": {"client_credentials"}})
		return status, err
	}
	for range requests {
		if status, err := ask(); err != nil || status != 401 {
			t.Fatal(status, err)
		}
	}
	refusals := func(name string) int {
		text, _ := os.ReadFile(name)
		return strings.Count(string(text), `"event":"refused"`)
	}
	timetest.Await(t, "the audit file has the refusals", func() bool { return refusals(audit) == requests })
	if text, _ := os.ReadFile(audit); strings.Contains(string(text), `"msg":"the operators' commands find`) {
		t.Errorf("not only decisions are in the audit file:\n%s", text)
	}
	os.Rename(audit, audit+".1")
	p.Process.Signal(syscall.SIGHUP)
	timetest.Await(t, "a new audit file is written", func() bool {
		ask()
		return refusals(audit) > 0
	})
	// Whoever reads it again finds every record.
	go io.Copy(p, reader)
	if !p.says(`"event":"refused"`) || strings.Contains(p.text(), "log_lost") {
		t.Error("records are missing that had room to wait")
	}
	// And when the reader ends, the server does not.
	reader.Close()
	for range 3 {
		if status, err := ask(); err != nil || status != 401 {
			t.Fatal(status, err)
		}
	}
	p.Process.Signal(syscall.SIGTERM)
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

func TestAuditFileMistakes(t *testing.T) {
	fails(t, t.TempDir(), append(on(freePort(t)), "AUTHSERVER_LOG_AUDIT_FILE=missing/audit.log"), "log.audit_file", "serve")
	fails(t, t.TempDir(), []string{"AUTHSERVER_LOG_AUDIT_FILE_SIZE=-1"}, `audit_file_size: "-1" is not above zero`, "config", "check")
	fails(t, t.TempDir(), []string{"AUTHSERVER_LOG_AUDIT_FILE_SIZE=10m"}, `audit_file_size: "10m" is not a number`, "config", "check")
	fails(t, t.TempDir(), []string{"AUTHSERVER_LOG_AUDIT_FILE_SIZE=1048577"}, "audit_file_size: is 1048577 MiB; allowed are 1 to", "config", "check")
	fails(t, t.TempDir(), []string{"AUTHSERVER_LOG_AUDIT_FILES_KEPT=20000"}, "audit_files_kept: is 20000; allowed are 1 to", "config", "check")
}

// Whoever reads the audit file finds whole records: what a full disk or a power cut has
// torn is joined to no other record, and is told of as lost.
func TestLogFileHasWholeRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(path, []byte("{\"whole\":1}\n{\"to"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := openLogFile(path, 1000, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	file.Write([]byte("{\"next\":1}\n"))
	const begun = "{\"whole\":1}\n{\"to\n{\"next\":1}\n"
	var usual syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &usual); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	full := syscall.Rlimit{Cur: uint64(len(begun) + 15), Max: usual.Max} // the disk takes 15 bytes more
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	n, err := file.Write([]byte("{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n"))
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &usual); err != nil {
		t.Fatal(err)
	}
	if n != 8 || err == nil {
		t.Errorf("%d bytes were taken: %v", n, err)
	}
	if n, err := file.Write([]byte("{\"d\":4}\n")); n != 8 || err != nil {
		t.Errorf("%d bytes, when there is room: %v", n, err)
	}
	if text, _ := os.ReadFile(path); string(text) != begun+"{\"a\":1}\n{\"d\":4}\n" {
		t.Errorf("%q", text)
	}
}

// Where a file cannot be put aside it grows on, and nothing is lost; a pipe that nobody
// reads from is refused and waited for by nobody.
func TestLogFileThatStays(t *testing.T) {
	directory := t.TempDir()
	path := filepath.Join(directory, "audit.log")
	file, err := openLogFile(path, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := os.MkdirAll(filepath.Join(directory, "audit-20260101T000000.000000000Z.log", "not empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	failures := 0
	for i := range 6 {
		n, err := fmt.Fprintf(file, "record %d\n", i)
		if n != 9 {
			t.Errorf("record %d: %d bytes, %v", i, n, err)
		}
		if err != nil {
			failures++
		}
	}
	if failures == 0 {
		t.Error("everything was put aside: this shows nothing")
	}
	files, _ := filepath.Glob(filepath.Join(directory, "audit*.log"))
	var all []byte
	for _, name := range files {
		text, _ := os.ReadFile(name)
		all = append(all, text...)
	}
	if strings.Count(string(all), "record") < 2 {
		t.Errorf("%q in %v", all, files)
	}
	pipe := filepath.Join(directory, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openLogFile(pipe, 10, 1); err == nil {
		t.Error("a pipe was taken for a file")
	}
}

// syncing counts what was written and what of it was synced.
type syncing struct {
	mu              sync.Mutex
	written, synced int
}

func (s *syncing) Write(records []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written++
	return len(records), nil
}

func (s *syncing) sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced = s.written
	return nil
}

// What a file has taken is on the disk within a second, also when nothing follows.
func TestAuditFileIsSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		into := new(syncing)
		o := newLogOutput("a file", into, nil)
		for range 3 {
			for range 5 {
				o.Write([]byte("record\n"))
				time.Sleep(syncWithin / 10)
			}
			time.Sleep(syncWithin)
			synctest.Wait()
			if into.written == 0 || into.synced != into.written {
				t.Errorf("%d of %d batches are synced", into.synced, into.written)
			}
		}
		o.Close()
	})
}

// ATTACKS LG-08: a process that is killed takes no record with it that its file has, and
// no more than those of the last moment: a later record is never there without an earlier.
func TestKilledProcessLeavesItsAuditRecords(t *testing.T) {
	directory, port := t.TempDir(), freePort(t)
	text := fmt.Sprintf(userConfig, port, port) + "log: {audit_file: audit.log}\n"
	if err := os.WriteFile(filepath.Join(directory, "authserver.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	base := "http://localhost:" + port
	p := start(t, directory, base, nil, "serve")
	issued := func() (ids []string) {
		content, err := os.ReadFile(filepath.Join(directory, "audit.log"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(content)) {
			if !strings.HasSuffix(line, "\n") { // the rest is being written, or was when it was killed
				break
			}
			var record struct{ Event, JTI string }
			if err := json.Unmarshal([]byte(line), &record); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if record.Event == "token" {
				ids = append(ids, record.JTI)
			}
		}
		return ids
	}
	var acknowledged []string
	refresh := tokensOf(t, base)
	for range 20 {
		status, _, next := refreshed(t, base, refresh)
		if status != 200 {
			t.Fatal(status)
		}
		refresh = next
		acknowledged = append(acknowledged, next)
	}
	timetest.Await(t, "the records are in the file", func() bool { return len(issued()) == len(acknowledged)+1 })
	before := issued()
	for range 5 {
		_, _, refresh = refreshed(t, base, refresh)
	}
	p.Process.Kill()
	p.Wait()
	after := issued()
	if len(after) < len(before) || !slices.Equal(after[:len(before)], before) {
		t.Errorf("%d records were there, and %d are", len(before), len(after))
	}
}
