package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"authserver/authserver"
	"authserver/keys"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
)

const (
	finishing    = 10 * time.Second // how long requests in flight may take when the listener is closed
	farewell     = 5 * time.Second  // of that, how long requests may take to come in over connections that are there
	defaultDrain = 5 * time.Second  // drain_delay
	maxDrain     = 5 * time.Minute
	maxStreams   = 100 // of one HTTP/2 connection at once
)

func newServeCommand(started time.Time) *cobra.Command {
	var file string
	command := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: "Runs the server with the configuration in a file and in AUTHSERVER_* variables. Without\n" +
			"a file it uses the embedded store in ./data and serves http://localhost:8080.",
		Example: "  authserver serve --config /etc/authserver/authserver.yaml",
		Args:    arguments(0),
		RunE: func(command *cobra.Command, _ []string) (err error) {
			config, warnings, err := loadConfig(file, os.Environ())
			for _, warning := range warnings {
				fmt.Fprintln(command.ErrOrStderr(), "warning:", warning)
			}
			if err != nil {
				return err
			}
			listener, err := listen(config.Listen, "listen")
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(command.Context())
			defer stop()
			log, err := openLog(config.Log, os.Stderr)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, log.Close()) }()
			return serve(ctx, config, listener, log, func(opened *openedStore) {
				log.Info("serving", "event", "server", "state", "started", "issuer", config.Issuer, "address", listener.Addr().String(), "store", opened.description,
					"durability", opened.durability, "version", currentVersion().Version, "ready_after", time.Since(started).String())
			})
		},
	}
	command.Flags().StringVar(&file, "config", "", "configuration file (authserver.yaml if it exists)")
	return command
}

// errInterrupted is why a context of untilSignal has ended when somebody at the terminal
// has ended it, who is no balancer and waits.
var errInterrupted = errors.New("interrupted")

// untilSignal returns a context that ends with the first signal to stop. A second
// one ends the process at once.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		var first os.Signal
		select {
		case first = <-signals:
		case <-ctx.Done():
		}
		signal.Stop(signals)
		if first == os.Interrupt {
			cancel(errInterrupted)
		}
		cancel(nil)
	}()
	return ctx, func() { cancel(nil) }
}

// headroom is how much more garbage may pile up, in bytes, than what the server keeps.
// What it keeps is so little that Go would collect hundreds of times a second under load.
// A block that nobody touches takes no memory, but counts as kept.
const headroom = 10 << 20

