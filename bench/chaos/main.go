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
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// scenarios are the servers that trouble is made for.
var scenarios = []struct {
	name      string
	instances int
	embedded  bool
	window    time.Duration
}{
	{"one-embedded", 1, true, time.Minute},
	{"one-redis", 1, false, time.Minute},
	{"three-redis", 3, false, time.Minute},
	{"short-window", 2, false, 2 * time.Second},
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
}

func main() {
	var s settings
	flag.StringVar(&s.binary, "binary", "../bin/authserver", "the server")
	flag.Uint64Var(&s.seed, "seed", uint64(time.Now().UnixNano()), "of the first history")
	flag.IntVar(&s.histories, "histories", 10, "histories of each scenario")
	flag.IntVar(&s.calls, "calls", 500, "calls of a history, about")
	flag.IntVar(&s.people, "people", 8, "people in a history")
	flag.StringVar(&s.scenario, "scenario", "", "only this one: one-embedded, one-redis, three-redis, short-window")
	flag.StringVar(&s.save, "save", filepath.Join(os.TempDir(), "authserver-chaos"), "directory for histories that break something")
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
	histories, calls, unanswered, faults, dropped, undecided, keySets, violations int
}

func (t totals) String() string {
	return fmt.Sprintf("%d histories, %d calls checked (%d without an answer), %d faults, %d answers of Redis lost, %d key sets fetched; %d grants undecided, %d violations",
		t.histories, t.calls, t.unanswered, t.faults, t.dropped, t.keySets, t.undecided, t.violations)
}

func run(ctx context.Context, s settings, total *totals) error {
	for _, scenario := range scenarios {
		if s.scenario != "" && s.scenario != scenario.name {
			continue
		}
		before := *total
		w, err := newWorld(s.binary, scenario.instances, s.people, scenario.embedded, scenario.window, rand.New(rand.NewPCG(s.seed, 1)))
		if err != nil {
			return fmt.Errorf("%s: %w", scenario.name, err)
		}
		for n := range s.histories {
			if ctx.Err() != nil || s.untilFirst && total.violations > 0 {
				break
			}
			h := newHistory(s.seed+uint64(n), scenario.name, scenario.window)
			if err = live(ctx, w, h, s, total); err != nil {
				err = fmt.Errorf("%s, seed %d: %w", scenario.name, h.Seed, err)
				break
			}
			if err = report(h, s, total); err != nil {
				break
			}
		}
		for _, i := range w.instances {
			if i.proxy != nil {
				total.dropped += int(i.proxy.Dropped.Load())
			}
		}
		w.close()
		if err != nil {
			return err
		}
		fmt.Printf("%s: %d histories, %d calls, %d faults, %d violations (seed %d)\n", scenario.name, total.histories-before.histories,
			total.calls-before.calls, total.faults-before.faults, total.violations-before.violations, s.seed)
	}
	return nil
}

// live lets people live in trouble, and then in peace.
func live(ctx context.Context, w *world, h *history, s settings, total *totals) error {
	dice := rand.New(rand.NewPCG(h.Seed, 2))
	var grants struct {
		sync.Mutex
		last int
	}
	grants.last = -1
	next := func() int {
		grants.Lock()
		defer grants.Unlock()
		grants.last++
		return grants.last
	}
	var people []*person
	for number := range s.people {
		people = append(people, &person{number: number, world: w, history: h, dice: rand.New(rand.NewPCG(dice.Uint64(), 3)), next: next})
	}
	troubled, calm := context.WithCancel(ctx)
	var faults, around sync.WaitGroup
	faults.Go(func() { total.faults += trouble(troubled, w, h, dice) })
	watching, stopWatching := context.WithCancel(ctx)
	fetched := make([]int, len(w.instances))
	for n, i := range w.instances {
		around.Go(func() { fetched[n] = watchKeys(watching, w, h, i) })
	}
	var all sync.WaitGroup
	for _, p := range people {
		all.Go(func() { p.live(ctx, s.calls/s.people) })
	}
	all.Wait()
	calm()
	faults.Wait()
	err := w.heal(h)
	if err == nil {
		for _, p := range people {
			all.Go(func() { p.settle(ctx) })
		}
		all.Wait()
	}
	stopWatching()
	around.Wait()
	for _, n := range fetched {
		total.keySets += n
	}
	return err
}

// report checks a history and saves it if something broke.
func report(h *history, s settings, total *totals) error {
	r := h.check(20 * time.Second)
	total.histories++
	total.calls += r.operations
	total.undecided += r.undecided
	total.violations += len(h.Violations)
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
		fmt.Printf("its shortest beginning that nothing explains has %d calls: %s\n", len(least.Calls), name)
	}
	return err
}

func checkAgain(name string) error {
	h, err := load(name)
	if err != nil {
		return err
	}
	h.Violations = nil
	r := h.check(time.Minute)
	fmt.Printf("%d calls, %d grants undecided, violations: %q\n", r.operations, r.undecided, h.Violations)
	return nil
}
