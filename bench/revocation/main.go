// Command revocation measures how long a revocation takes to the verifiers that
// follow the feed, and what following costs.
//
//	make build && (cd bench && go run ./revocation)
//
// Most followers read frames and note when each came; they do not check signatures,
// of which the two cores that they share with the server could not do enough. Five
// are package verifier, which does, and is asked in a loop until it refuses.
//
// With -tables faults nothing is measured: verifiers of each policy follow through one
// fault after the other (faults.go), and every answer of theirs is checked.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"authserver/bench/internal/report"
)

const complete = 5 // of the followers are package verifier

func main() {
	binary := flag.String("binary", "../bin/authserver", "the server to measure")
	followers := flag.String("followers", "1,100,1000,5000", "how many follow, in turn")
	rounds := flag.Int("rounds", 100, "revocations that are measured, each time")
	rate := flag.Int("rate", 1000, "revocations a second beside those, in the second run of each")
	sizes := flag.String("sizes", "1000,100000,1000000", "live revocations for memory and snapshots; empty for none")
	tables := flag.String("tables", "frames,waiting,memory", "what to measure; faults, too, which is not measured but checked")
	phase := flag.Duration("phase", 20*time.Second, "length of each of the faults but the cut")
	cut := flag.Duration("cut", time.Minute, "length of the cut")
	seed := flag.Uint64("seed", 1, "of the faults")
	flag.Parse()
	if slices.Contains(strings.Split(*tables, ","), "faults") {
		if err := faults(*binary, *phase, *cut, *seed); err != nil {
			log.Fatal(err)
		}
	}
	if err := run(*binary, *tables, numbers(*followers), *rounds, *rate, numbers(*sizes)); err != nil {
		log.Fatal(err)
	}
}

func numbers(list string) []int {
	var found []int
	for text := range strings.SplitSeq(list, ",") {
		if n, err := strconv.Atoi(text); err == nil {
			found = append(found, n)
		}
	}
	return found
}

func run(binary, tables string, followers []int, rounds, rate int, sizes []int) error {
	fmt.Printf("%s\n\n", report.Machine())
	measured := func(name string) bool { return slices.Contains(strings.Split(tables, ","), name) }
	if measured("frames") {
		if err := frames(binary, followers, rounds, rate); err != nil {
			return err
		}
	}
	if measured("waiting") {
		if err := waits(binary, followers, rounds); err != nil {
			return err
		}
	}
	if !measured("memory") || len(sizes) == 0 {
		return nil
	}
	fmt.Println()
	table := report.NewTable(os.Stdout, "live revocations", "start of the server with them", "server resident", "snapshot", "compressed",
		"loading it", "held by a verifier", "one look-up")
	for _, n := range sizes {
		if err := memory(table, binary, n); err != nil {
			return fmt.Errorf("%d live revocations: %w", n, err)
		}
	}
	return nil
}

func frames(binary string, followers []int, rounds, rate int) error {
	table := report.NewTable(os.Stdout, "followers", "revocations/s beside", "revoke → frame at every follower, p50 / p99 / max",
		"revoke → refused by package verifier, p50 / p99 / max", "server CPU", "server resident", "bytes/s to a follower")
	for _, n := range followers {
		for _, beside := range []int{0, rate} {
			if err := latencies(table, binary, n, rounds, beside); err != nil {
				return fmt.Errorf("%d followers: %w", n, err)
			}
		}
	}
	return nil
}

func waits(binary string, followers []int, rounds int) error {
	fmt.Println()
	table := report.NewTable(os.Stdout, "verifiers with a lease", "that never answer", "revocation with wait=enforced, p50 / p99 / max", "acknowledged, on average")
	for _, n := range followers {
		for _, mutes := range []int{0, n / 100} {
			if err := waiting(table, binary, n, mutes, rounds); err != nil {
				return fmt.Errorf("waiting for %d verifiers: %w", n, err)
			}
			if n < 100 {
				break
			}
		}
	}
	return nil
}

// latencies measures one row.
func latencies(table report.Table, binary string, n, rounds, beside int) error {
	scene, err := newScene(binary)
	if err != nil {
		return err
	}
	defer scene.close()
	server, crowd := scene.server, scene.crowd
	if err := crowd.join(n); err != nil {
		return err
	}
	revoker := newRevoker(scene.installed)
	tokens, err := revoker.tokens(rounds)
	if err != nil {
		return err
	}
	if beside > 0 {
		load, err := newRevoker(scene.installed).beside(beside, time.Duration(rounds)*pace+10*time.Second)
		if err != nil {
			return err
		}
		defer load()
	}
	time.Sleep(2 * time.Second)
	began, cpu, bytes := time.Now(), server.CPU(), crowd.bytes.Load()
	var refused []time.Duration
	for _, token := range tokens {
		measured, err := crowd.measure(revoker, token)
		if err != nil {
			return err
		}
		refused = append(refused, measured...)
	}
	elapsed := time.Since(began)
	used, got := server.CPU()-cpu, crowd.bytes.Load()-bytes
	time.Sleep(3 * time.Second)
	frames, err := crowd.arrivals()
	if err != nil {
		return err
	}
	table.Row(fmt.Sprint(n), fmt.Sprint(beside), spread(frames), spread(refused), fmt.Sprintf("%.0f %%", 100*used.Seconds()/elapsed.Seconds()),
		fmt.Sprintf("%.0f MiB", server.ResidentMiB()), fmt.Sprintf("%.0f", float64(got)/elapsed.Seconds()/float64(n)))
	return nil
}

func spread(all []time.Duration) string {
	if len(all) == 0 {
		return "–"
	}
	slices.Sort(all)
	at := func(p float64) string { return report.Milliseconds(all[min(int(p*float64(len(all))), len(all)-1)]) }
	return fmt.Sprintf("%s / %s / %s ms", at(0.5), at(0.99), report.Milliseconds(all[len(all)-1]))
}
