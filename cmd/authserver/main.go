// Command authserver is an OAuth 2.1 and OpenID Connect authorization server.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit status: 1 for a failure, 2 for a command line that makes
// no sense.
func run(args []string) int {
	root := newRootCommand(time.Now())
	root.SetArgs(args)
	err := unknownNoun(root, root.Execute())
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "authserver:", err)
	if hint := hintOf(err); hint != "" {
		fmt.Fprintln(os.Stderr, "hint:", hint)
	}
	var usage usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// newRootCommand returns the whole command line. started is when the process did.
func newRootCommand(started time.Time) *cobra.Command {
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
	root.Version = currentVersion().Version // for --version
	root.SetFlagErrorFunc(func(command *cobra.Command, err error) error {
		hint := command.CommandPath() + " --help"
		if strings.HasPrefix(err.Error(), "unknown shorthand flag") { // one id in 64 looks like flags
			hint += "; a KID or GRANT_ID that begins with - goes last, behind --"
		}
		return usageError{withHint(err, "%s", hint)}
	})
	root.AddCommand(newDevCommand(), newServeCommand(started), newConfigCommand(), newStoreCommand(), newBackupCommand(), newRestoreCommand(), newTokenCommand(),
		newKeyCommand(), newClientCommand(), newUserCommand(), newGrantCommand(), newVersionCommand())
	return root
}

// unknownNoun makes a usage error of cobra's untyped one about an unknown command.
func unknownNoun(root *cobra.Command, err error) error {
	var noun string
	if err == nil {
		return nil
	}
	if _, mismatch := fmt.Sscanf(err.Error(), "unknown command %q", &noun); mismatch != nil {
		return err
	}
	return usageError{withHint(fmt.Errorf("unknown command %q%s", noun, suggest(noun, verbsOf(root))), "authserver --help")}
}

func verbsOf(command *cobra.Command) []string {
	var verbs []string
	for _, verb := range command.Commands() {
		verbs = append(verbs, verb.Name())
	}
	return verbs
}

// group is a noun whose verbs are its subcommands.
func group(noun, short, example string, verbs ...*cobra.Command) *cobra.Command {
	command := &cobra.Command{
		Use:     noun,
		Short:   short,
		Example: example,
		// So that the complaint is about an unknown verb and not about its flags.
		FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true},
		RunE: func(command *cobra.Command, args []string) error {
			err := fmt.Errorf("%s needs a verb", noun)
			if len(args) > 0 {
				err = fmt.Errorf("unknown verb %q for %q%s", args[0], command.CommandPath(), suggest(args[0], verbsOf(command)))
			}
			hint := command.CommandPath() + " --help"
			if strings.HasPrefix(err.Error(), "unknown shorthand flag") { // one id in 64 looks like flags
				hint += "; a KID or GRANT_ID that begins with - goes last, behind --"
			}
			return usageError{withHint(err, "%s", hint)}
		},
	}
	command.AddCommand(verbs...)
	return command
}

// arguments requires a number of arguments, else it is a usage error.
func arguments(n int) cobra.PositionalArgs {
	return func(command *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		plural := "s"
		if n == 1 {
			plural = ""
		}
		hint := command.UseLine()
		if last := args[max(0, len(args)-1):]; len(args) > n && command.Flags().Lookup("config") != nil && isConfigFile(last[0]) {
			hint = command.CommandPath() + " --config " + last[0]
		}
		return usageError{withHint(fmt.Errorf("%s takes %d argument%s, %d given", command.CommandPath(), n, plural, len(args)), "%s", hint)}
	}
}

func isConfigFile(name string) bool {
	return slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(name))
}

// outputFormat is the value of -o.
type outputFormat string

const (
	outputText outputFormat = "text"
	outputJSON outputFormat = "json"
)

// outputFlag adds -o to a command that prints data.
func outputFlag(command *cobra.Command) *outputFormat {
	output := outputText
	command.Flags().VarP(&output, "output", "o", "text or json")
	return &output
}

func (o *outputFormat) String() string { return string(*o) }
func (o *outputFormat) Type() string   { return "format" }

func (o *outputFormat) Set(text string) error {
	if text != string(outputText) && text != string(outputJSON) {
		return errors.New("allowed are text and json")
	}
	*o = outputFormat(text)
	return nil
}
