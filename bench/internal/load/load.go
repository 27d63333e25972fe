// Package load puts load on a server and says what came of it.
package load

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Operation is one request, or several that make one unit of work, with its answer
// checked. One Operation is never called twice at a time.
type Operation func() error

// Result is what came of a run.
type Result struct {
	Elapsed   time.Duration
	latencies []time.Duration // sorted
}

// Done is how many operations succeeded.
func (r Result) Done() int { return len(r.latencies) }

// Rate is operations in a second.
func (r Result) Rate() float64 { return float64(len(r.latencies)) / r.Elapsed.Seconds() }

// Percentile returns the latency that p of 100 operations did not exceed; 100 is
// the longest.
func (r Result) Percentile(p float64) time.Duration {
	if len(r.latencies) == 0 {
		return 0
	}
	i := int(p / 100 * float64(len(r.latencies)))
	return r.latencies[min(i, len(r.latencies)-1)]
}

// Join is what came of two runs, one after the other.
func Join(a, b Result) Result {
	latencies := slices.Concat(a.latencies, b.latencies)
	slices.Sort(latencies)
	return Result{Elapsed: a.Elapsed + b.Elapsed, latencies: latencies}
}

// Closed runs every operation in a loop of its own, the next when the last is
// answered. It ends early with an error.
func Closed(operations []Operation, duration time.Duration) (Result, error) {
	began := time.Now()
	return gather(operations, func(_ int, operation Operation, done func(time.Duration)) error {
		for time.Since(began) < duration {
			sent := time.Now()
			if err := operation(); err != nil {
				return err
			}
			done(time.Since(sent))
		}
		return nil
	})
}

// Open begins rate operations a second, whatever becomes of the earlier ones, as
// far as there are free operations to run. A latency counts from when the operation
// was due, so that a server that stalls does not hide it by slowing the load down.
func Open(operations []Operation, rate float64, duration time.Duration) (Result, error) {
	began := time.Now()
	var next atomic.Int64
	return gather(operations, func(_ int, operation Operation, done func(time.Duration)) error {
		for {
			due := began.Add(time.Duration(float64(next.Add(1)-1) / rate * float64(time.Second)))
			if due.Sub(began) >= duration {
				return nil
			}
			time.Sleep(time.Until(due))
			if err := operation(); err != nil {
				return err
			}
			done(time.Since(due))
		}
	})
}

func gather(operations []Operation, loop func(int, Operation, func(time.Duration)) error) (Result, error) {
	began := time.Now()
	latencies, failures := make([][]time.Duration, len(operations)), make([]error, len(operations))
	var wait sync.WaitGroup
	for i, operation := range operations {
		wait.Go(func() {
			failures[i] = loop(i, operation, func(d time.Duration) { latencies[i] = append(latencies[i], d) })
		})
	}
	wait.Wait()
	result := Result{Elapsed: time.Since(began), latencies: slices.Concat(latencies...)}
	slices.Sort(result.latencies)
	return result, errors.Join(failures...)
}
