// Command authserver is an OAuth 2.1 and OpenID Connect authorization server.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit status: 1 for a failure, 2 for a command line that makes
// no sense.
func run(args []string) int {
	command := newRootCommand()
	command.SetArgs(args)
	err := command.Execute()
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "authserver:", err)
	if hint := hintOf(err); hint != "" {
		fmt.Fprintln(os.Stderr, "hint:", hint)
	}
	var usage usageError
	if errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown command") {
		return 2
	}
	return 1
}

// usageError is a mistake on the command line.
type usageError struct{ error }

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "authserver",
		Short: "An OAuth 2.1 and OpenID Connect authorization server in one binary",
		Example: "  authserver dev                            # try it, no files needed\n" +
			"  authserver config example > authserver.yaml\n" +
			"  authserver serve                          # the real thing",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(command *cobra.Command, err error) error {
		return usageError{withHint(err, "%s --help", command.CommandPath())}
	})
	root.AddCommand(newDevCommand(), newServeCommand(), newConfigCommand(), newTokenCommand(), newUserCommand(), newVersionCommand())
	return root
}

// group is a noun whose verbs are its subcommands.
func group(noun, short string, verbs ...*cobra.Command) *cobra.Command {
	command := &cobra.Command{
		Use:   noun,
		Short: short,
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{withHint(fmt.Errorf("%s needs a verb", noun), "%s --help", command.CommandPath())}
			}
			return usageError{withHint(fmt.Errorf("unknown verb %q for %q", args[0], command.CommandPath()), "%s --help", command.CommandPath())}
		},
	}
	command.AddCommand(verbs...)
	return command
}

// arguments requires a number of arguments, else it is a usage error.
func arguments(n int) cobra.PositionalArgs {
	return func(command *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{withHint(fmt.Errorf("%s takes %d arguments, %d were given", command.CommandPath(), n, len(args)), "%s", command.UseLine())}
		}
		return nil
	}
}

// outputFlag adds -o to a command that prints data.
func outputFlag(command *cobra.Command, output *string) {
	command.Flags().StringVarP(output, "output", "o", "text", "text or json")
}

func checkOutput(output string) error {
	if output != "text" && output != "json" {
		return usageError{fmt.Errorf("output %q is unknown; allowed are text and json", output)}
	}
	return nil
}
