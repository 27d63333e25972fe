package boltstore_test

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"authserver/store"
	"authserver/store/boltstore"
)

// When the power goes, of what was written since the last fdatasync any part is on the
// disk, also half a page (ATTACKS FT-27). A store is written to under strace; then its
// file is made as a cut after an acknowledgement would leave it, many times over, and
// each opens and holds all that was acknowledged.
func TestPowerCut(t *testing.T) {
	if path := os.Getenv(childFile); path != "" {
		writeUntilKilled(t, path)
		return
	}
	directory, tracing := tracedDirectory(t)
	path := filepath.Join(directory, "store.db")
	killAfter(t, path, 400, tracing...)
	disk := replay(t, path, tracing[len(tracing)-1])
	cuts, torn := 0, 0
	dice := rand.New(rand.NewPCG(1, 2))
	for n, said := range disk.acknowledged {
		if n%10 != 0 && n != len(disk.acknowledged)-1 {
			continue
		}
		file := filepath.Join(directory, "cut.db")
		torn += disk.cut(t, file, said.at, dice)
		s, err := boltstore.Open(file)
		if err != nil {
			t.Fatalf("cut %d: %v", n, err)
		}
		for _, before := range disk.acknowledged[:n+1] {
			if err := verify(t.Context(), s, before.line); err != nil {
				t.Errorf("cut %d: acknowledged %q: %v", n, before.line, err)
			}
		}
		if err := s.Create(t.Context(), "after", nil, store.Forever); err != nil {
			t.Errorf("cut %d: it takes no write: %v", n, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		cuts++
		if t.Failed() {
			break
		}
	}
	if cuts < 40 || torn == 0 {
		t.Errorf("%d cuts, %d writes lost or torn", cuts, torn)
	}
	t.Logf("%d cuts, %d writes lost or torn", cuts, torn)
}

// tracedDirectory returns a directory, and what a process runs under whose writes are to be
// replayed: the last word is the file of the trace.
func tracedDirectory(t *testing.T) (directory string, tracing []string) {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("there is no strace, which sees what is written and when it is synced")
	}
	if directory, err = filepath.EvalSymlinks(t.TempDir()); err != nil { // as the trace has it
		t.Fatal(err)
	}
	trace := filepath.Join(directory, "trace")
	if output, err := exec.Command(strace, "-f", "-o", trace, "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here: %v: %s", err, output)
	}
	return directory, []string{strace, "-f", "-y", "-xx", "-s", "1048576", "-e", "trace=pwrite64,ftruncate,fdatasync,fsync,write", "-e", "signal=none", "-o", trace}
}

// traced is what a process did to its file, in order, and what it acknowledged.
type traced struct {
	effects      []effect
	acknowledged []acknowledgement
}

// effect is a write, a change of the size, or a sync of what was done before it began.
type effect struct {
	offset  int64
	data    []byte
	size    int64 // instead of data, unless it is 0
	covers  int   // of a sync: the effects before this one are on the disk
	isSynch bool
}

type acknowledgement struct {
	line string
	at   int // effects before it
}

var (
	begun   = regexp.MustCompile(`^(\d+) +(\w+)\(\d+<([^>]*)>(?:, )?(.*)$`)
	resumed = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>.*= (-?\d+)`)
)

// replay reads a trace.
func replay(t *testing.T, path, trace string) *traced {
	t.Helper()
	file, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var disk traced
	syncs := make(map[string]int) // of a thread that is at it: effects before it began
	lines := bufio.NewReaderSize(file, 1<<20)
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			return &disk
		} else if err != nil {
			t.Fatal(err)
		}
		line = strings.TrimSuffix(line, "\n")
		if ends := resumed.FindStringSubmatch(line); ends != nil {
			if covers, found := syncs[ends[1]]; found && strings.HasSuffix(ends[2], "sync") && ends[3] == "0" {
				disk.effects = append(disk.effects, effect{isSynch: true, covers: covers})
			}
			delete(syncs, ends[1])
			continue
		}
		call := begun.FindStringSubmatch(line)
		if call == nil {
			continue
		}
		name, err := unquote(call[3])
		if err != nil {
			t.Fatal(err)
		}
		switch mine := name == path; {
		case call[2] == "write":
			if text, err := unquote(quoted(call[4])); err == nil {
				if said, found := strings.CutPrefix(text, "acknowledged "); found {
					disk.acknowledged = append(disk.acknowledged, acknowledgement{strings.TrimSpace(said), len(disk.effects)})
				}
			}
		case !mine:
		case call[2] == "pwrite64":
			data, err := unquote(quoted(call[4]))
			if err != nil {
				t.Fatal(err)
			}
			var length int
			var offset int64
			rest := call[4][strings.LastIndexByte(call[4], '"')+1:]
			if _, err := fmt.Sscanf(rest, ", %d, %d", &length, &offset); err != nil || length != len(data) {
				t.Fatalf("%d bytes in %q, %v", len(data), rest, err)
			}
			disk.effects = append(disk.effects, effect{offset: offset, data: []byte(data)})
		case call[2] == "ftruncate":
			size, err := strconv.ParseInt(regexp.MustCompile(`^\d+`).FindString(call[4]), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			disk.effects = append(disk.effects, effect{size: size})
		case strings.HasSuffix(line, "= 0"):
			disk.effects = append(disk.effects, effect{isSynch: true, covers: len(disk.effects)})
		default: // a sync that does not end at once
			syncs[call[1]] = len(disk.effects)
		}
	}
}

func quoted(text string) string {
	from, to := strings.IndexByte(text, '"'), strings.LastIndexByte(text, '"')
	if from < 0 || to <= from {
		return ""
	}
	return text[from+1 : to]
}

// unquote reads what strace -xx writes: \x2f\x74, and plain text.
func unquote(text string) (string, error) {
	if !strings.HasPrefix(text, `\x`) {
		return text, nil
	}
	data, err := hex.DecodeString(strings.ReplaceAll(text, `\x`, ""))
	return string(data), err
}

// cut makes the file as a power cut leaves it after so many effects: what was synced is
// there; of the rest each write is there, or not, or the beginning of it. It returns how
// many are not there whole.
func (disk *traced) cut(t *testing.T, path string, at int, dice *rand.Rand) (torn int) {
	t.Helper()
	// More was under way when the power went than what had been written by then.
	end := min(len(disk.effects), at+dice.IntN(6))
	kept := 0
	for _, e := range disk.effects[:end] {
		if e.isSynch {
			kept = max(kept, e.covers)
		}
	}
	var left []effect
	for n, e := range disk.effects[:end] {
		if n >= kept && !e.isSynch {
			if dice.IntN(2) == 0 {
				torn++
				continue
			}
			if dice.IntN(2) == 0 && len(e.data) > 512 {
				torn++
				e.data = e.data[:512*dice.IntN(len(e.data)/512)]
			}
		}
		left = append(left, e)
	}
	disk.write(t, path, left)
	return torn
}

// write makes a file by effects.
func (*traced) write(t *testing.T, path string, effects []effect) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, e := range effects {
		if e.size > 0 {
			err = file.Truncate(e.size)
		} else if len(e.data) > 0 {
			_, err = file.WriteAt(e.data, e.offset)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
