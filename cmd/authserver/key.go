package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"authserver/authserver"
	"authserver/keys"

	"github.com/spf13/cobra"
)

func newKeyCommand() *cobra.Command {
	algorithm := group("algorithm", "Begin or end signing with an algorithm",
		"  authserver key algorithm add EdDSA",
		newKeyAlgorithmCommand("add", "Publish keys of an algorithm, before the configuration names it"),
		newKeyAlgorithmCommand("retire", "End the keys of an algorithm that the configuration names no more"))
	return group("key", "Show, rotate, revoke and import the signing keys of the running server",
		"  authserver key list\n"+
			"  authserver key rotate --plan\n"+
			"  authserver key revoke KID --reason 'found in a backup'",
		newKeyListCommand(), newKeyShowCommand(), newKeyRotateCommand(), newKeyRevokeCommand(),
		newKeyImportCommand(), newKeyLogCommand(), algorithm, newKeyRewrapCommand())
}

func newKeyListCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "list", Args: arguments(0),
		Short:   "Show which keys sign, which are published, and when each changes its state",
		Example: "  authserver key list",
	}
	o := operated(command)
	command.RunE = func(*cobra.Command, []string) error {
		var list authserver.KeyList
		if err := o.call("/key/list", struct{}{}, &list); err != nil {
			return err
		}
		return o.print(list, func(w io.Writer) {
			rows := [][]string{{"RING", "KID", "STATE", "SINCE", "NEXT"}}
			for _, ring := range list.Rings {
				for _, k := range ring.Keys {
					next := ""
					if k.Next != nil {
						next = k.Next.To + " " + minute(k.Next.At)
					}
					rows = append(rows, []string{ring.Name, short(k.KeyID), k.State, minute(since(k)), next})
				}
			}
			table(w, rows...)
			fmt.Fprintln(w)
			timeline(w, list, time.Now())
			for _, ring := range list.Rings {
				if silent, from := nothingSigns(ring); silent {
					fmt.Fprintf(w, "\nNOTHING SIGNS for %s%s\n", printable(ring.Name), from)
				}
				if !ring.Retiring.IsZero() {
					fmt.Fprintf(w, "\n%s is to end: asked for at %s\n", printable(ring.Name), minute(ring.Retiring))
				}
			}
			if !list.Signing {
				fmt.Fprintf(w, "\nThis server does not sign: it could not read the stored keys since %s.\n", minute(list.Confirmed))
			}
			if list.FailedRotations > 0 {
				fmt.Fprintf(w, "\n%d steps of this server failed since it started; its log says why.\n", list.FailedRotations)
			}
		})
	}
	return command
}

// nothingSigns reports whether a ring has no key that signs, and says until when.
func nothingSigns(ring keys.RingView) (silent bool, until string) {
	for _, k := range ring.Keys {
		switch {
		case k.State == "active":
			return false, ""
		case k.Next != nil && k.Next.To == "active":
			until = " until " + minute(k.Next.At)
		}
	}
	return true, until
}

// since is when a key came into its state.
func since(k keys.KeyView) time.Time {
	switch {
	case !k.Stopped.IsZero():
		return k.Stopped
	case !k.Activated.IsZero():
		return k.Activated
	}
	return k.Published
}

// minute writes a time to the minute.
func minute(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04Z")
}

const (
	shortKID = 12 // how much of a kid tables show, and enough to name one
	minKID   = 6  // the least that names one
)

func short(kid string) string { return printable(kid[:min(len(kid), shortKID)]) }

