// Command chaos runs a built authserver in trouble and checks that nothing that it
// acknowledged is lost. Clients sign in, refresh (in parallel, again when an answer was
// lost, with stolen tokens), revoke and introspect, while servers and Redis are killed,
// stopped, cut off and slowed down. Every call is recorded with its answer or its
// absence, and the history is checked: that some order of the calls explains the
// answers, for each grant (porcupine), and plain invariants. It prints what was
// injected, how much was checked and what broke; a history that breaks something is
// saved, with its seed and its shortest beginning that nothing explains.
//
//	make chaos     a short mix, a few minutes
//	make soak      until it is stopped
//	go run ./chaos -for 60m -parallel 3 -histories 150 -results results.jsonl
//	               an hour at most, and the rest with the same line another time
//	go run ./chaos -seed 42 -histories 1 -scenario three-redis
//	go run ./chaos -check history.json
//	go run ./chaos -planted          bugs are planted in copies of the server and found
//
// The same seed makes the same faults and the same decisions of the clients; what the
// scheduler makes of them differs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// scenario is the servers that trouble is made for.
type scenario struct {
	name      string
	instances int
	embedded  bool
	sentinel  bool          // three Redis behind three Sentinels, and `durability: replicated`
	window    time.Duration // tokens.retry_window
	quickKeys bool          // clocks and leases bounded by seconds, so that keys may rotate within a history
	clocks    bool          // that may be put wrong
	sessions  bool          // nothing but refreshes, twenty times as many, and no faults
	binary    string        // another one than the settings say; with clocks, of the instances alone
}

var scenarios = []scenario{
	{name: "one-embedded", instances: 1, embedded: true, window: time.Minute},
	{name: "one-redis", instances: 1, window: time.Minute},
	{name: "three-redis", instances: 3, window: time.Minute},
	{name: "short-window", instances: 2, window: 2 * time.Second},
	{name: "sentinel", instances: 3, sentinel: true, window: time.Minute},
	{name: "clocks", instances: 2, clocks: true, window: time.Minute},
	{name: "rotating", instances: 3, window: time.Minute, quickKeys: true},
	{name: "sessions", instances: 1, embedded: true, window: time.Minute, sessions: true},
}

// level is that of the log, which is read when something broke.
func (s scenario) level() string {
	if s.sessions {
		return "warn"
	}
	return "debug"
}

type settings struct {
	binary     string
	seed       uint64
	histories  int // of each scenario
	calls      int // of each history, about
	people     int
	scenario   string
	save       string
	untilFirst bool
	planted    bool      // the binary has a bug, and the quick keys that its scenario needs
	progress   int       // print totals after so many histories
	until      time.Time // no history begins after it; zero: there is no end
	parallel   int       // scenarios at once
	results    string    // file; none when empty
}

func main() {
	var s settings
	flag.StringVar(&s.binary, "binary", "../bin/authserver", "the server")
	flag.Uint64Var(&s.seed, "seed", uint64(time.Now().UnixNano()), "of the first history")
	flag.IntVar(&s.histories, "histories", 10, "histories of each scenario")
	flag.IntVar(&s.calls, "calls", 500, "calls of a history, about")
	flag.IntVar(&s.people, "people", 8, "people in a history")
	flag.StringVar(&s.scenario, "scenario", "", "only these, with commas: "+strings.Join(names(), ", ")+"; all but sessions when empty")
	flag.StringVar(&s.save, "save", filepath.Join(os.TempDir(), "authserver-chaos"), "directory for histories that break something")
	flag.IntVar(&s.progress, "progress", 0, "print the totals after so many histories")
	flag.IntVar(&s.parallel, "parallel", 1, "scenarios at once")
	flag.StringVar(&s.results, "results", "", "write what came of each history to this file, and do not repeat those that it has")
	limit := flag.Duration("for", 0, "begin no history after so long")
	file := flag.String("check", "", "check this saved history again")
	plantedToo := flag.Bool("planted", false, "find planted bugs")
	bug := flag.String("bug", "", "with -planted: only the bugs whose names contain this")
	flag.Parse()
	if *limit > 0 {
		s.until = time.Now().Add(*limit)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *file != "":
		err = checkAgain(*file)
	case *plantedToo:
		err = findPlanted(ctx, s, *bug)
	default:
		var total totals
		if err = run(ctx, s, &total); total.Violations > 0 {
			err = errors.Join(err, fmt.Errorf("%d violations", total.Violations))
		}
	}
	if err != nil {
		log.Fatal(err)
	}
}

