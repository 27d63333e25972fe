// Command bench measures a built authserver on this machine beside the least that
// its work can cost and beside other authorization servers, and prints tables for
// docs/figures.md. All of a table is measured in one run, in interleaved rounds, and
// what counts is the servers' own CPU, which others on the machine disturb least.
//
//	make bench        the tables of docs/figures.md, about 20 minutes
//	make bench-quick  most of them, in fewer and shorter rounds, no open loop, 50 people, 5,000 grants: two minutes
//
// The module is laid out so:
//
//	.                    this command: operations.go, starts.go, signins.go, pages.go, capacity.go
//	internal/process     starts servers and redis-server on loopback; CPU and memory from /proc
//	internal/load        closed and open loops, latencies
//	internal/oauth       clients that check every answer and verify a sample of tokens
//	internal/report      tables with medians and spread; the machine
//	chaos/               trouble for the server, and checked histories; a program of its own
//	floor/               what the operations cost without an authorization server
//	peers/               other authorization servers; modules and packages of their own
//	timing/              a comparison of its own: refusals of unknown clients
//	verify/              another: verifications by package verifier and by other libraries
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"authserver/bench/internal/report"
)

// settings are what the flags say.
type settings struct {
	binary  string
	tools   string // directory of the built floor and peers
	each    time.Duration
	rounds  int
	clients int
	live    sizes
	perUser int // grants, in the table capacity
	people  int
	open    float64

	operations string
	stores     string
}

const (
	maxClients = 100 // each signs in as somebody else
	maxPeople  = 10_000
)

// tables are what can be measured.
var tables = []struct {
	name    string
	measure func(settings) error
}{
	{"operations", measureOperations},
	{"instances", measureInstances},
	{"starts", measureStarts},
	{"signins", measureSignIns},
	{"pages", measurePages},
	{"capacity", measureCapacity},
	{"ending", measureEnding},
	{"expiring", measureExpiring},
}

// sizes are numbers with commas.
type sizes []int

func (n *sizes) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint([]int(*n)), " ", ","), "[]")
}

func (n *sizes) Set(text string) error {
	*n = nil
	for one := range strings.SplitSeq(text, ",") {
		size, err := strconv.Atoi(one)
		if err != nil || size < 1 {
			return fmt.Errorf("%q is no positive number", one)
		}
		*n = append(*n, size)
	}
	return nil
}

func main() {
	var s settings
	flag.StringVar(&s.binary, "binary", "../bin/authserver", "the server to measure")
	flag.StringVar(&s.tools, "tools", "../bin/bench", "directory of the built floor and peers; peers that are not there are left out")
	flag.DurationVar(&s.each, "for", 1500*time.Millisecond, "length of one run")
	flag.IntVar(&s.rounds, "rounds", 5, "interleaved runs of each; tables have their least, median and most")
	flag.IntVar(&s.clients, "clients", 16, "parallel clients, each waiting for its answer")
	s.live = sizes{100_000}
	flag.Var(&s.live, "live", "live grants to measure their size with, with commas; the most of them to end, and each of them to expire")
	flag.IntVar(&s.perUser, "per-user", 1, "live grants of each user in the table capacity")
	flag.IntVar(&s.people, "people", 500, "how many sign in at the same time, in the tables signins and pages")
	flag.Float64Var(&s.open, "open", 0.5, "share of the rate of parallel clients at which operations are offered in an open loop besides; 0: in none")
	flag.StringVar(&s.operations, "operations", "", "part of the names of the operations to compare; all when empty")
	flag.StringVar(&s.stores, "stores", "", "part of the names of the stores of the tables starts, capacity and ending: embedded, Redis; all when empty")
	only := flag.String("only", "operations,instances,starts,signins,pages,capacity,ending,expiring", "tables to measure")
	flag.Parse()
	if err := run(s, strings.Split(*only, ",")); err != nil {
		log.Fatal(err)
	}
}

func run(s settings, only []string) error {
	binary, err := filepath.Abs(s.binary)
	if err != nil {
		return err
	}
	info, err := os.Stat(binary)
	if err != nil {
		return fmt.Errorf("%w; run `make build`", err)
	}
	if s.binary = binary; s.rounds < 1 || s.clients < 1 || s.each <= 0 || s.perUser < 1 || s.open < 0 {
		return errors.New("-rounds, -clients, -for and -per-user must be positive, and -open not negative")
	}
	if s.clients > maxClients || s.people < 1 || s.people > maxPeople {
		return fmt.Errorf("-clients may be %d at most, and -people from 1 to %d", maxClients, maxPeople)
	}
	for _, name := range only {
		if !slices.ContainsFunc(tables, func(t struct {
			name    string
			measure func(settings) error
		}) bool {
			return t.name == name
		}) {
			return fmt.Errorf("-only names an unknown table: %q", name)
		}
	}
	fmt.Printf("%s; authserver %.1f MB; %d clients, %d rounds of %s\n", report.Machine(), float64(info.Size())/1e6, s.clients, s.rounds, s.each)
	for _, table := range tables {
		if slices.Contains(only, table.name) {
			fmt.Printf("\n### %s\n\n", table.name)
			if err := table.measure(s); err != nil {
				return fmt.Errorf("%s: %w", table.name, err)
			}
		}
	}
	return nil
}