// kid returns the whole kid of which the operator gave the beginning.
func (o *operator) kid(beginning string) (string, error) {
	var list authserver.KeyList
	if err := o.call("/key/list", struct{}{}, &list); err != nil {
		return "", err
	}
	var found []string
	for _, ring := range list.Rings {
		for _, k := range ring.Keys {
			if k.KeyID == beginning {
				return beginning, nil
			}
			if len(beginning) >= minKID && strings.HasPrefix(k.KeyID, beginning) {
				found = append(found, k.KeyID)
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		hint := "authserver key list shows all, authserver key log those that are gone"
		if len(beginning) < minKID {
			hint = fmt.Sprintf("give a KID, or %d or more of its first characters; %s", minKID, hint)
		}
		return "", withHint(fmt.Errorf("there is no key %q", beginning), "%s", hint)
	}
	return "", fmt.Errorf("several keys begin with %q: %s", beginning, strings.Join(found, ", "))
}

func newKeyShowCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "show KID", Short: "Show a key, its public half as JWK and PEM", Args: arguments(1),
		Example: "  authserver key show eUVYSsvLfTDg",
	}
	o := operated(command)
	command.RunE = func(_ *cobra.Command, args []string) error {
		kid, err := o.kid(args[0])
		if err != nil {
			return err
		}
		var k keys.PublicKey
		if err := o.call("/key/show", authserver.KeyRef{KeyID: kid}, &k); err != nil {
			return err
		}
		return o.print(k, func(w io.Writer) {
			rows := [][]string{{"kid", k.KeyID}, {"ring", k.Ring}, {"alg", k.Algorithm}, {"state", k.State}, {"published", minute(k.Published)},
				{"activated", minute(k.Activated)}, {"stopped", minute(k.Stopped)}, {"backend", k.Backend}}
			if k.Next != nil {
				rows = append(rows, []string{"next", k.Next.To + " " + minute(k.Next.At)})
			}
			table(w, rows...)
			fmt.Fprintf(w, "\n%s\n\n%s", k.JWK, k.PEM)
		})
	}
	return command
}

func newKeyRevokeCommand() *cobra.Command {
	var reason string
	command := &cobra.Command{
		Use: "revoke KID", Args: arguments(1),
		Short: "Declare a key compromised: its tokens are refused at once",
		Long: "Declares a key compromised. It leaves the key set, its tokens are refused by /introspect, /userinfo\n" +
			"and refresh at once, verifiers that follow the feed are told, and the next key signs. Whoever holds\n" +
			"a token of the key has to get another one.",
		Example: "  authserver key revoke eUVYSsvLfTDg --reason 'found in a backup'",
	}
	o := operated(command).breaking()
	command.Flags().StringVar(&reason, "reason", "", "why, for the key log; required")
	command.RunE = func(command *cobra.Command, args []string) error {
		if strings.TrimSpace(reason) == "" {
			return usageError{withHint(errors.New("--reason is required; it is written to the key log"), "%s", command.UseLine())}
		}
		kid, err := o.kid(args[0])
		if err != nil {
			return err
		}
		if err := o.confirm("All tokens that key %s signed are refused from now on. Revoke it?", printable(kid)); err != nil {
			return err
		}
		var revoked keys.RevokedKey
		if err := o.call("/key/revoke", authserver.KeyRef{KeyID: kid, Reason: reason}, &revoked); err != nil {
			return err
		}
		return o.print(revoked, func(w io.Writer) {
			fmt.Fprintf(w, "key %s of %s is compromised since %s: its tokens are refused, and verifiers that follow the feed are told\n",
				revoked.KeyID, revoked.Ring, minute(revoked.At))
			if !revoked.Exposed.IsZero() {
				fmt.Fprintf(w, "verifiers that do not follow the feed may take its tokens until %s\n", minute(revoked.Exposed))
			}
			switch {
			case revoked.SignsNow != "":
				fmt.Fprintf(w, "key %s signs now\n", revoked.SignsNow)
			case !revoked.SignsFrom.IsZero():
				fmt.Fprintf(w, "NOTHING SIGNS for %s until %s, when no cache can lack the next key; authserver key rotate %s --now does not wait\n",
					revoked.Ring, minute(revoked.SignsFrom), revoked.Ring)
			default:
				fmt.Fprintf(w, "NOTHING SIGNS for %s: its next key is still being made; authserver key list shows when it is there\n", revoked.Ring)
			}
		})
	}
	return command
}

