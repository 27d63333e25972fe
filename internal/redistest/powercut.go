package redistest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Traced is a server with an append-only file, whose power can be cut.
type Traced struct {
	*Server
	trace string
}

// StartTraced is Start, with an append-only file and under strace, which sees what the
// server writes to it and when that is on the disk. The test is skipped where there is no
// strace.
func StartTraced(t testing.TB, args ...string) *Traced {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("there is no strace, which sees what is written and when it is synced: .ci/setup installs it on Linux")
	}
	trace := filepath.Join(t.TempDir(), "trace")
	if output, err := exec.Command(strace, "-f", "-D", "-o", trace, "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here: %v: %s", err, output)
	}
	// -D: redis-server stays the process that was started.
	under := []string{strace, "-D", "-f", "-y", "-s", "0", "-e", "trace=write,fdatasync,fsync", "-e", "signal=none", "-o", trace}
	return &Traced{StartUnder(t, under, append([]string{"--appendonly", "yes"}, args...)...), trace}
}

var (
	callBegun   = regexp.MustCompile(`^(\d+) +(\w+)\(\d+<([^>]*\.incr\.aof)>(.*)$`)
	callResumed = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)$`)
	callEnded   = regexp.MustCompile(`= (\d+)$`)
)

// CutPower kills the server and takes from its append-only file what the power would take
// with it: all that was written after the last sync that came to its end had begun. It
// returns how many bytes those were. The server can be started again; then it is not traced.
func (s *Traced) CutPower() (lost int64) {
	s.t.Helper()
	tracer := tracerOf(s.process.Pid)
	if tracer == "" || tracer == "0" {
		s.t.Fatal("nobody traces the server")
	}
	s.Kill()
	for deadline := time.Now().Add(60 * time.Second); isRunning(tracer); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatal("strace does not end")
		}
	}
	text, err := os.ReadFile(s.trace)
	if err != nil {
		s.t.Fatal(err)
	}
	s.under = nil
	path, written, synced := "", int64(0), int64(0)
	type call struct {
		name  string
		began int64 // bytes that were written when it began
	}
	under := make(map[string]call) // way, of a thread
	finish := func(c call, rest string) {
		result := callEnded.FindStringSubmatch(rest)
		if result == nil {
			return // it failed, or never came to its end
		}
		if c.name == "write" {
			n, _ := strconv.ParseInt(result[1], 10, 64)
			written += n
		} else if result[1] == "0" {
			synced = max(synced, c.began)
		}
	}
	for _, line := range strings.Split(string(text), "\n") {
		if begun := callBegun.FindStringSubmatch(line); begun != nil {
			path = begun[3]
			c := call{begun[2], written}
			if strings.HasSuffix(line, "<unfinished ...>") {
				under[begun[1]] = c
			} else {
				finish(c, begun[4])
			}
		} else if resumed := callResumed.FindStringSubmatch(line); resumed != nil {
			if c, found := under[resumed[1]]; found && c.name == resumed[2] {
				delete(under, resumed[1])
				finish(c, resumed[3])
			}
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		s.t.Fatalf("the append-only file: %v", err)
	}
	if info.Size() < written {
		s.t.Fatalf("%d bytes were written to a file of %d", written, info.Size())
	}
	if err := os.Truncate(path, synced); err != nil {
		s.t.Fatal(err)
	}
	return info.Size() - synced
}

// field returns what /proc says of a process.
func field(process, name string) string {
	status, err := os.ReadFile("/proc/" + process + "/status")
	if err != nil {
		return ""
	}
	_, after, _ := strings.Cut(string(status), "\n"+name+":")
	value, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(value)
}

func tracerOf(process int) string { return field(strconv.Itoa(process), "TracerPid") }

// isRunning is false also of one that has ended and that nobody has asked about.
func isRunning(process string) bool {
	state := field(process, "State")
	return state != "" && !strings.HasPrefix(state, "Z")
}
