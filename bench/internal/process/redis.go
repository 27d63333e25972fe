package process

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
)

// Redis is a redis-server with a directory of its own.
type Redis struct {
	*Process
	Port      string
	directory string
}

// Everysec and Always are how Redis keeps what it acknowledged.
var (
	Everysec = []string{"--appendonly", "yes", "--appendfsync", "everysec"}
	Always   = []string{"--appendonly", "yes", "--appendfsync", "always"}
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
	p, err := Start(directory, nil, io.Discard, "redis-server",
		append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", directory, "--save", ""}, args...)...)
	if err != nil {
		return nil, err
	}
	r := &Redis{p, port, directory}
	if err := AwaitPort(port); err != nil {
		r.Stop()
		return nil, fmt.Errorf("redis-server: %w", err)
	}
	return r, nil
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
