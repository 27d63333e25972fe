package authserver

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"authserver/store"
)

// reports are the latest report of each instance about one fence.
type reports map[string]report

// sum makes one of them. What is not acknowledged when it is called has lapsed, and
// those of others that have not reported have stayed silent.
func (all reports) sum(others []string) Enforcement {
	e := Enforcement{Lapsed: []string{}, NoLease: []string{}}
	for _, r := range all {
		e.Verifiers += r.Verifiers
		e.Acknowledged += r.Acknowledged
		e.Lapsed = append(e.Lapsed, r.Pending...)
		e.Unnamed += r.Verifiers - r.Acknowledged - len(r.Pending)
		e.NoLease = append(e.NoLease, r.NoLease...)
	}
	for _, instance := range others {
		if _, answered := all[instance]; !answered {
			e.Silent++
		}
	}
	slices.Sort(e.Lapsed)
	slices.Sort(e.NoLease)
	return e
}

// gather waits until this instance and the others have all acknowledgements, or ctx
// ends.
func (f *revocationFeed) gather(ctx context.Context, met *fence, others []string) reports {
	var correspondence *correspondence
	if len(others) > 0 {
		correspondence = f.correspond(ctx, met)
	}
	all := reports{}
	ticker := time.NewTicker(fenceStep)
	defer ticker.Stop()
	for {
		all[f.stream] = f.tally(met)
		complete := all[f.stream].done()
		if correspondence != nil {
			correspondence.forward(ctx)
			for instance, r := range correspondence.received() {
				all[instance] = r
			}
			for _, instance := range others {
				r, answered := all[instance]
				complete = complete && answered && r.done()
			}
		}
		if complete {
			return all
		}
		select {
		case <-ctx.Done():
			return all
		case <-ticker.C:
		}
	}
}

// answer reports to the instance that asked, until there is nothing more to say.
func (f *revocationFeed) answer(met *fence) {
	ctx, cancel := context.WithTimeout(context.Background(), enforcedWithin)
	defer cancel()
	correspondence := f.correspond(ctx, met)
	ticker := time.NewTicker(reportStep)
	defer ticker.Stop()
	for last := -1; ; {
		r := f.tally(met)
		if settled := r.Acknowledged + r.Lapsed; r.Sent && settled != last {
			last = settled
			correspondence.send(ctx, r)
		}
		correspondence.forward(ctx)
		select {
		case <-ctx.Done():
			return
		case <-f.ended:
			return
		case <-ticker.C:
		}
	}
}

// correspondence is what instances write to each other about one fence.
type correspondence struct {
	feed *revocationFeed
	met  *fence
	sent map[string]bool // leases that were forwarded

	mu  sync.Mutex
	all reports
}

// correspond reads what others write until ctx ends.
func (f *revocationFeed) correspond(ctx context.Context, met *fence) *correspondence {
	c := &correspondence{feed: f, met: met, sent: make(map[string]bool), all: reports{}}
	go func() {
		for after := store.Position(0); ctx.Err() == nil; {
			events, err := f.server.store.Tail(ctx, reportLog(met.id), after, tailWait)
			if err != nil {
				pause(ctx, tailRetry)
				continue
			}
			for _, event := range events {
				after = event.Position
				c.take(event.Value)
			}
		}
	}()
	return c
}

func (c *correspondence) take(event []byte) {
	var r report
	if err := json.Unmarshal(event, &r); err != nil || r.Instance == c.feed.stream {
		return
	}
	c.feed.leases.forwarded(r.Forwarded, c.met.position)
	if r.Forwarded == nil {
		c.mu.Lock()
		c.all[r.Instance] = r
		c.mu.Unlock()
	}
}

func (c *correspondence) received() reports {
	c.mu.Lock()
	defer c.mu.Unlock()
	copied := reports{}
	for instance, r := range c.all {
		copied[instance] = r
	}
	return copied
}

// forward passes acknowledgements on that came here for leases of other instances.
func (c *correspondence) forward(ctx context.Context) {
	var forwarded []string
	c.feed.leases.mu.Lock()
	for id, ack := range c.feed.leases.foreign {
		if ack.position >= c.met.position && !c.sent[id] && len(forwarded) < maxForwarded {
			c.sent[id] = true
			forwarded = append(forwarded, id)
		}
	}
	c.feed.leases.mu.Unlock()
	if len(forwarded) > 0 {
		c.send(ctx, report{Instance: c.feed.stream, Forwarded: forwarded})
	}
}

// send writes a report. One that is lost is made up for by the end of the leases.
func (c *correspondence) send(ctx context.Context, r report) {
	event, err := json.Marshal(r)
	if err == nil {
		_, err = c.feed.server.store.Append(ctx, reportLog(c.met.id), event, reportsKept)
	}
	if err != nil && ctx.Err() == nil {
		c.feed.server.log.Warn("a report about revocations could not be written", "error", err)
	}
}
