package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"authserver/authserver"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

const maxPasswordLine = 4096 // bytes; far more than a password may have

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

// readPasswordHash reads a password and returns its hash: the server is sent nothing else.
func readPasswordHash(command *cobra.Command) (string, error) {
	password, err := readPassword(os.Stdin, command.ErrOrStderr())
	if err != nil {
		return "", err
	}
	return authserver.HashPassword(password)
}

// readPassword asks twice at a terminal, and takes one line from anything else.
func readPassword(in *os.File, prompt io.Writer) (string, error) {
	if !term.IsTerminal(int(in.Fd())) {
		line, err := bufio.NewReader(io.LimitReader(in, maxPasswordLine)).ReadString('\n')
		if len(line) == maxPasswordLine {
			return "", errors.New("the line is too long for a password")
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	ask := func(text string) (string, error) {
		fmt.Fprint(prompt, text)
		typed, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(prompt)
		return string(typed), err
	}
	first, err := ask("Password: ")
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	second, err := ask("Again: ")
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	if first != second {
		return "", errors.New("the two passwords differ")
	}
	return first, nil
}
