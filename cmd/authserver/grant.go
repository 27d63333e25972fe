package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"authserver/authserver"

	"github.com/spf13/cobra"
)

func newGrantCommand() *cobra.Command {
	return group("grant", "List and revoke what users granted to clients",
		"  authserver grant list --user alice\n"+
			"  authserver grant revoke --user alice --reason 'lost laptop'",
		newGrantListCommand(), newGrantRevokeCommand())
}

// userFlags adds --user and --sub to a command.
func userFlags(command *cobra.Command, user *authserver.UserRef) {
	command.Flags().StringVar(&user.Username, "user", "", "username")
	command.Flags().StringVar(&user.Subject, "sub", "", "subject identifier, instead of --user")
}

func newGrantListCommand() *cobra.Command {
	var query authserver.GrantQuery
	command := &cobra.Command{
		Use: "list", Args: arguments(0),
		Short:   "List the grants of a user or of a session",
		Example: "  authserver grant list --user alice --client shop",
	}
	o := operated(command)
	userFlags(command, &query.UserRef)
	command.Flags().StringVar(&query.SessionID, "session", "", "session (the claim sid); with --user if it has expired")
	command.Flags().StringVar(&query.ClientID, "client", "", "only those that were given to this client")
	command.RunE = func(*cobra.Command, []string) error {
		if count(query.Username, query.Subject) > 1 || count(query.Username, query.Subject, query.SessionID) == 0 {
			return usageError{withHint(errors.New("grants are listed of a user or of a session"), "authserver grant list --user NAME, --sub SUB or --session SID")}
		}
		all := []authserver.GrantInfo{}
		for query.Limit = 1000; ; {
			var page authserver.GrantPage
			if err := o.call("/grant/list", query, &page); err != nil {
				return err
			}
			all = append(all, page.Grants...)
			if query.Cursor = page.Next; page.Next == "" {
				break
			}
		}
		return o.print(all, func(w io.Writer) {
			rows := [][]string{{"GRANT_ID", "CLIENT_ID", "SCOPE", "CREATED", "REFRESHED", "EXPIRES"}}
			for _, g := range all {
				rows = append(rows, []string{g.GrantID, g.ClientID, g.Scope, when(g.Created), when(g.Refreshed), when(g.Expires)})
			}
			table(w, rows...)
		})
	}
	return command
}

// count counts the texts that are not empty.
func count(texts ...string) int {
	n := 0
	for _, text := range texts {
		if text != "" {
			n++
		}
	}
	return n
}

func newGrantRevokeCommand() *cobra.Command {
	var r authserver.GrantRevoke
	command := &cobra.Command{
		Use: "revoke [GRANT_ID]", Args: optionalArgument,
		Short: "End a grant, or everything of a session, a user or a client",
		Long: "Ends one grant by its id, or all grants and tokens of a session, a user or a client; with --user\n" +
			"and --client those that the user gave to the client. When the command returns, the end is in the\n" +
			"revocation log, /introspect and /token refuse the tokens, and the feed is on its way to verifiers.\n" +
			"Whoever may sign in can sign in again: to prevent it, disable the user or the client.",
		Example: "  authserver grant revoke --user alice --reason 'lost laptop'\n" +
			"  authserver grant revoke --client shop --yes",
	}
	o := operated(command).breaking()
	userFlags(command, &r.UserRef)
	command.Flags().StringVar(&r.SessionID, "session", "", "session (the claim sid); with --user if it has expired")
	command.Flags().StringVar(&r.ClientID, "client", "", "client_id")
	command.Flags().StringVar(&r.Reason, "reason", "", "why, for the audit log")
	command.RunE = func(command *cobra.Command, args []string) error {
		if len(args) == 1 {
			r.GrantID = args[0]
		}
		what, err := describeRevoke(r)
		if err != nil {
			return usageError{withHint(err, "%s --help", command.CommandPath())}
		}
		if err := o.confirm("%s ends, and whoever uses it is signed out. Revoke it?", what); err != nil {
			return err
		}
		var revoked authserver.Revoked
		if err := o.call("/grant/revoke", r, &revoked); err != nil {
			return err
		}
		return o.print(revoked, func(w io.Writer) {
			counted := "all its grants"
			if revoked.Grants != nil {
				counted = strconv.Itoa(*revoked.Grants) + " grants"
			}
			if revoked.Grants != nil && *revoked.Grants == 1 {
				counted = "1 grant"
			}
			fmt.Fprintf(w, "%s ended (%s)\n", what, counted)
		})
	}
	return command
}

// describeRevoke says what a call would end.
func describeRevoke(r authserver.GrantRevoke) (string, error) {
	user := printable(r.Username + r.Subject)
	switch {
	case r.Username != "" && r.Subject != "":
		return "", errors.New("a user is named by --user or by --sub")
	case user != "" && r.ClientID != "" && count(r.GrantID, r.SessionID) == 0:
		return fmt.Sprintf("everything that user %s granted to client %s", user, printable(r.ClientID)), nil
	case user != "" && r.SessionID != "" && count(r.GrantID, r.ClientID) == 0:
		return "everything of session " + printable(r.SessionID) + " of user " + user, nil
	case count(r.GrantID, r.SessionID, user, r.ClientID) != 1:
		return "", errors.New("name a grant, or one of --session, --user and --client")
	case r.GrantID != "":
		return "grant " + printable(r.GrantID), nil
	case r.SessionID != "":
		return "everything of session " + printable(r.SessionID), nil
	case user != "":
		return "everything of user " + user, nil
	}
	return "everything of client " + printable(r.ClientID), nil
}
