// Package redistest runs real redis-server processes for tests, on loopback, in
// the test's temporary directory.
package redistest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Server is a running redis-server.
type Server struct {
	Addr string // host:port

	t       testing.TB
	dir     string
	under   []string // a program and its arguments that the server runs under
	args    []string
	process *os.Process
	ended   <-chan struct{}
}

// Start runs a server with further command-line arguments, for example
// "--appendonly", "yes". It ends with the test.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return StartUnder(t, nil, args...)
}

// StartUnder is Start under a program, which must become the server (exec), with arguments of its own.
func StartUnder(t testing.TB, under []string, args ...string) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("redis-server not found: `make test` installs it")
	}
	s := &Server{t: t, dir: t.TempDir(), under: under}
	for try := 0; ; try++ {
		s.Addr = FreeAddress(t)
		_, port, _ := net.SplitHostPort(s.Addr)
		s.args = append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--daemonize", "no"}, args...)
		if s.start("+PONG") {
			return s
		}
		if try == 20 {
			s.fatal()
		}
	}
}

// FreeAddress returns an address whose port nobody listens on, and whose port of a
// Cluster's bus, 10000 higher, is free too. Both are below the ports that systems give
// to outgoing connections, so that no client takes them before the server does; and no
// other test, of whatever process, gets them until this one has ended.
func FreeAddress(t testing.TB) string {
	t.Helper()
	for {
		port := 10000 + rand.IntN(12000)
		// What listens is a TCP port; the UDP port of the same number says whose it is.
		taken, err := net.ListenPacket("udp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		if isFree(port) && isFree(port+10000) {
			t.Cleanup(func() { taken.Close() })
			return "127.0.0.1:" + strconv.Itoa(port)
		}
		taken.Close()
	}
}

func isFree(port int) bool {
	listener, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return false
	}
	listener.Close()
	return true
}

// URL is the store URL of the server.
func (s *Server) URL() string { return "redis://" + s.Addr }

// Restart starts the server, which has ended, with the data that it had.
func (s *Server) Restart() {
	s.t.Helper()
	if !s.start("+PONG") {
		s.fatal()
	}
}

// RestartLoading is Restart with further arguments, and returns while the server still
// loads its data and says so.
func (s *Server) RestartLoading(args ...string) {
	s.t.Helper()
	s.args = append(s.args, args...)
	if !s.start("-LOADING") {
		s.fatal()
	}
}

// start starts the server and reports whether it answers a PING with this: it does not
// when another process has taken its port.
func (s *Server) start(up string) bool {
	s.t.Helper()
	line := append(slices.Clone(s.under), "redis-server")
	process := exec.Command(line[0], append(line[1:], s.args...)...)
	output, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer output.Close()
	process.Stdout, process.Stderr = output, output
	if err := process.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		process.Wait()
		close(ended)
	}()
	s.process, s.ended = process.Process, ended
	s.t.Cleanup(s.Kill)
	ours := "process_id:" + strconv.Itoa(process.Process.Pid) + "\r\n"
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); {
		// One that wants a password first, or lets nobody ask this, is up, too.
		if answer := s.ask("INFO server"); strings.Contains(answer, ours) && strings.HasPrefix(s.ask("PING"), up) || strings.HasPrefix(answer, "-NO") {
			return true
		}
		select {
		case <-ended:
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
	s.fatal()
	return false
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "redis.log") }

func (s *Server) fatal() {
	s.t.Helper()
	log, _ := os.ReadFile(s.logFile())
	s.t.Fatalf("redis-server does not answer:\n%s", log)
}

// ask sends one inline command and returns the beginning of the answer, and nothing when
// none comes soon: who asks so asks again.
func (s *Server) ask(command string) string {
	connection, err := net.DialTimeout("tcp", s.Addr, 10*time.Second)
	if err != nil {
		return ""
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(connection, "%s\r\n", command)
	answer := make([]byte, 4096)
	n, _ := connection.Read(answer)
	return string(answer[:n])
}

// Dir is the directory of the server's files.
func (s *Server) Dir() string { return s.dir }

// Tell runs a command as the default user and returns the answer, as redis-cli prints it.
func (s *Server) Tell(command ...string) string {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(s.Addr)
	output, err := exec.CommandContext(s.t.Context(), "redis-cli", append([]string{"-h", host, "-p", port}, command...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("redis-cli %s: %v\n%s", strings.Join(command, " "), err, output)
	}
	return strings.TrimSpace(string(output))
}

// Kill ends the server with SIGKILL.
func (s *Server) Kill() {
	s.process.Kill()
	<-s.ended
}

// KillWritten is Kill when the system has all that was acknowledged. A Redis that syncs
// every second writes before it answers, but not while it syncs: a process that is killed
// then loses what was done meanwhile, of up to two seconds. Clients wait until it is dead.
func (s *Server) KillWritten() {
	s.t.Helper()
	s.Tell("CLIENT", "PAUSE", "60000", "WRITE")
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(s.Tell("INFO", "persistence"), "aof_buffer_length:0\r"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatal("redis-server does not write what it has put off")
		}
	}
	s.Kill()
}

// Await waits until the server has ended by itself.
func (s *Server) Await() {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(60 * time.Second):
		s.t.Fatal("redis-server does not end")
	}
}

// Stop freezes the server: connections stay, answers do not come.
func (s *Server) Stop() { s.process.Signal(syscall.SIGSTOP) }

// Continue lets a stopped server go on.
func (s *Server) Continue() { s.process.Signal(syscall.SIGCONT) }

// Flush forgets everything that the server holds.
func (s *Server) Flush() {
	s.t.Helper()
	if answer := s.Tell("FLUSHALL"); answer != "OK" {
		s.t.Fatalf("FLUSHALL: %q", answer)
	}
}
