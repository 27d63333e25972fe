package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"authserver/authserver"
)

// adminSocket is where the server that uses a data directory has its admin socket.
func adminSocket(data string) string { return filepath.Join(data, "admin.sock") }

// serveAdmin opens the admin socket and serves it until stop is called, which lets
// calls in flight finish. Where there is no place for the socket (a read-only file
// system, with Redis as the store), the server serves all the same and says so.
func serveAdmin(config *config, server *authserver.Server, log *slog.Logger) (stop func(context.Context) error, err error) {
	path := adminSocket(config.Data)
	if err = makeDirectory(config.Data, log); err == nil {
		var listener *authserver.AdminListener
		if listener, err = authserver.ListenAdmin(path); err == nil {
			admin := server.AdminServer()
			go admin.Serve(listener)
			log.Info("the operators' commands find the server here", "socket", path)
			return admin.Shutdown, nil
		}
	}
	if errors.Is(err, authserver.ErrAdminInUse) {
		return nil, withHint(err, "stop that server, or give this one a data directory of its own with data")
	}
	log.Error("there is no admin socket, and the operators' commands do not work: give the server a data directory that it may write to",
		"socket", path, "error", err.Error())
	return func(context.Context) error { return nil }, nil
}

// stopAdmin stops the admin socket in the time that requests get to finish.
func stopAdmin(stop func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), finishing)
	defer cancel()
	if err := stop(ctx); err != nil {
		return fmt.Errorf("stopping the admin socket: %w", err)
	}
	return nil
}
