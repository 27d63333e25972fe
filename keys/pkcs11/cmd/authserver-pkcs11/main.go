// Authserver-pkcs11 keeps authserver's signing keys in a PKCS #11 token and answers
// on a unix socket, which authserver is given as keys.backend:
//
//	authserver-pkcs11 --module /usr/lib/softhsm/libsofthsm2.so --token authserver \
//	    --pin-file /run/secrets/pin --socket /run/authserver/pkcs11.sock
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"authserver/keys/pkcs11"
	"authserver/keys/remote"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		if errors.As(err, new(usageError)) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

type usageError struct{ error }

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("authserver-pkcs11", flag.ContinueOnError)
	module := flags.String("module", "", "the vendor's PKCS #11 library")
	token := flags.String("token", "", "label of the token")
	pinFile := flags.String("pin-file", "", "file with the PIN of the token's user")
	socket := flags.String("socket", "", "the unix socket to answer on; only its owner may use it")
	sessions := flags.Int("sessions", 16, "signatures that are made at once")
	if err := flags.Parse(args); err != nil {
		return usageError{err}
	}
	for name, value := range map[string]string{"module": *module, "token": *token, "pin-file": *pinFile, "socket": *socket} {
		if value == "" {
			return usageError{fmt.Errorf("--%s is missing", name)}
		}
	}
	if flags.NArg() > 0 || *sessions < 2 || *sessions > 1024 {
		return usageError{errors.New("it takes flags only, and --sessions of 2 to 1024")}
	}
	info, err := os.Stat(*pinFile)
	if err != nil {
		return fmt.Errorf("reading the PIN: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return fmt.Errorf("the PIN file %s is open to every user of this machine (mode %04o)\nhint: chmod 600 %s", *pinFile, info.Mode().Perm(), *pinFile)
	}
	pin, err := os.ReadFile(*pinFile)
	if err != nil {
		return fmt.Errorf("reading the PIN: %w", err)
	}
	backend, err := pkcs11.Open(pkcs11.Config{Module: *module, Token: *token, PIN: strings.TrimRight(string(pin), "\r\n"), Sessions: *sessions})
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	log.Info("serving", "token", *token, "socket", *socket)
	return errors.Join(remote.Serve(ctx, *socket, backend, log), backend.Close())
}
