package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/user"
)

// audited runs a command that changes something without a server, and writes to the
// audit file, if there is one, the record that a server writes of its operators' calls.
// Without the file the command is not run.
func audited(config logConfig, action, whom string, run func() error) error {
	log, err := openLog(config, io.Discard)
	if err != nil {
		return err
	}
	name := ""
	if caller, err := user.Current(); err == nil {
		name = caller.Username
	}
	attrs := []any{"event", "admin", "action", action, "uid", os.Geteuid(), "user", name, "pid", os.Getpid(), "whom", whom}
	level, result := slog.LevelInfo, "ok"
	err = run()
	if err != nil {
		level, result = slog.LevelWarn, "failed"
		attrs = append(attrs, "error", err.Error())
	}
	log.Log(context.Background(), level, "operator's command", append(attrs, "result", result)...)
	return errors.Join(err, log.Close())
}
