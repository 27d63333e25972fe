package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
)

// newLogger logs to standard error, and waits for it.
func newLogger(level string) *slog.Logger {
	return slog.New(jsonHandler(os.Stderr, level))
}

func jsonHandler(into io.Writer, level string) slog.Handler {
	var threshold slog.Level
	threshold.UnmarshalText([]byte(level)) // the configuration was checked
	return slog.NewJSONHandler(into, &slog.HandlerOptions{Level: threshold})
}

// serverLog is the log of a server. Nothing waits for its outputs.
type serverLog struct {
	*slog.Logger
	outputs []*logOutput
	file    *logFile // of the audit records; nil without one
	hangups chan os.Signal
}

// openLog begins to log to standard error, and what is decided (the records with an
// event) also to the audit file, whatever their level.
func openLog(config logConfig, stderr io.Writer) (*serverLog, error) {
	log := &serverLog{outputs: []*logOutput{newLogOutput("stderr", stderr, nil)}}
	shown := jsonHandler(log.outputs[0], config.Level)
	log.Logger = slog.New(shown)
	// Whoever reads standard error may end; the server does not end with him.
	signal.Ignore(syscall.SIGPIPE)
	if config.AuditFile == "" {
		return log, nil
	}
	var err error
	if log.file, err = openLogFile(config.AuditFile, int64(config.AuditFileSize)<<20, config.AuditFilesKept); err != nil {
		log.Close()
		return nil, withHint(fmt.Errorf("log.audit_file: %w", err), "name a file in a directory that this user may write to")
	}
	stderrOnly := log.Logger
	audit := newLogOutput("audit_file", log.file, func(err error) {
		stderrOnly.Error("the audit file cannot be written; what is lost is counted", "event", "log_lost", "output", "audit_file", "error", err.Error())
	})
	log.outputs = append(log.outputs, audit)
	log.Logger = slog.New(auditHandler{shown: shown, audit: jsonHandler(audit, "debug")})
	log.hangups = make(chan os.Signal, 1)
	signal.Notify(log.hangups, syscall.SIGHUP)
	go func() {
		for range log.hangups {
			log.file.Reopen()
		}
	}()
	return log, nil
}

// Close writes what waits.
func (l *serverLog) Close() error {
	if l.hangups != nil {
		signal.Stop(l.hangups)
		close(l.hangups)
	}
	var errs []error
	for _, output := range l.outputs {
		errs = append(errs, output.Close())
	}
	if err := errors.Join(errs...); err != nil || l.file == nil {
		return err // a file that is still written is not closed
	}
	return l.file.Close()
}

var lostRecords = prometheus.NewDesc("authserver_log_records_lost_total",
	"Records of the log that an output did not take in time, by output: stderr or audit_file.", []string{"output"}, nil)

// Describe implements prometheus.Collector.
func (l *serverLog) Describe(descriptions chan<- *prometheus.Desc) { descriptions <- lostRecords }

// Collect implements prometheus.Collector.
func (l *serverLog) Collect(metrics chan<- prometheus.Metric) {
	for _, output := range l.outputs {
		metrics <- prometheus.MustNewConstMetric(lostRecords, prometheus.CounterValue, float64(output.total.Load()), output.name)
	}
}

// auditHandler sends records with an event to the audit file as well.
type auditHandler struct {
	shown, audit slog.Handler
	event        bool // an attribute of the logger is the event
}

func (h auditHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h auditHandler) Handle(ctx context.Context, record slog.Record) (err error) {
	audited := h.event
	record.Attrs(func(attr slog.Attr) bool {
		audited = audited || attr.Key == "event"
		return !audited
	})
	if audited {
		err = h.audit.Handle(ctx, record.Clone())
	}
	if h.shown.Enabled(ctx, record.Level) {
		err = h.shown.Handle(ctx, record)
	}
	return err
}

func (h auditHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, attr := range attrs {
		h.event = h.event || attr.Key == "event"
	}
	h.shown, h.audit = h.shown.WithAttrs(attrs), h.audit.WithAttrs(attrs)
	return h
}

func (h auditHandler) WithGroup(name string) slog.Handler {
	h.shown, h.audit = h.shown.WithGroup(name), h.audit.WithGroup(name)
	return h
}