func names() (names []string) {
	for _, one := range scenarios {
		names = append(names, one.name)
	}
	return names
}

// wanted are the scenarios of this run.
func (s settings) wanted() (wanted []scenario, err error) {
	for _, one := range scenarios {
		if s.scenario == "" && !one.sessions || slices.Contains(strings.Split(s.scenario, ","), one.name) {
			wanted = append(wanted, one)
		}
	}
	if s.scenario != "" && len(wanted) != strings.Count(s.scenario, ",")+1 {
		return nil, fmt.Errorf("-scenario %s: not all of these are known", s.scenario)
	}
	return wanted, nil
}

// perWorld is how many histories the servers of a world see, one after the other.
const perWorld = 25

// batch is histories of one scenario, in one world unless that breaks.
type batch struct {
	scenario scenario
	seeds    []uint64
}

// run makes all histories that are wanted, adds them to total and prints them by scenario.
func run(ctx context.Context, s settings, total *totals) error {
	wanted, err := s.wanted()
	if err != nil {
		return err
	}
	found, err := newResults(s)
	if err != nil {
		return err
	}
	defer found.close()
	for n := range wanted {
		if wanted[n].quickKeys && !s.planted {
			quick, err := plant(quickKeys...)
			if err != nil {
				return fmt.Errorf("building the server with quick keys: %w", err)
			}
			defer os.RemoveAll(filepath.Dir(quick))
			wanted[n].binary = quick
		}
		if wanted[n].clocks {
			directory, err := os.MkdirTemp("", "authserver-clocks-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(directory)
			if wanted[n].binary, err = withClocks("..", directory); err != nil {
				return err
			}
		}
	}
	batches := make(chan batch)
	var failed error
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range max(1, s.parallel) {
		workers.Go(func() {
			for b := range batches {
				if err := runBatch(ctx, s, b, found); err != nil {
					mu.Lock()
					failed = errors.Join(failed, fmt.Errorf("%s: %w", b.scenario.name, err))
					mu.Unlock()
				}
			}
		})
	}
	for first := 0; first < s.histories; first += perWorld {
		for _, one := range wanted {
			b := batch{scenario: one}
			for n := first; n < min(first+perWorld, s.histories); n++ {
				if seed := s.seed + uint64(n); !found.has(one.name, seed) {
					b.seeds = append(b.seeds, seed)
				}
			}
			if len(b.seeds) > 0 && !s.over(ctx, found) {
				batches <- b
			}
		}
	}
	close(batches)
	workers.Wait()
	fmt.Println(found)
	total.add(found.total())
	return failed
}

// over reports whether no further history is to begin.
func (s settings) over(ctx context.Context, found *results) bool {
	return ctx.Err() != nil || !s.until.IsZero() && time.Now().After(s.until) || s.untilFirst && found.total().Violations > 0
}

func runBatch(ctx context.Context, s settings, b batch, found *results) error {
	if b.scenario.quickKeys && b.scenario.binary != "" {
		s.binary = b.scenario.binary
	}
	for len(b.seeds) > 0 && !s.over(ctx, found) {
		if err := runWorld(ctx, s, &b, found); err != nil {
			return err
		}
	}
	return nil
}

// runWorld makes histories of a batch in one world, until one does not come to its end.
func runWorld(ctx context.Context, s settings, b *batch, found *results) error {
	w, err := newWorld(s.binary, s.people, b.scenario, rand.New(rand.NewPCG(b.seeds[0], 1)))
	if err != nil {
		return err
	}
	defer w.close()
	for len(b.seeds) > 0 && !s.over(ctx, found) {
		h := newHistory(b.seeds[0], b.scenario.name, b.scenario.window)
		h.Lease = w.keyLease()
		if w.last != nil {
			w.carry(w.last, h)
		}
		w.last = h
		broken := live(ctx, w, h, s)
		if ctx.Err() != nil {
			return nil // half of it says nothing
		}
		b.seeds = b.seeds[1:]
		if broken != nil {
			h.violation(12, "it does not come to its end: %v", broken)
		}
		w.weigh(h)
		if err := w.searchFiles(h); err != nil {
			return err
		}
		one, err := report(h, s)
		if err != nil {
			return err
		}
		one.Dropped = w.droppedSince()
		if err := found.add(h, one); err != nil {
			return err
		}
		if err := w.keepLogs(h, s.save); err != nil || broken != nil {
			return err
		}
	}
	return nil
}

// live lets people live in trouble, and then in peace.
func live(ctx context.Context, w *world, h *history, s settings) error {
	dice := rand.New(rand.NewPCG(h.Seed, 2))
	var grants atomic.Int64
	next := func() int { return int(grants.Add(1)) - 1 }
	var people []*person
	for number := range s.people {
		people = append(people, &person{number: number, world: w, history: h, dice: rand.New(rand.NewPCG(dice.Uint64(), 3)), next: next})
	}
	troubled, calm := context.WithCancel(ctx)
	defer calm()
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	calls := s.calls
	var faults, around, all sync.WaitGroup
	if w.scenario.sessions {
		calls *= 20
	} else {
		faults.Go(func() { trouble(troubled, w, h, dice) })
	}
	for _, i := range w.instances {
		around.Go(func() { i.watch(watching, w, h) })
	}
	for _, p := range people {
		all.Go(func() { p.live(ctx, calls/s.people) })
	}
	all.Wait()
	calm()
	faults.Wait()
	if ctx.Err() != nil {
		stopWatching()
		around.Wait()
		return ctx.Err()
	}
	err := w.heal(h)
	if h.Calm = h.now(); err == nil {
		for _, p := range people {
			all.Go(func() { p.settle(ctx) })
		}
		all.Wait()
		w.converge(h)
	}
	stopWatching()
	around.Wait()
	return err
}

// report checks a history and saves it if something broke.
func report(h *history, s settings) (totals, error) {
	r := h.check(20 * time.Second)
	one := totals{Histories: 1, Calls: r.operations, Faults: h.Injected, Undecided: r.undecided, Violations: len(h.Violations),
		Refreshes: r.refreshes, SignedOut: r.signedOut, Thefts: r.thefts, Detected: r.detected, Table: r.table}
	for _, c := range h.Calls {
		if c.Outcome == unknown {
			one.Unanswered++
		}
	}
	if len(h.Violations) == 0 {
		return one, nil
	}
	name, err := h.save(s.save)
	if err != nil {
		return one, err
	}
	for _, v := range h.Violations {
		fmt.Printf("%s, seed %d: %s\n", h.Scenario, h.Seed, v)
	}
	fmt.Println("saved as", name)
	if least := h.minimise(5 * time.Second); least != nil {
		name, err = least.save(s.save)
		fmt.Printf("its shortest beginning that breaks something has %d calls: %s\n", len(least.Calls), name)
	}
	return one, err
}

func checkAgain(name string) error {
	h, err := load(name)
	if err != nil {
		return err
	}
	r := h.check(time.Minute)
	fmt.Printf("%d calls, %d grants undecided, %d violations\n%s", r.operations, r.undecided, len(h.Violations), r.table)
	for _, v := range h.Violations {
		fmt.Println(v)
	}
	if len(h.Violations) > 0 {
		return errors.New("the history breaks something")
	}
	return nil
}
