package authservertest

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// later is the log of the keys, which are opened before it is known where a test's
// server logs to. What comes before is not kept.
type later struct{ to atomic.Pointer[slog.Logger] }

func (l *later) Enabled(context.Context, slog.Level) bool { return l.to.Load() != nil }

func (l *later) Handle(ctx context.Context, record slog.Record) error {
	return l.to.Load().Handler().Handle(ctx, record)
}

func (l *later) WithAttrs(attrs []slog.Attr) slog.Handler {
	if to := l.to.Load(); to != nil {
		return to.Handler().WithAttrs(attrs)
	}
	return l
}

func (l *later) WithGroup(name string) slog.Handler {
	if to := l.to.Load(); to != nil {
		return to.Handler().WithGroup(name)
	}
	return l
}
