package process

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Redis is a redis-server with a directory of its own.
type Redis struct {
	*Process
	Port      string
	directory string
	arguments []string
}

// Everysec and Always are how Redis keeps what it acknowledged.
var (
	Everysec = []string{"--appendonly", "yes", "--appendfsync", "everysec"}
	Always   = []string{"--appendonly", "yes", "--appendfsync", "always"}
)

// What docs/operating.md sets so that grants take less, and what Redis has without that.
var (
	compact   = []string{"--hash-max-listpack-value", "512"}
	AsItComes = []string{"--hash-max-listpack-value", "64"}
)

// StartRedis starts a redis-server without snapshots.
func StartRedis(args ...string) (*Redis, error) {
	directory, err := os.MkdirTemp("", "authserver-bench-redis-")
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	r := &Redis{Port: port, directory: directory,
		arguments: slices.Concat([]string{"--port", port, "--bind", "127.0.0.1", "--dir", directory, "--save", ""}, compact, args)}
	return r, r.start()
}

func (r *Redis) start() (err error) {
	if r.Process, err = Start(r.directory, nil, io.Discard, "redis-server", r.arguments...); err != nil {
		return err
	}
	if err := AwaitPort(r.Port); err != nil {
		r.Stop()
		return fmt.Errorf("redis-server: %w", err)
	}
	return nil
}

// Restart kills it and starts it on what it has on its disk.
func (r *Redis) Restart() error {
	r.Kill()
	return r.start()
}

// Stop ends it and removes its directory.
func (r *Redis) Stop() {
	r.Process.Stop()
	os.RemoveAll(r.directory)
}

// Info returns one number of Redis's INFO, such as used_memory.
func (r *Redis) Info(name string) (int64, error) {
	connection, err := net.Dial("tcp", "127.0.0.1:"+r.Port)
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	if _, err := io.WriteString(connection, "INFO everything\r\nQUIT\r\n"); err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(connection); lines.Scan(); {
		if found, value, _ := strings.Cut(lines.Text(), ":"); found == name {
			return strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, fmt.Errorf("redis-server does not say what its %s is", name)
}

// Version returns what redis-server calls itself.
func (r *Redis) Version() string {
	connection, err := net.Dial("tcp", "127.0.0.1:"+r.Port)
	if err != nil {
		return ""
	}
	defer connection.Close()
	io.WriteString(connection, "INFO server\r\nQUIT\r\n")
	for lines := bufio.NewScanner(connection); lines.Scan(); {
		if version, found := strings.CutPrefix(lines.Text(), "redis_version:"); found {
			return strings.TrimSpace(version)
		}
	}
	return ""
}
