package micro

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write allocations.txt")

const kept = "allocations.txt"

func BenchmarkOperations(b *testing.B) {
	for _, m := range all(b) {
		b.Run(m.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
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
	before, err := read()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, m := range all(t) {
		found, err := allocations(m.call)
		if err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		fmt.Fprintf(&text, "%4.0f %s\n", found, m.name)
		if allowed, known := before[m.name]; !known && !*update {
			t.Errorf("%s allocates %.0f times, and %s does not say how often it may: run this test with -update", m.name, found, kept)
		} else if found > allowed*1.1+1 && !*update {
			t.Errorf("%s allocates %.0f times, before it was %.0f: make it allocate less, or accept it with -update", m.name, found, allowed)
		}
	}
	if *update {
		if err := os.WriteFile(kept, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// allocations counts those of one call. Others in the process allocate as well, now
// and then, so the least of several counts is the call's own.
func allocations(call func() error) (least float64, err error) {
	for i := range 10 {
		found := testing.AllocsPerRun(30, func() { err = errors.Join(err, call()) })
		if i == 0 || found < least {
			least = found
		}
	}
	return least, err
}

func read() (map[string]float64, error) {
	file, err := os.Open(kept)
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
			return nil, fmt.Errorf("%s: %w", kept, err)
		}
		known[name] = n
	}
	return known, lines.Err()
}
