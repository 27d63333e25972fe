package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"authserver/authserver"

	"github.com/spf13/cobra"
)

// named lets a command name its user by an argument, or by --sub.
func named(command *cobra.Command, user *authserver.UserRef) {
	command.Flags().StringVar(&user.Subject, "sub", "", "subject identifier, instead of USERNAME")
	command.Args = func(command *cobra.Command, args []string) error {
		if len(args) == 1 && user.Subject == "" {
			user.Username = args[0]
			return nil
		}
		if len(args) == 0 && user.Subject != "" {
			return nil
		}
		return usageError{withHint(errors.New("name one user, by USERNAME or by --sub"), "%s", command.UseLine())}
	}
}

func newUserListCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "list", Short: "List the users, configured and stored", Args: arguments(0),
		Example: "  authserver user list -o json",
	}
	o := operated(command)
	command.RunE = func(*cobra.Command, []string) error {
		all := []authserver.UserInfo{}
		for query := (authserver.ListQuery{Limit: 1000}); ; {
			var page authserver.UserPage
			if err := o.call("/user/list", query, &page); err != nil {
				return err
			}
			all = append(all, page.Users...)
			if query.Cursor = page.Next; page.Next == "" {
				break
			}
		}
		return o.print(all, func(w io.Writer) {
			rows := [][]string{{"USERNAME", "SUB", "ROLES", "SOURCE", "STATE"}}
			for _, u := range all {
				rows = append(rows, []string{u.Username, u.Subject, strings.Join(u.Roles, " "), u.Source, state(u.Disabled)})
			}
			table(w, rows...)
		})
	}
	return command
}

func showUser(w io.Writer, u authserver.UserInfo) {
	password := "none"
	if u.Password != "" {
		password = "set in the " + u.Password
	}
	rows := [][]string{{"username", u.Username}, {"sub", u.Subject}, {"source", u.Source}, {"state", state(u.Disabled)},
		{"roles", strings.Join(u.Roles, " ")}, {"password", password}}
	if u.TOTP {
		rows = append(rows, []string{"second factor", "authenticator app"})
	}
	if u.Passkeys > 0 {
		rows = append(rows, []string{"passkeys", strconv.Itoa(u.Passkeys)})
	}
	if u.TOTP || u.Passkeys > 0 {
		rows = append(rows, []string{"recovery codes", strconv.Itoa(u.RecoveryCodes) + " unused"})
	}
	if len(u.Claims) > 0 {
		claims, err := json.Marshal(u.Claims)
		if err == nil {
			rows = append(rows, []string{"claims", string(claims)})
		}
	}
	if u.Created != 0 {
		rows = append(rows, []string{"created", when(u.Created)})
	}
	table(w, rows...)
}

func newUserShowCommand() *cobra.Command {
	var user authserver.UserRef
	command := &cobra.Command{
		Use: "show USERNAME", Short: "Show a user",
		Example: "  authserver user show alice",
	}
	o := operated(command)
	named(command, &user)
	command.RunE = func(*cobra.Command, []string) error {
		var u authserver.UserInfo
		if err := o.call("/user/show", user, &u); err != nil {
			return err
		}
		return o.print(u, func(w io.Writer) { showUser(w, u) })
	}
	return command
}

func newUserAddCommand() *cobra.Command {
	var user authserver.UserAdd
	var claims []string
	var withoutPassword bool
	command := &cobra.Command{
		Use: "add USERNAME", Args: arguments(1),
		Short: "Add a user, with a password read from the terminal or a pipe",
		Long: "Adds a user. The password is read from the terminal without showing it, or as one line from a\n" +
			"pipe; the server is sent its argon2id hash. --password-hash takes a hash that you have.",
		Example: "  authserver user add carol --role admin --claim email=carol@example.com --claim email_verified=true",
	}
	o := operated(command)
	flags := command.Flags()
	flags.StringVar(&user.Subject, "sub", "", "subject identifier in tokens; one is made without it")
	flags.StringArrayVar(&user.Roles, "role", nil, "a role; may be repeated")
	flags.StringArrayVar(&claims, "claim", nil, "NAME=VALUE, for example email=carol@example.com; a VALUE that is JSON is taken as that; may be repeated")
	flags.StringVar(&user.PasswordHash, "password-hash", "", "argon2id hash, as user hash prints it, instead of a password")
	flags.BoolVar(&withoutPassword, "no-password", false, "the user cannot sign in by password until one is set")
	command.RunE = func(command *cobra.Command, args []string) error {
		user.Username = args[0]
		for _, claim := range claims {
			name, text, found := strings.Cut(claim, "=")
			if !found || name == "" {
				return usageError{fmt.Errorf("--claim %q is not NAME=VALUE", claim)}
			}
			if user.Claims == nil {
				user.Claims = make(map[string]any)
			}
			var value any
			if json.Unmarshal([]byte(text), &value) != nil {
				value = text
			}
			user.Claims[name] = value
		}
		var err error
		if user.PasswordHash != "" && withoutPassword {
			return usageError{errors.New("--password-hash and --no-password are both given")}
		}
		if user.PasswordHash == "" && !withoutPassword {
			if user.PasswordHash, err = readPasswordHash(command); err != nil {
				return err
			}
		}
		var u authserver.UserInfo
		if err := o.call("/user/add", user, &u); err != nil {
			return err
		}
		return o.print(u, func(w io.Writer) { showUser(w, u) })
	}
	return command
}