// serve is the composition root: it opens what the server is made of, announces
// that it is ready, serves until ctx ends, and closes everything in the opposite
// order.
func serve(ctx context.Context, config *config, listener net.Listener, records *serverLog, announce func(*openedStore)) (err error) {
	defer listener.Close()
	spare := make([]byte, headroom)
	defer runtime.KeepAlive(spare)
	log := records.Logger
	withoutCoreDump(log)
	defer func() {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) { // told to stop before it served
			log.Info("stopped", "event", "server", "state", "stopped")
			err = nil
		}
	}()
	waiting := &arrival{ctx: ctx, log: log, listener: listener, tls: config.TLS, patience: storePatience}
	defer waiting.end(false)
	opened, guarded, err := openGuarded(ctx, config, log, waiting.step)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	guarding, stopGuarding := context.WithCancel(context.Background())
	kept := make(chan struct{})
	go func() { defer close(kept); guarded.Run(guarding) }()
	defer func() { stopGuarding(); <-kept }()
	var masters []keys.MasterKey
	if err = waiting.step(func() (err error) { masters, err = masterKeys(ctx, config, opened, log); return err }); err != nil {
		return err
	}
	keysConfig := config.keysConfig(masters...)
	keysConfig.Store, keysConfig.Logger = authserver.KeyStore(guarded), log
	if config.Keys.Backend != "" {
		if keysConfig.Backend, err = dialBackend(ctx, config.Keys.Backend); err != nil {
			return err
		}
	}
	var manager *keys.Manager
	err = waiting.step(func() (err error) { manager, err = keys.Open(ctx, keysConfig); return err })
	if errors.Is(err, keys.ErrMasterKey) {
		return withHint(err, "put that one where it is read from: %s", config.summary().MasterKey)
	} else if err != nil {
		return err
	}
	waiting.end(true)
	following, stopFollowing := context.WithCancel(context.Background())
	followed := make(chan struct{})
	go func() { defer close(followed); manager.Run(following) }()
	defer func() { stopFollowing(); <-followed }()

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if opened.clock != nil {
		registry.MustRegister(clockOffset{opened.clock})
	}
	serverConfig := config.serverConfig()
	if serverConfig.Login, _, err = config.Branding.pages(); err != nil {
		return fmt.Errorf("branding: %w", err)
	}
	serverConfig.Store, serverConfig.Keys, serverConfig.Logger, serverConfig.Registry = guarded, manager, log, registry
	serverConfig.NotBefore, serverConfig.Backup = guarded.NotBefore, opened.backup
	serverConfig.Shared = config.Store != ""
	server, err := authserver.New(serverConfig)
	if err != nil {
		return err
	}
	running, stopRunning := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); server.Run(running) }()
	defer func() { stopRunning(); <-ran }()
	public := httpServer(server.Handler(), log)
	public.RegisterOnShutdown(stopRunning) // streams end when their readers cannot come back here, before requests in flight finish
	if config.TLS != (tlsConfig{}) {
		certificate, err := newCertificate(config.TLS, log)
		if err != nil {
			return err
		}
		public.TLSConfig = certificate.config()
	}
	stop, err := serveAdmin(config, server, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopAdmin(stop)) }()
	metrics, err := serveMetrics(config.MetricsListen, registry, log)
	if err != nil {
		return err
	}
	defer metrics.Close()
	announce(opened)
	return serveUntil(ctx, public, listener, log, func() {
		server.Drain()
		delay := *config.DrainDelay
		if errors.Is(context.Cause(ctx), errInterrupted) {
			delay = 0
		}
		log.Info("stopping: requests in flight finish first; a second signal ends them", "event", "server", "state", "stopping", "drain_delay", delay.String())
		<-time.After(delay) // a second signal ends the process meanwhile
	})
}

// serveUntil serves until ctx ends and drain, which says so to balancers and clients, has
// returned. Then it closes the listener, and lets requests in flight finish (ATTACKS FT-35).
func serveUntil(ctx context.Context, server *http.Server, listener net.Listener, log *slog.Logger, drain func()) error {
	failed := make(chan error, 1)
	bounded := boundConnections(listener, log)
	server.ConnState, server.ConnContext = bounded.changed, bounded.received
	go func() {
		if server.TLSConfig != nil {
			failed <- server.ServeTLS(bounded, "", "")
		} else {
			failed <- server.Serve(bounded)
		}
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	drain()
	finish, cancel := context.WithTimeout(context.Background(), finishing)
	defer cancel()
	bounded.leave(finish)
	<-failed // nobody accepts connections any more
	release, released := context.WithTimeout(finish, farewell)
	defer released()
	bounded.release(release)
	if err := server.Shutdown(finish); err != nil {
		server.Close()
		return fmt.Errorf("stopping: some requests took longer than %s: %w", finishing, err)
	}
	log.Info("stopped", "event", "server", "state", "stopped")
	return nil
}

func httpServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    32 << 10,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams}, // ATTACKS HT-08
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

func serveMetrics(address string, registry *prometheus.Registry, log *slog.Logger) (*http.Server, error) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := httpServer(mux, log)
	if address == metricsOff {
		return server, nil
	}
	listener, err := listen(address, "metrics_listen")
	if err != nil {
		return nil, err
	}
	go server.Serve(listener)
	return server, nil
}

// listen opens a listener and says what to do when the address is taken.
func listen(address, key string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, withHint(fmt.Errorf("%s %s is in use by another process", key, address), "stop that process or choose another address with %s", key)
	case errors.Is(err, fs.ErrPermission):
		return nil, withHint(fmt.Errorf("listening on %s: %w", address, err),
			"ports below 1024 need root or the capability CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities); or choose a higher one with %s", key)
	case err != nil:
		return nil, withHint(fmt.Errorf("listening on %s: %w", address, err), "choose an address of this machine with %s, for example :8080", key)
	}
	return listener, nil
}

// checkAddress returns what is wrong with a listening address.
func checkAddress(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New("is not an address; write host:port or :port")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 || strings.HasPrefix(port, "+") {
		return errors.New("has no port between 0 and 65535")
	}
	return nil
}
