package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"authserver/store/boltstore"

	"github.com/spf13/cobra"
)

func newBackupCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy the embedded store of the running server into a file",
		Long: "Writes the embedded store, as it is at this moment, into a new file with mode 0600 and\n" +
			"reads it back. The server goes on meanwhile. The master key is not in it, and the keys in\n" +
			"it cannot be used without: keep a copy of that somewhere else.",
		Example: "  authserver backup /var/backups/authserver-$(date +%F)",
		Args:    arguments(1),
	}
	o := operated(command)
	command.RunE = func(command *cobra.Command, args []string) error {
		ctx, stop := untilSignal(command.Context())
		defer stop()
		path, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		size, err := writeNewFile(path, func(file *os.File) error {
			request := struct {
				File string `json:"file"`
			}{path}
			if err := o.stream(ctx, "/backup", request, file); err != nil {
				return err
			}
			return checkBackup(file)
		})
		if err != nil {
			return err
		}
		answer := struct {
			File  string `json:"file"`
			Bytes int64  `json:"bytes"`
		}{path, size}
		return o.print(answer, func(w io.Writer) {
			fmt.Fprintf(w, "%s: %d bytes, read back. The master key is not in it.\n", printable(path), size)
		})
	}
	return command
}

// writeNewFile makes a file, of mode 0600, as a whole or not at all, and never over
// another one. When it returns, the file survives a power cut.
func writeNewFile(path string, write func(*os.File) error) (size int64, err error) {
	if _, err := os.Lstat(path); err == nil {
		return 0, withHint(fmt.Errorf("%s exists already, and is not replaced", path), "name a new file, or remove this one first")
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return 0, withHint(err, "name a file in a directory that this user may write to")
	}
	defer os.Remove(file.Name())
	if err = write(file); err == nil {
		err = file.Sync()
	}
	info, statErr := file.Stat()
	if err = errors.Join(err, statErr, file.Close()); err != nil {
		return 0, err
	}
	if err := os.Link(file.Name(), path); err != nil { // which replaces nothing
		return 0, err
	}
	return info.Size(), syncDirectory(filepath.Dir(path))
}

// checkBackup reads a backup from its file, and the store that is in it.
func checkBackup(backup *os.File) (err error) {
	unpacked, err := os.CreateTemp(filepath.Dir(backup.Name()), ".authserver-check-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unpacked.Close(), os.Remove(unpacked.Name())) }()
	return unpack(backup, unpacked)
}

// unpack writes the store that is in a backup to a file, and checks both.
func unpack(backup, into *os.File) error {
	info, err := backup.Stat()
	if err == nil {
		err = boltstore.Unpack(backup, info.Size(), into)
	}
	if err == nil {
		err = boltstore.Verify(into.Name())
	}
	if err != nil {
		return fmt.Errorf("checking the backup: %w", err)
	}
	return nil
}

// restoreMeans is what whoever restores should know.
const restoreMeans = "What happened since the backup was made is not in it: revocations, sign-outs, blocks of users and\n" +
	"clients, changed passwords and secrets, rotated and revoked keys. The server does not start on it until\n" +
	"`authserver store accept` says that this is known. That ends every grant, session and token until then,\n" +
	"so that nobody who was signed out or caught is let in again. Do again what it cannot: disable and remove\n" +
	"users and clients, change secrets that leaked, and revoke keys that were revoked since.\n"

func newRestoreCommand() *cobra.Command {
	var file string
	var yes bool
	command := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a backup in the place of the embedded store, while the server is stopped",
		Long: "Checks a file that `authserver backup` made and makes it the embedded store. The store that\n" +
			"is there is kept beside it under another name. The master key must be the one that the\n" +
			"backup's keys are sealed with.\n\n" + restoreMeans,
		Example: "  authserver restore /var/backups/authserver-2026-11-25 --config authserver.yaml\n" +
			"  authserver store accept --config authserver.yaml",
		Args: arguments(1),
	}
	command.Flags().StringVar(&file, "config", "", "the server's configuration file, which names the data directory (authserver.yaml if it exists)")
	command.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	command.RunE = func(command *cobra.Command, args []string) error {
		config, _, err := loadConfig(file, os.Environ())
		if err != nil {
			return err
		}
		if config.Store != "" {
			return withHint(errors.New("the store is Redis, which restores its own backups"), "see docs/operating.md; then `authserver store accept`")
		}
		ctx, stop := untilSignal(command.Context())
		defer stop()
		return audited(config.Log, "restore", args[0], func() error {
			return restore(ctx, config.Data, args[0], command.ErrOrStderr(), func() error {
				if yes {
					return nil
				}
				return confirm(os.Stdin, command.ErrOrStderr(), "Restore it?")
			})
		})
	}
	return command
}

// restore makes a backup the embedded store of a data directory.
func restore(ctx context.Context, data, name string, out io.Writer, ask func() error) (err error) {
	backup, err := os.Open(name)
	if err != nil {
		return withHint(fmt.Errorf("reading the backup: %w", err), "name a file that `authserver backup` made, and that this user may read")
	}
	defer backup.Close()
	if err := makeDirectory(data, newLogger("warn")); err != nil {
		return err
	}
	place, err := claimStore(data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, place.release()) }()
	unpacked, err := os.CreateTemp(data, ".restored-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(unpacked.Name())
	if err = unpack(backup, unpacked); err == nil {
		err = unpacked.Sync()
	}
	if err = errors.Join(err, unpacked.Close()); err != nil {
		return err
	}
	fmt.Fprint(out, restoreMeans)
	if err := ask(); err != nil {
		return err
	}
	aside, err := place.replace(ctx, unpacked.Name())
	if err != nil {
		return err
	}
	if aside != "" {
		fmt.Fprintf(out, "the store that was there is now %s\n", aside)
	}
	fmt.Fprintln(out, "restored; next: authserver store accept, then start the server")
	return nil
}
