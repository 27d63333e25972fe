package process

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Who is configured in every measured authserver.
const (
	ClientID    = "web"
	Secret      = "0123456789abcdef0123456789abcdef"
	Username    = "alice"
	Password    = "wonderland"
	RedirectURI = "http://localhost/callback"
	Resource    = "https://api.example.com"
)

// Installation is a directory with a configuration and, after the first start,
// keys and an embedded store. It can be started several times, in turn; with
// Redis several at once.
type Installation struct {
	Binary    string
	Directory string
	Base      string // the issuer: http://localhost and a port
	Port      string
}

// Options say what an installation is configured with.
type Options struct {
	RedisPort string // empty for the embedded store
	People    int    // users user0, user1, … beside alice, with her password
	Clients   string // further clients, as items of a YAML list in brackets
	More      string // further lines of configuration
}

// Install writes a configuration for a built authserver.
func Install(binary string, options Options) (*Installation, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	directory, err := os.MkdirTemp("", "authserver-bench-")
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	hashing := exec.Command(binary, "user", "hash")
	hashing.Stdin = strings.NewReader(Password + "\n")
	output, err := hashing.Output()
	if err != nil {
		return nil, fmt.Errorf("hashing a password: %w", err)
	}
	phc := strings.TrimSpace(string(output))
	var users, store strings.Builder
	fmt.Fprintf(&users, "{username: %s, password_hash: %q}", Username, phc)
	for i := range options.People {
		fmt.Fprintf(&users, ", {username: user%d, password_hash: %q}", i, phc)
	}
	clients := options.Clients
	if clients != "" {
		clients = ", " + clients
	}
	if options.RedisPort != "" {
		fmt.Fprintf(&store, "store: redis://127.0.0.1:%s\n", options.RedisPort)
	}
	config := fmt.Sprintf("issuer: http://localhost:%[1]s\nmetrics_listen: \"off\"\ndrain_delay: 0s\n%[2]s"+
		"trusted_proxies: [127.0.0.0/8, \"::1/128\"]\n"+
		"resources: [{identifier: %[3]s, scopes: [orders:read, orders:write]}]\n"+
		"clients: [{client_id: %[4]s, client_secret: %[5]s, redirect_uris: [%[6]s], skip_consent: true, id_token_signed_response_alg: ES256, "+
		"grant_types: [authorization_code, password, refresh_token, client_credentials], scope: \"openid profile orders:read\"}%[9]s]\n"+
		"users: [%[7]s]\n%[8]s", port, store.String(), Resource, ClientID, Secret, RedirectURI, users.String(), options.More, clients)
	i := &Installation{binary, directory, "http://localhost:" + port, port}
	return i, os.WriteFile(filepath.Join(directory, "authserver.yaml"), []byte(config), 0o600)
}

// Remove deletes the directory.
func (i *Installation) Remove() { os.RemoveAll(i.Directory) }

// Start starts an instance on the installation's own port and waits until it is ready.
func (i *Installation) Start() (*Process, error) { return i.StartOn(i.Port) }

// Execute starts an instance and does not wait. It logs to a file, as much as it
// does by default, for the log is a part of what a token costs.
func (i *Installation) Execute(port string) (*Process, error) {
	log, err := os.OpenFile(filepath.Join(i.Directory, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	environment := []string{"AUTHSERVER_LISTEN=localhost:" + port}
	if port != i.Port {
		environment = append(environment, "AUTHSERVER_DATA=data-"+port, "AUTHSERVER_MASTER_KEY_FILE=data/master.key")
	}
	return Start(i.Directory, environment, log, i.Binary, "serve")
}

// lastLog returns the end of the log, for an error.
func (i *Installation) lastLog() error {
	log, _ := os.ReadFile(filepath.Join(i.Directory, "log"))
	return fmt.Errorf("its log ends: %s", log[max(0, len(log)-1000):])
}

// StartOn starts an instance on another port. Instances share the Redis and the
// master key, which the first one has made, and each has a data directory of its own.
func (i *Installation) StartOn(port string) (*Process, error) {
	p, err := i.Execute(port)
	if err != nil {
		return nil, err
	}
	err = Await(func() error {
		response, err := http.Get("http://localhost:" + port + "/readyz")
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	}, 20*time.Second)
	if err != nil {
		p.Stop()
		return nil, fmt.Errorf("authserver: %w", errors.Join(err, i.lastLog()))
	}
	return p, nil
}
