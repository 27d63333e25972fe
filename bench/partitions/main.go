// Command partitions cuts the primary of a Redis behind Sentinel off, again and again,
// with `durability: replicated`, and counts what was lost: three machines, each with a
// Redis, a Sentinel and an authserver, are network namespaces on one bridge, configured
// as docs/operating.md says. The machine of the primary is cut off together with the
// authserver and the clients on it; the Sentinels of the others promote a replica, and
// then the machine comes back.
//
// Meanwhile grants are refreshed at any of the three, one refresh token is presented to
// two of them at once, and grants are revoked. An acknowledged revocation after which a
// token of the grant is accepted anywhere is lost; two successors of one refresh token
// that are both good are a token spent twice; and a client whose current token is
// refused is signed out.
//
//	make build && (cd bench && go run ./partitions -rounds 20)
//
// It needs root and `ip`. All traffic stays in the namespaces.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

func main() {
	binary := flag.String("binary", "../bin/authserver", "the server")
	rounds := flag.Int("rounds", 20, "partitions")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "of what clients do")
	durability := flag.String("durability", "replicated", "what the server is asked for: replicated, or async to see losses")
	flag.Parse()
	if os.Getuid() != 0 {
		log.Fatal("partitions: needs root, to make network namespaces")
	}
	if err := run(*binary, *durability, *rounds, *seed); err != nil {
		log.Fatal(err)
	}
}

// found counts what happened over all rounds.
type found struct {
	sync.Mutex
	refreshes, refused, revocations, raced int
	lost, twice, signedOut                 int
}

func (f *found) add(n *int) { f.Lock(); defer f.Unlock(); *n++ }

func (f *found) String() string {
	return fmt.Sprintf("%d refreshes, %d of one token at two servers, %d revocations acknowledged, %d calls without an answer or refused with 503; "+
		"%d revocations lost, %d tokens spent twice, %d clients signed out", f.refreshes, f.raced, f.revocations, f.refused, f.lost, f.twice, f.signedOut)
}

func run(binary, durability string, rounds int, seed uint64) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	n, err := newNetwork(binary, durability)
	defer n.close()
	if err != nil {
		return err
	}
	total := &found{}
	dice := rand.New(rand.NewPCG(seed, 1))
	done := 0
	for round := range rounds {
		if ctx.Err() != nil {
			break
		}
		refreshes, revocations := total.refreshes, total.revocations
		outage, err := n.round(total, dice)
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		done++
		fmt.Printf("round %d: %d refreshes, %d revocations, another primary after %s\n", round+1,
			total.refreshes-refreshes, total.revocations-revocations, outage.Round(100*time.Millisecond))
	}
	fmt.Printf("%d partitions (durability %s, seed %d): %s\n", done, durability, seed, total)
	if total.lost+total.twice+total.signedOut > 0 {
		return fmt.Errorf("something acknowledged was lost")
	}
	return nil
}

const each = 12 // grants of each kind

// round makes one partition while clients go on, and heals it.
func (n *network) round(total *found, dice *rand.Rand) (outage time.Duration, err error) {
	primary, err := n.primary()
	if err != nil {
		return 0, err
	}
	grants, err := n.signIn(3 * each)
	if err != nil {
		return 0, err
	}
	done := make(chan struct{})
	over := func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
	var all sync.WaitGroup
	for i, g := range grants {
		dice := rand.New(rand.NewPCG(dice.Uint64(), 2))
		all.Go(func() {
			switch i % 3 {
			case 0:
				n.refreshUntil(g, total, dice, over)
			case 1:
				n.raceUntil(g, total, dice, over)
			default:
				n.refreshUntil(g, total, dice, after(time.Duration(dice.IntN(15000))*time.Millisecond))
				n.revokeAndWatch(g, total, dice, over)
			}
		})
	}
	time.Sleep(time.Second)
	began := time.Now()
	err = n.link(primary, "down")
	if err == nil {
		err = await("no other machine becomes primary", func() bool { now, err := n.primaryBy(primary); return err == nil && now != primary })
		outage = time.Since(began)
		time.Sleep(4 * time.Second)
	}
	if up := n.link(primary, "up"); err == nil {
		err = up
	}
	if err == nil {
		err = await("the replicas do not come back", n.whole)
		time.Sleep(2 * time.Second)
	}
	close(done)
	all.Wait()
	if err != nil {
		return 0, err
	}
	for _, g := range grants {
		n.settle(g, total)
	}
	return outage, nil
}

func after(d time.Duration) func() bool {
	end := time.Now().Add(d)
	return func() bool { return time.Now().After(end) }
}
