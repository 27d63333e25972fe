package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"authserver/authserver"
	"authserver/keys"
	"authserver/store/guard"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func newStoreCommand() *cobra.Command {
	return group("store", "Look at the store, and accept one that has lost something", "  authserver store show",
		newStoreShowCommand(), newStoreAcceptCommand())
}

// withStore runs something on the store that the configuration names, unguarded.
func withStore(command *cobra.Command, file string, do func(ctx context.Context, config *config, opened *openedStore) error) error {
	config, _, err := loadConfig(file, os.Environ())
	if err != nil {
		return err
	}
	ctx, stop := untilSignal(command.Context())
	defer stop()
	opened, err := openStore(ctx, config, newLogger("error"))
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, config, opened), opened.Close())
}

func newStoreShowCommand() *cobra.Command {
	var file string
	command := &cobra.Command{
		Use:   "show",
		Short: "Say whether the store is the one that this instance knows",
		Long: "Compares who the store says it is with what is remembered in the data directory. The\n" +
			"embedded store can be looked at while the server is stopped.",
		Example: "  authserver store show --config authserver.yaml",
		Args:    arguments(0),
	}
	output := outputFlag(command)
	command.Flags().StringVar(&file, "config", "", "configuration file (authserver.yaml if it exists)")
	command.RunE = func(command *cobra.Command, _ []string) error {
		return withStore(command, file, func(ctx context.Context, config *config, opened *openedStore) error {
			standing, err := guard.Inspect(ctx, opened.Store, config.Data)
			if err != nil {
				return err
			}
			if *output == outputJSON {
				state := "known"
				if standing.Lost != nil {
					state = "lost"
				}
				return json.NewEncoder(command.OutOrStdout()).Encode(struct {
					State string `json:"state"`
					guard.Standing
				}{state, standing})
			}
			fmt.Fprint(command.OutOrStdout(), standingText(standing))
			return nil
		})
	}
	return command
}

func standingText(s guard.Standing) string {
	var b strings.Builder
	line := func(who, name, when string) {
		if name == "" {
			name, when = "no store", ""
		}
		fmt.Fprintf(&b, "%-10s %s %s\n", who, name, when)
	}
	line("known", s.Known, s.KnownAt.Format("2006-01-02T15:04:05Z"))
	line("found", s.Found, s.FoundAt.Format("2006-01-02T15:04:05Z"))
	if s.Lost != nil {
		fmt.Fprintln(&b, s.Lost)
	}
	return b.String()
}

// acceptMeans is what whoever accepts a store should know.
const acceptMeans = "Revocations that this store has forgotten cannot be brought back. So that nobody who was signed out\n" +
	"or caught is let in again, every grant, session and token until now ends: all people sign in again.\n" +
	"Users, clients and keys are as they are in the store; passwords, secrets and blocks that were changed\n" +
	"since are not.\n"

func newStoreAcceptCommand() *cobra.Command {
	var file string
	var yes bool
	var clocks time.Duration
	command := &cobra.Command{
		Use:   "accept",
		Short: "Go on with a store that was emptied, restored or replaced",
		Long: "A server that finds its store emptied or rolled back refuses to go on, since the store has\n" +
			"forgotten revocations. First look whether the right store can be put back. If not, stop all\n" +
			"instances, run this on a machine whose data directory knows the store, and start them. They wait\n" +
			"until no clock can be behind what has ended: twice as long as any clock may be off (--clocks), and\n" +
			"not at all for the embedded store, whose server has one clock.\n\n" + acceptMeans,
		Example: "  authserver store accept --config authserver.yaml",
		Args:    arguments(0),
	}
	command.Flags().StringVar(&file, "config", "", "configuration file (authserver.yaml if it exists)")
	command.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	command.Flags().DurationVar(&clocks, "clocks", keys.ClockSkew/2, "how far the clock of any instance may be off, where the store is Redis")
	command.RunE = func(command *cobra.Command, _ []string) error {
		if clocks < 0 || clocks > keys.ClockSkew/2 {
			return withHint(fmt.Errorf("--clocks is %s; allowed are 0s to %s", clocks, keys.ClockSkew/2), "set the clocks of all instances right first")
		}
		return withStore(command, file, func(ctx context.Context, config *config, opened *openedStore) error {
			standing, err := guard.Inspect(ctx, opened.Store, config.Data)
			if err != nil {
				return err
			}
			if standing.Lost == nil {
				return withHint(errors.New("the store is the one that this instance knows: there is nothing to accept"),
					"run it where a server refuses to go on, with its configuration and data directory")
			}
			fmt.Fprint(command.ErrOrStderr(), standingText(standing), "\n", acceptMeans)
			if !yes {
				if err := confirm(os.Stdin, command.ErrOrStderr(), "Go on with this store?"); err != nil {
					return err
				}
			}
			until := time.Now()
			if config.Store != "" {
				until = until.Add(2 * clocks)
			}
			err = audited(config.Log, "store accept", standing.Lost.Error(), func() error {
				// Verifiers first: if the second step fails, the command is repeated.
				if err := authserver.EndAll(ctx, opened.Store, until); err != nil {
					return err
				}
				return guard.Accept(ctx, opened.Store, config.Data, until)
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(command.ErrOrStderr(), "accepted; start the instances, which serve from %s on\n", until.UTC().Add(time.Second).Format(time.RFC3339))
			return err
		})
	}
	return command
}

// confirm asks at a terminal. Where nobody can be asked the answer is no.
func confirm(in *os.File, out io.Writer, question string) error {
	if !term.IsTerminal(int(in.Fd())) {
		return withHint(errors.New("not done, since nobody can be asked: "+question), "--yes answers the question")
	}
	fmt.Fprint(out, question, " [y/N] ")
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return errors.New("not done")
	}
	return nil
}
