package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
)

func newUserCommand() *cobra.Command {
	return group("user", "List, add, change and remove users of the running server",
		"  authserver user add carol --role admin --claim email=carol@example.com\n"+
			"  authserver user disable carol --reason 'left the company'",
		newUserListCommand(), newUserShowCommand(), newUserAddCommand(), newUserPasswordCommand(),
		newUserEndCommand("reset", "Take all second factors and passkeys from a user who has lost them, and end all sessions"),
		newUserEndCommand("disable", "Let a user do nothing until enabled, and end all sessions and tokens"),
		newUserEnableCommand(),
		newUserEndCommand("remove", "Remove a user and end all sessions and tokens"),
		newUserHashCommand())
}

func newUserHashCommand() *cobra.Command {
	hash := &cobra.Command{
		Use:   "hash",
		Short: "Read a password and print its hash for the configuration file",
		Long: "Reads a password, from the terminal without showing it or one line from a pipe, and\n" +
			"prints the argon2id hash that users[].password_hash takes.",
		Example: "  authserver user hash",
		Args:    arguments(0),
	}
	output := outputFlag(hash)
	hash.RunE = func(command *cobra.Command, _ []string) error {
		phc, err := readPasswordHash(command)
		if err != nil {
			return err
		}
		if *output == outputJSON {
			return json.NewEncoder(command.OutOrStdout()).Encode(map[string]string{"password_hash": phc})
		}
		_, err = fmt.Fprintln(command.OutOrStdout(), phc)
		return err
	}
	return hash
}
