package main

import (
	"bufio"
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

// confirm asks before something breaks or ends.
func (o *operator) confirm(format string, args ...any) error {
	if o.yes {
		return nil
	}
	question := fmt.Sprintf(format, args...)
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return withHint(fmt.Errorf("not done, since nobody can be asked: %s", question), "--yes answers the question")
	}
	fmt.Fprintf(o.command.ErrOrStderr(), "%s [y/N] ", question)
	line, err := bufio.NewReader(io.LimitReader(os.Stdin, 100)).ReadString('\n')
	if err != nil {
		fmt.Fprintln(o.command.ErrOrStderr()) // nobody has ended the line of the question
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return errors.New("not done")
	}
	return nil
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
	typed, err := askSecretly(in, prompt, "Password: ", "Again: ")
	if err != nil {
		return "", err
	}
	if typed[0] != typed[1] {
		return "", errors.New("the two passwords differ")
	}
	return typed[0], nil
}

// askSecretly asks at a terminal for what it does not show. The echo is off before the
// question is there, so that nothing which is typed or pasted quickly shows; Ctrl-C is
// a key like others meanwhile, so that it cannot leave a terminal without echo behind.
func askSecretly(in *os.File, out io.Writer, questions ...string) ([]string, error) {
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("asking at the terminal: %w", err)
	}
	defer term.Restore(int(in.Fd()), before)
	terminal := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{in, out}, "")
	var typed []string
	for _, question := range questions {
		line, err := terminal.ReadPassword(question)
		if err != nil {
			fmt.Fprint(out, "\r\n")
			if errors.Is(err, io.EOF) {
				return nil, errors.New("not done")
			}
			return nil, fmt.Errorf("reading from the terminal: %w", err)
		}
		typed = append(typed, line)
	}
	return typed, nil
}
