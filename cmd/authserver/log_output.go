package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxWaitingLog = 4 << 20         // bytes of records that wait for an output
	flushWithin   = 2 * time.Second // longest that the end of the process waits for an output
	syncWithin    = time.Second     // longest that what a file has taken is not on the disk
)

// logOutput stands between whoever logs and an output that may be slow or stuck: a
// pipe that nobody reads, a full disk. Write never waits. Records wait for the output
// up to a bound; those beyond it are lost, counted, and spoken of in the output as
// soon as it takes records again.
type logOutput struct {
	name  string
	into  io.Writer
	total atomic.Int64  // records lost since the start
	fails func(error)   // is told when the output begins to fail
	wakes chan struct{} // something waits, or it is the end
	done  chan struct{} // everything is written, or given up

	mu      sync.Mutex
	waiting []byte
	lost    int64 // records lost since it was last said
	closed  bool
}

// newLogOutput begins to write to an output. fails may be nil.
func newLogOutput(name string, into io.Writer, fails func(error)) *logOutput {
	o := &logOutput{name: name, into: into, fails: fails, wakes: make(chan struct{}, 1), done: make(chan struct{})}
	go o.run()
	return o
}

// Write takes one record, which ends with a line feed.
func (o *logOutput) Write(record []byte) (int, error) {
	o.mu.Lock()
	if o.closed || len(o.waiting)+len(record) > maxWaitingLog {
		o.lost++
		o.total.Add(1)
	} else {
		o.waiting = append(o.waiting, record...)
	}
	o.mu.Unlock()
	o.wake()
	return len(record), nil
}

func (o *logOutput) wake() {
	select {
	case o.wakes <- struct{}{}:
	default:
	}
}

// run writes what waits. While one batch is written, the next one gathers.
func (o *logOutput) run() {
	defer close(o.done)
	var batch []byte
	failing := false
	file, isFile := o.into.(interface{ sync() error })
	var due <-chan time.Time // to sync what was written
	for {
		select {
		case <-o.wakes:
		case <-due:
			due = nil
			if err := file.sync(); err != nil && o.fails != nil {
				o.fails(err)
			}
			continue
		}
		o.mu.Lock()
		batch, o.waiting = o.waiting, batch[:0]
		lost, closed := o.lost, o.closed
		o.lost = 0
		o.mu.Unlock()
		if lost > 0 {
			batch = append(batch, o.lostRecord(lost)...)
		}
		if len(batch) > 0 {
			n, err := o.into.Write(batch)
			if err != nil {
				o.failed(lost, batch[min(n, len(batch)):])
				if !failing && o.fails != nil {
					o.fails(err)
				}
			}
			failing = err != nil
			if isFile && due == nil {
				due = time.After(syncWithin)
			}
		}
		if closed {
			return
		}
	}
}

// failed counts what the output did not take. The record about earlier losses is no
// loss of its own: they are told of again.
func (o *logOutput) failed(lost int64, left []byte) {
	records := int64(bytes.Count(left, []byte("\n")))
	if lost > 0 && records > 0 {
		records--
	} else {
		lost = 0
	}
	o.total.Add(records)
	o.mu.Lock()
	o.lost += lost + records
	o.mu.Unlock()
}

// lostRecord is the record about records that are not there.
func (o *logOutput) lostRecord(lost int64) []byte {
	var record bytes.Buffer
	slog.New(slog.NewJSONHandler(&record, nil)).Error("records were lost before this one: the output did not take them",
		"event", "log_lost", "output", o.name, "records", lost)
	return record.Bytes()
}

// Close lets the output take what waits, for a while. An error says that it still
// has not.
func (o *logOutput) Close() error {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.wake()
	select {
	case <-o.done:
		return nil
	case <-time.After(flushWithin):
		return fmt.Errorf("the log's output %s does not take the last records", o.name)
	}
}
