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

var update = flag.Bool("update", false, "write allocations.txt and instructions.txt")

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
	var figures []figure
	for _, m := range all(t) {
		found, err := allocations(m.call)
		if err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		figures = append(figures, figure{m.name, found})
	}
	hold(t, "allocations.txt", "allocations", figures)
}

// figure is what an operation takes.
type figure struct {
	name string
	n    float64
}

// hold fails where a figure is a tenth more than a file says, or writes the file.
func hold(t *testing.T, file, of string, figures []figure) {
	before, err := read(file)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range figures {
		fmt.Fprintf(&text, "%4.0f %s\n", f.n, f.name)
		if allowed, known := before[f.name]; !known && !*update {
			t.Errorf("%s takes %.0f %s, and %s does not say how many it may: run this test with -update", f.name, f.n, of, file)
		} else if f.n > allowed*1.1+1 && !*update {
			t.Errorf("%s takes %.0f %s, before it was %.0f: make it take less, or accept it with -update", f.name, f.n, of, allowed)
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
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
