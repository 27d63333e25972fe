// Package process starts the servers that are measured, on loopback, and reads
// from /proc what they used: their CPU apart from the load generator's.
package process

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a running server.
type Process struct {
	command *exec.Cmd
	// Started is when it was executed.
	Started time.Time
}

// Start executes a program in a directory, with further variables in its environment.
func Start(directory string, environment []string, log io.Writer, name string, args ...string) (*Process, error) {
	return start(exec.Command(name, args...), directory, environment, log)
}

// StartApart is Start for a process that an interrupt from the terminal does not reach:
// who has started it ends it.
func StartApart(directory string, environment []string, log io.Writer, name string, args ...string) (*Process, error) {
	command := exec.Command(name, args...)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return start(command, directory, environment, log)
}

func start(command *exec.Cmd, directory string, environment []string, log io.Writer) (*Process, error) {
	command.Dir, command.Stdout, command.Stderr = directory, log, log
	command.Env = append(os.Environ(), environment...)
	p := &Process{command, time.Now()}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", command.Path, err)
	}
	return p, nil
}

// ID is the process id.
func (p *Process) ID() int { return p.command.Process.Pid }

// Stop asks the process to end and waits for it.
func (p *Process) Stop() {
	p.command.Process.Signal(syscall.SIGTERM)
	p.command.Wait()
}

// CPU is the time that all threads of the process have used, from /proc (in ticks
// of 10 ms).
func (p *Process) CPU() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.ID()))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// ResidentMiB is what the process holds in memory now.
func (p *Process) ResidentMiB() float64 { return p.status("VmRSS:") }

// PeakMiB is the most that the process has held in memory.
func (p *Process) PeakMiB() float64 { return p.status("VmHWM:") }

func (p *Process) status(name string) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.ID()))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(status), name)
	var kB float64
	fmt.Sscan(after, &kB)
	return kB / 1024
}

// FreePort returns a port of loopback that nobody listens on.
func FreePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, err
}

// Await calls ready, every millisecond, until it succeeds.
func Await(ready func() error, within time.Duration) error {
	var err error
	for began := time.Now(); time.Since(began) < within; time.Sleep(time.Millisecond) {
		if err = ready(); err == nil {
			return nil
		}
	}
	return errors.Join(errors.New("it does not answer"), err)
}

// AwaitPort waits until somebody listens on a port of loopback.
func AwaitPort(port string) error {
	return Await(func() error {
		connection, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			connection.Close()
		}
		return err
	}, 20*time.Second)
}

// Signal sends a signal, for example SIGSTOP.
func (p *Process) Signal(signal os.Signal) { p.command.Process.Signal(signal) }

// Kill ends the process as a power cut does, and waits until it has.
func (p *Process) Kill() {
	p.command.Process.Kill()
	p.command.Wait()
}

// Alive reports whether the process has not ended by itself.
func (p *Process) Alive() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.ID()))
	_, after, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(after, "Z")
}
