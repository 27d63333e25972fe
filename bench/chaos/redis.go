package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"authserver/bench/internal/process"
)

// redis is a redis-server that fsyncs each write, on a port and a directory that it
// keeps over restarts.
type redis struct {
	port, directory string
	args            []string
	mu              sync.Mutex
	process         *process.Process
}

func startRedis() (*redis, error) {
	port, err := process.FreePort()
	if err != nil {
		return nil, err
	}
	directory, err := os.MkdirTemp("", "authserver-chaos-redis-")
	if err != nil {
		return nil, err
	}
	r := &redis{port: port, directory: directory, args: append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", directory, "--save", ""}, process.Always...)}
	return r, r.start()
}

// start starts it unless it runs, with further arguments.
func (r *redis) start(args ...string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process != nil {
		return nil
	}
	p, err := process.StartApart(r.directory, nil, io.Discard, "redis-server", slices.Concat(r.args, args)...)
	if err != nil {
		return err
	}
	r.process = p
	return process.AwaitPort(r.port)
}

func (r *redis) kill()      { r.stop((*process.Process).Kill) }
func (r *redis) terminate() { r.stop((*process.Process).Stop) }

func (r *redis) stop(how func(*process.Process)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process != nil {
		how(r.process)
		r.process = nil
	}
}

func (r *redis) end() { r.kill(); os.RemoveAll(r.directory) }

// ask sends one command, whose words have no spaces, and returns the answer as it comes.
func (r *redis) ask(command string) (string, error) {
	connection, err := net.DialTimeout("tcp", "127.0.0.1:"+r.port, time.Second)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(2 * time.Second))
	fmt.Fprintf(connection, "%s\r\n", command)
	connection.(*net.TCPConn).CloseWrite() // it answers, and ends the connection
	answer, err := io.ReadAll(connection)
	if err == nil && len(answer) > 0 && answer[0] == '-' {
		err = fmt.Errorf("%s: %s", command, answer)
	}
	return string(answer), err
}

func (r *redis) tell(command string) error {
	_, err := r.ask(command)
	return err
}

func (r *redis) heal() error {
	if err := r.start(); err != nil {
		return err
	}
	for _, one := range refusals {
		if err := one.end(r); err != nil {
			return err
		}
	}
	return nil
}

func (r *redis) signal(s syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process != nil {
		r.process.Signal(s)
	}
}
