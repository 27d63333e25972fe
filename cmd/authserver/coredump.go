package main

import (
	"log/slog"
	"syscall"
)

// withoutCoreDump lets the system write no image of the process when it crashes: private
// keys, passwords and tokens are in its memory (ATTACKS LG-06). Nobody can raise the limit
// again but root.
func withoutCoreDump(log *slog.Logger) {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		log.Warn("a crash may leave a core dump, which holds keys: set LimitCORE=0, or `ulimit -c 0`", "error", err.Error())
	}
}