func newUserPasswordCommand() *cobra.Command {
	var request authserver.UserPassword
	command := &cobra.Command{
		Use:   "password USERNAME",
		Short: "Set a user's password, and end all sessions and tokens",
		Long: "Sets a user's password, read from the terminal or a pipe, and ends what the old one opened. The\n" +
			"password of a configured user is kept in the store; it counts until the configuration says\n" +
			"another password_hash.",
		Example: "  authserver user password alice",
	}
	o := operated(command).breaking()
	named(command, &request.UserRef)
	command.Flags().BoolVar(&request.KeepSessions, "keep-sessions", false, "leave the user's sessions and tokens alone")
	command.Flags().StringVar(&request.PasswordHash, "password-hash", "", "argon2id hash, as user hash prints it, instead of a password")
	command.Flags().StringVar(&request.Reason, "reason", "", "why, for the audit log")
	command.RunE = func(command *cobra.Command, _ []string) error {
		name := printable(request.Username + request.Subject)
		if !request.KeepSessions {
			if err := o.confirm("User %s is signed out everywhere (--keep-sessions prevents it). Set the password?", name); err != nil {
				return err
			}
		}
		if request.PasswordHash == "" {
			var err error
			if request.PasswordHash, err = readPasswordHash(command); err != nil {
				return err
			}
		}
		var u authserver.UserInfo
		if err := o.call("/user/password", request, &u); err != nil {
			return err
		}
		return o.print(u, func(w io.Writer) { fmt.Fprintf(w, "user %s: the password is set\n", printable(u.Username)) })
	}
	return command
}

// newUserEndCommand is disable, remove or reset.
func newUserEndCommand(verb, short string) *cobra.Command {
	done := verb + "d"
	if verb == "reset" {
		done = "the second factors and passkeys are gone"
	}
	var user authserver.UserRef
	command := &cobra.Command{
		Use: verb + " USERNAME", Short: short,
		Example: "  authserver user " + verb + " carol --reason 'left the company'",
	}
	o := operated(command).breaking()
	named(command, &user)
	command.Flags().StringVar(&user.Reason, "reason", "", "why, for the audit log")
	command.RunE = func(*cobra.Command, []string) error {
		var u authserver.UserInfo
		if err := o.call("/user/show", authserver.UserRef{Username: user.Username, Subject: user.Subject}, &u); err != nil {
			return err
		}
		if err := o.confirm("User %s (%s) is signed out everywhere, all tokens end. %s?", printable(u.Username), printable(u.Subject), strings.ToUpper(verb[:1])+verb[1:]); err != nil {
			return err
		}
		if err := o.call("/user/"+verb, authserver.UserRef{Subject: u.Subject, Reason: user.Reason}, &u); err != nil {
			return err
		}
		return o.print(u, func(w io.Writer) {
			fmt.Fprintf(w, "user %s: %s, and all sessions and tokens have ended\n", printable(u.Username), done)
		})
	}
	return command
}

func newUserEnableCommand() *cobra.Command {
	var user authserver.UserRef
	command := &cobra.Command{
		Use: "enable USERNAME", Short: "Enable a user who was disabled",
		Example: "  authserver user enable carol",
	}
	o := operated(command)
	named(command, &user)
	command.RunE = func(*cobra.Command, []string) error {
		var u authserver.UserInfo
		if err := o.call("/user/enable", user, &u); err != nil {
			return err
		}
		return o.print(u, func(w io.Writer) { fmt.Fprintf(w, "user %s: enabled\n", printable(u.Username)) })
	}
	return command
}
