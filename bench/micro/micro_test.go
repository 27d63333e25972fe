package micro

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write allocations.txt and instructions.txt")

func BenchmarkOperations(b *testing.B) {
	for _, m := range all(b) {
		b.Run(m.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if m.before != nil {
					b.StopTimer()
					if err := m.before(); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
				if err := m.call(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A change that makes an operation allocate a tenth more than before is seen on any
// machine, whatever else it does.
func TestAllocations(t *testing.T) {
	if raced {
		t.Skip("the race detector allocates; `make test` runs this without it as well")
	}
	var figures []figure
	for _, m := range all(t) {
		found, err := allocations(m.whole)
		if err == nil && m.before != nil {
			var before float64
			before, err = allocations(m.before)
			found -= before
		}
		if err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		figures = append(figures, figure{m.name, found})
	}
	hold(t, "allocations.txt", "allocations", "go test ./micro -run TestAllocations -update (in bench)", figures)
}

// figure is what an operation takes.
type figure struct {
	name string
	n    float64
}

// above says that it is a tenth more than it may be, and more than one.
func (f figure) above(allowed float64) bool { return f.n > allowed*1.1+1 }

// hold fails where a figure is a tenth more than a file says, or writes the file, as
// the command that it names does.
func hold(t *testing.T, file, of, accept string, figures []figure) {
	t.Helper()
	before, err := read(file)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range figures {
		fmt.Fprintf(&text, "%4.0f %s\n", f.n, f.name)
		if allowed, known := before[f.name]; !known && !*update {
			t.Errorf("%s takes %.0f %s, and micro/%s does not say how many it may: %s", f.name, f.n, of, file, accept)
		} else if f.above(allowed) && !*update {
			t.Errorf("%s takes %.0f %s, and by micro/%s it was %.0f: make it take less, or accept it: %s; counted with %s", f.name, f.n, of, file, allowed, accept, runtime.Version())
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// allocations counts those of one call. Others in the process allocate as well, now
// and then, so the least of several counts is the call's own. On a busy machine what
// renews leases and follows revocations is late, and then calls are refused for a while.
func allocations(call func() error) (least float64, err error) {
	deadline := time.Now().Add(time.Minute)
	for left := 10; left > 0; {
		err = nil
		found := testing.AllocsPerRun(30, func() { err = errors.Join(err, call()) })
		switch {
		case err == nil:
			if left == 10 || found < least {
				least = found
			}
			left--
		case time.Now().After(deadline):
			return 0, err
		default:
			time.Sleep(50 * time.Millisecond)
		}
	}
	return least, nil
}

func read(name string) (map[string]float64, error) {
	file, err := os.Open(name)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	known := make(map[string]float64)
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		number, name, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		var n float64
		if _, err := fmt.Sscan(number, &n); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		known[name] = n
	}
	return known, lines.Err()
}