func newKeyAlgorithmCommand(verb, short string) *cobra.Command {
	var request authserver.KeyAlgorithm
	command := &cobra.Command{
		Use: verb + " ALG", Short: short, Args: arguments(1),
		Example: "  authserver key algorithm " + verb + " EdDSA",
	}
	o := operated(command)
	if verb == "retire" {
		o.breaking()
	}
	command.Flags().StringVar(&request.Reason, "reason", "", "why, for the key log")
	command.RunE = func(_ *cobra.Command, args []string) error {
		request.Algorithm = args[0]
		if verb == "retire" {
			if err := o.confirm("Nothing will be signed with %s any more. Retire it?", printable(args[0])); err != nil {
				return err
			}
		}
		var answer authserver.KeyAlgorithmAnswer
		if err := o.call("/key/algorithm/"+verb, request, &answer); err != nil {
			return err
		}
		return o.print(answer, func(w io.Writer) {
			switch {
			case verb == "retire":
				fmt.Fprintf(w, "the keys of %s end at %s, and stay published until their tokens have expired\n", printable(answer.Algorithm), minute(answer.At))
			case answer.At.IsZero():
				fmt.Fprintf(w, "the first key of %s is being made; authserver key list shows from when on it signs\n", printable(answer.Algorithm))
			default:
				fmt.Fprintf(w, "%s signs from %s on; then let keys.algorithms, resources and clients name it\n", printable(answer.Algorithm), minute(answer.At))
			}
		})
	}
	return command
}

func newKeyRewrapCommand() *cobra.Command {
	var request authserver.KeyRewrap
	command := &cobra.Command{
		Use: "rewrap", Args: arguments(0),
		Short: "Seal all private keys under the first master key",
		Long: "Seals all private keys under the first of the master keys. When it returns, no signing key needs\n" +
			"the others.",
		Example: "  authserver key rewrap",
	}
	o := operated(command)
	command.Flags().StringVar(&request.Reason, "reason", "", "why, for the key log")
	command.RunE = func(*cobra.Command, []string) error {
		var done keys.Rewrapped
		if err := o.call("/key/rewrap", request, &done); err != nil {
			return err
		}
		return o.print(done, func(w io.Writer) {
			fmt.Fprintf(w, "%d keys are sealed anew, all of them now under master key %s\n", done.Keys, done.MasterKey)
			if len(done.Unneeded) > 0 {
				fmt.Fprintf(w, "no signing key needs these master keys any more: %s\n", strings.Join(done.Unneeded, ", "))
			}
		})
	}
	return command
}

func newKeyLogCommand() *cobra.Command {
	var query authserver.KeyLogQuery
	command := &cobra.Command{
		Use: "log", Args: arguments(0),
		Short: "Print the key log: every change of a key's state, by whom, why and when",
		Long: "Prints the key log. With --verify it looks for entries that were altered, removed, added or\n" +
			"reordered, and fails if it finds any.",
		Example: "  authserver key log --verify",
	}
	o := operated(command)
	command.Flags().BoolVar(&query.Verify, "verify", false, "find altered, removed and reordered entries")
	command.RunE = func(*cobra.Command, []string) error {
		var log authserver.KeyLog
		if err := o.call("/key/log", query, &log); err != nil {
			return err
		}
		err := o.print(log, func(w io.Writer) {
			for _, e := range log.Entries {
				fmt.Fprintln(w, printable(logLine(e)))
			}
			if log.Verified != nil && len(log.Verified.Problems) == 0 {
				fmt.Fprintf(w, "\n%d entries, none altered, removed or reordered; the hash of the last is %x\n", log.Verified.Entries, log.Verified.Head)
			}
		})
		if err != nil || log.Verified == nil || len(log.Verified.Problems) == 0 {
			return err
		}
		var texts []string
		for _, problem := range log.Verified.Problems {
			texts = append(texts, printable(problem.Text))
		}
		return withHint(fmt.Errorf("the key log is not what was written: %s", strings.Join(texts, "; ")),
			"somebody changed the store, or it was restored from a backup: compare with a copy of the log")
	}
	return command
}

func logLine(e keys.Entry) string {
	what := e.Action
	if e.Action == keys.ActionState {
		what = fmt.Sprintf("%s -> %s", orDash(e.From), e.To)
	}
	line := fmt.Sprintf("%5d  %s  %-22s  %-8s", e.Sequence, e.Time.UTC().Format("2006-01-02 15:04:05Z"), what, e.Ring)
	if e.KeyID != "" {
		line += "  " + short(e.KeyID)
	}
	line += "  " + e.Caller
	for _, why := range []string{e.Why, e.Reason} {
		if why != "" {
			line += ": " + why
		}
	}
	return line
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
