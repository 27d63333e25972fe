package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
)

// ATTACKS LG-06: whatever the limits that it was started with, a server that crashes
// leaves no image of its memory.
func TestNoCoreDump(t *testing.T) {
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &was); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{Cur: was.Max, Max: was.Max}); err != nil { // the server inherits it
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Setrlimit(syscall.RLIMIT_CORE, &was) })
	if was.Max == 0 {
		t.Log("core dumps are off here anyhow")
	}
	directory, port := t.TempDir(), freePort(t)
	p := start(t, directory, "http://localhost:"+port, append(on(port), "GOTRACEBACK=crash"), "serve")
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).Match(limits) {
		t.Errorf("%s", limits)
	}
	p.Process.Signal(syscall.SIGABRT)
	p.Wait()
	status := p.ProcessState.Sys().(syscall.WaitStatus)
	if status.CoreDump() {
		t.Error("it has dumped its memory")
	}
	if left, _ := filepath.Glob(filepath.Join(directory, "core*")); len(left) > 0 {
		t.Errorf("it has left %v", left)
	}
}
