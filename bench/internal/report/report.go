// Package report writes tables of measurements in Markdown, for docs/figures.md.
package report

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Samples are the results of the rounds of one measurement.
type Samples []float64

// Median is the middle one.
func (s Samples) Median() float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[len(sorted)/2]
}

// Spread writes the least, the median and the most: "53 / 55 / 61".
func (s Samples) Spread(format string) string {
	if len(s) == 0 {
		return "–"
	}
	return fmt.Sprintf(format+" / "+format+" / "+format, slices.Min(s), s.Median(), slices.Max(s))
}

// Table writes rows below a heading.
type Table struct{ out io.Writer }

// NewTable writes the heading.
func NewTable(out io.Writer, columns ...string) Table {
	t := Table{out}
	t.Row(columns...)
	fmt.Fprintln(out, "|"+strings.Repeat("---|", len(columns)))
	return t
}

// Row writes one row.
func (t Table) Row(cells ...string) { fmt.Fprintln(t.out, "| "+strings.Join(cells, " | ")+" |") }

// Milliseconds writes a latency.
func Milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000)
}

// Machine names what the figures were measured on and with.
func Machine() string {
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, after, found := strings.Cut(string(text), "model name\t: "); found {
			model, _, _ = strings.Cut(after, "\n")
		}
	}
	parts := []string{runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, fmt.Sprintf("%d cores of %s", runtime.NumCPU(), model)}
	if version, err := exec.Command("redis-server", "--version").Output(); err == nil {
		if fields := strings.Fields(string(version)); len(fields) > 2 {
			parts = append(parts, "redis-server "+strings.TrimPrefix(fields[2], "v="))
		}
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		parts = append(parts, "load average at the start "+strings.Fields(string(load))[0])
	}
	return strings.Join(parts, ", ") + ", " + time.Now().UTC().Format("2006-01-02 15:04 UTC")
}
