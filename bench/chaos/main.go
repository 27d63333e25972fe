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
	window    time.Duration // tokens.retry_window
	quickKeys bool          // clocks and leases bounded by seconds, so that keys may rotate within a history
	sessions  bool          // nothing but refreshes, twenty times as many, and no faults
}

var scenarios = []scenario{
	{name: "one-embedded", instances: 1, embedded: true, window: time.Minute},
	{name: "one-redis", instances: 1, window: time.Minute},
	{name: "three-redis", instances: 3, window: time.Minute},
	{name: "short-window", instances: 2, window: 2 * time.Second},
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
	progress   int // print totals after so many histories
}

func main() {
	var s settings
	flag.StringVar(&s.binary, "binary", "../bin/authserver", "the server")
	flag.Uint64Var(&s.seed, "seed", uint64(time.Now().UnixNano()), "of the first history")
	flag.IntVar(&s.histories, "histories", 10, "histories of each scenario")
	flag.IntVar(&s.calls, "calls", 500, "calls of a history, about")
	flag.IntVar(&s.people, "people", 8, "people in a history")
	flag.StringVar(&s.scenario, "scenario", "", "only these: one-embedded, one-redis, three-redis, short-window, rotating, sessions, with commas; all but sessions when empty")
	flag.StringVar(&s.save, "save", filepath.Join(os.TempDir(), "authserver-chaos"), "directory for histories that break something")
	flag.IntVar(&s.progress, "progress", 0, "print the totals after so many histories")
	file := flag.String("check", "", "check this saved history again")
	plantedToo := flag.Bool("planted", false, "find planted bugs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *file != "":
		err = checkAgain(*file)
	case *plantedToo:
		err = findPlanted(ctx, s)
	default:
		var total totals
		err = run(ctx, s, &total)
		fmt.Println(total)
		if err == nil && total.violations > 0 {
			err = fmt.Errorf("%d violations", total.violations)
		}
	}
	if err != nil {
		log.Fatal(err)
	}
}

// totals are what was done and found.
type totals struct {
	histories, calls, unanswered, faults, dropped, undecided, violations int
	refreshes, signedOut, thefts, detected                               int
	table                                                                table
}

func (t totals) String() string {
	return fmt.Sprintf("%d histories, %d calls checked (%d without an answer), %d faults, %d answers of Redis lost; %d grants undecided, %d violations\n"+
		"%d refreshes of grants that nobody harmed, %d signed out; %d thefts answered, %d detected\n%s",
		t.histories, t.calls, t.unanswered, t.faults, t.dropped, t.undecided, t.violations, t.refreshes, t.signedOut, t.thefts, t.detected, t.table)
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

func run(ctx context.Context, s settings, total *totals) error {
	wanted, err := s.wanted()
	if err != nil {
		return err
	}
	for _, scenario := range wanted {
		if err := runScenario(ctx, s, scenario, total); err != nil {
			return err
		}
	}
	return nil
}

func runScenario(ctx context.Context, s settings, scenario scenario, total *totals) error {
	before := *total
	if scenario.quickKeys {
		quick, err := plant(quickKeys...)
		if err != nil {
			return fmt.Errorf("building the server with quick keys: %w", err)
		}
		defer os.RemoveAll(filepath.Dir(quick))
		s.binary = quick
	}
	w, err := newWorld(s.binary, s.people, scenario, rand.New(rand.NewPCG(s.seed, 1)))
	if err != nil {
		return fmt.Errorf("%s: %w", scenario.name, err)
	}
	defer w.close()
	for n := range s.histories {
		if ctx.Err() != nil || s.untilFirst && total.violations > 0 {
			break
		}
		h := newHistory(s.seed+uint64(n), scenario.name, scenario.window)
		h.Lease = w.keyLease()
		if w.last != nil {
			w.carry(w.last, h)
		}
		w.last = h
		if err := live(ctx, w, h, s, total); err != nil {
			return fmt.Errorf("%s, seed %d: %w", scenario.name, h.Seed, err)
		}
		w.weigh(h)
		if err := w.searchFiles(h); err != nil {
			return err
		}
		if err := report(h, s, total); err != nil {
			return err
		}
		if err := w.keepLogs(h, s.save); err != nil {
			return err
		}
		if s.progress > 0 && total.histories%s.progress == 0 {
			fmt.Printf("%s so far: %s\n", time.Now().Format(time.TimeOnly), total)
		}
	}
	for _, i := range w.instances {
		if i.proxy != nil {
			total.dropped += int(i.proxy.Dropped.Load())
		}
	}
	fmt.Printf("%s: %d histories, %d calls, %d faults, %d violations (seed %d)\n", scenario.name, total.histories-before.histories,
		total.calls-before.calls, total.faults-before.faults, total.violations-before.violations, s.seed)
	return nil
}

// live lets people live in trouble, and then in peace.
func live(ctx context.Context, w *world, h *history, s settings, total *totals) error {
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
		faults.Go(func() { total.faults += trouble(troubled, w, h, dice) })
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
func report(h *history, s settings, total *totals) error {
	r := h.check(20 * time.Second)
	total.histories++
	total.calls += r.operations
	total.undecided += r.undecided
	total.violations += len(h.Violations)
	total.refreshes += r.refreshes
	total.signedOut += r.signedOut
	total.thefts += r.thefts
	total.detected += r.detected
	total.table.add(r.table)
	for _, c := range h.Calls {
		if c.Outcome == unknown {
			total.unanswered++
		}
	}
	if len(h.Violations) == 0 {
		return nil
	}
	name, err := h.save(s.save)
	if err != nil {
		return err
	}
	for _, v := range h.Violations {
		fmt.Printf("%s, seed %d: %s\n", h.Scenario, h.Seed, v)
	}
	fmt.Println("saved as", name)
	if least := h.minimise(5 * time.Second); least != nil {
		name, err = least.save(s.save)
		fmt.Printf("its shortest beginning that breaks something has %d calls: %s\n", len(least.Calls), name)
	}
	return err
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
