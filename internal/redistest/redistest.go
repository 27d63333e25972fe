// Package redistest runs real redis-server processes for tests, on loopback, in
// the test's temporary directory.
package redistest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
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
	args    []string
	process *exec.Cmd
}

// Start runs a server with further command-line arguments, for example
// "--appendonly", "yes". It ends with the test.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("redis-server not found: `make test` installs it")
	}
	s := &Server{Addr: freeAddress(t), t: t, dir: t.TempDir()}
	_, port, _ := net.SplitHostPort(s.Addr)
	s.args = append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--daemonize", "no"}, args...)
	s.Restart()
	t.Cleanup(s.Kill)
	return s
}

// freeAddress returns an address whose port nobody listens on. The port of a
// Cluster's bus is 10000 higher, so the port is below 50000.
func freeAddress(t testing.TB) string {
	t.Helper()
	for {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := listener.Addr().(*net.TCPAddr).Port
		listener.Close()
		if port < 50000 {
			return "127.0.0.1:" + strconv.Itoa(port)
		}
	}
}

// URL is the store URL of the server.
func (s *Server) URL() string { return "redis://" + s.Addr }

// Restart starts the server, which has ended, with the data that it had.
func (s *Server) Restart() {
	s.t.Helper()
	s.process = exec.Command("redis-server", s.args...)
	output, err := os.OpenFile(s.dir+"/redis.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer output.Close()
	s.process.Stdout, s.process.Stderr = output, output
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		// One that wants a password first is up, too.
		if answer := s.ask("PING"); strings.HasPrefix(answer, "+PONG") || strings.HasPrefix(answer, "-NOAUTH") {
			return
		}
	}
	log, _ := os.ReadFile(s.dir + "/redis.log")
	s.t.Fatalf("redis-server does not answer:\n%s", log)
}

// ask sends one inline command and returns the beginning of the answer.
func (s *Server) ask(command string) string {
	connection, err := net.DialTimeout("tcp", s.Addr, time.Second)
	if err != nil {
		return ""
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(connection, "%s\r\n", command)
	answer := make([]byte, 4096)
	n, _ := connection.Read(answer)
	return string(answer[:n])
}

// Kill ends the server with SIGKILL.
func (s *Server) Kill() {
	s.process.Process.Kill()
	s.process.Wait()
}

// Stop freezes the server: connections stay, answers do not come.
func (s *Server) Stop() { s.process.Process.Signal(syscall.SIGSTOP) }

// Continue lets a stopped server go on.
func (s *Server) Continue() { s.process.Process.Signal(syscall.SIGCONT) }

// Flush forgets everything that the server holds.
func (s *Server) Flush() {
	s.t.Helper()
	if answer := s.ask("FLUSHALL"); !strings.HasPrefix(answer, "+OK") {
		s.t.Fatalf("FLUSHALL: %q", answer)
	}
}
