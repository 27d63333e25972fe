package repotest

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"authserver/internal/redistest"

	"go.yaml.in/yaml/v4"
)

// compose is what is checked of docker-compose.yml.
type compose struct {
	Services map[string]service
	Networks map[string]struct{ Internal bool }
	Secrets  map[string]struct{ File string }
}

type service struct {
	Image, User string
	Build       any
	NetworkMode string `yaml:"network_mode"`
	Command     []string
	Ports       []string
	Networks    []string
	Volumes     []string
	Tmpfs       []string
	Secrets     []string
	ReadOnly    bool     `yaml:"read_only"`
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
	Privileged  bool
	Healthcheck struct{ Test []string }
	Grace       time.Duration `yaml:"stop_grace_period"`
}

func readCompose(t *testing.T) compose {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var c compose
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"authserver", "redis", "resource-example"} {
		if _, ok := c.Services[name]; !ok {
			t.Fatalf("docker-compose.yml has no service %s", name)
		}
	}
	return c
}

func TestComposeIsHardened(t *testing.T) {
	c := readCompose(t)
	dockerfile := files(t)["Dockerfile"]
	for name, s := range c.Services {
		if !s.ReadOnly || s.Privileged || !slices.Contains(s.CapDrop, "ALL") || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: needs read_only, cap_drop ALL and no-new-privileges", name)
		}
		if user := regexp.MustCompile(`^(\d+:\d+|\$\{SECRETS_OWNER:\?.*\})$`); s.Image != "" && s.User == "" || s.User != "" && !user.MatchString(s.User) ||
			strings.HasPrefix(s.User, "0:") {
			t.Errorf("%s: user %q is not one by number who is not root", name, s.User)
		}
		if s.Build == nil && (!taggedImage.MatchString(s.Image) || len(s.Healthcheck.Test) == 0) {
			t.Errorf("%s: image %q needs a version as its tag, and a health check", name, s.Image)
		}
		for _, port := range s.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s: port %s is open to other machines", name, port)
			}
		}
		for _, secret := range s.Secrets {
			if _, ok := c.Secrets[secret]; !ok {
				t.Errorf("%s: secret %s has no file", name, secret)
			}
		}
	}
	if grace := c.Services["authserver"].Grace; grace < 15*time.Second+time.Second {
		t.Errorf("authserver is killed %s after it was told to stop: by default it takes five seconds, and ten more for what was begun", grace)
	}
	if !c.Networks["redis"].Internal || len(c.Services["redis"].Ports) > 0 || !slices.Equal(c.Services["redis"].Networks, []string{"redis"}) {
		t.Error("Redis must be reachable from the server only")
	}
	for _, match := range regexp.MustCompile(`(?m)^FROM (\S+)`).FindAllStringSubmatch(dockerfile, -1) {
		if image := match[1]; image != "scratch" && image != "base" && !taggedImage.MatchString(image) {
			t.Errorf("Dockerfile: image %s needs a version as its tag", image)
		}
	}
	if !regexp.MustCompile(`(?m)^USER [1-9]\d*:[1-9]\d*$`).MatchString(dockerfile) || strings.Count(dockerfile, "\nHEALTHCHECK ") != 2 {
		t.Error("Dockerfile: needs a numeric user who is not root, and a health check for each image")
	}
}

var taggedImage = regexp.MustCompile(`^[a-z/]+:\d+\.\d+[\w.-]*$`)

// TestDeployment runs what the containers run, without the containers: the
// binaries of the Dockerfile, the Redis of the compose file, and the server with
// the deployed configuration and the secrets that make-secrets makes.
func TestDeployment(t *testing.T) {
	bin := buildAsDockerfile(t)
	secrets := makeSecrets(t)
	c := readCompose(t)
	inContainer := strings.NewReplacer("/run/secrets", secrets)

	redis := c.Services["redis"].Command
	if redis[0] != "redis-server" {
		t.Fatalf("redis runs %q", redis)
	}
	var args []string
	for _, arg := range redis[1:] {
		args = append(args, inContainer.Replace(arg))
	}
	address := redistest.Start(t, args...).Addr

	text, err := os.ReadFile(filepath.Join(root(t), "deploy/authserver.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "authserver.yaml")
	deployed := strings.Replace(inContainer.Replace(string(text)), "@redis:6379", "@"+address, 1)
	if err := os.WriteFile(config, []byte(deployed), 0o600); err != nil {
		t.Fatal(err)
	}
	if output, err := exec.Command(filepath.Join(bin, "authserver"), "config", "check", "--config", config).CombinedOutput(); err != nil {
		t.Fatalf("config check: %v\n%s", err, output)
	}
	server := serveDeployed(t, filepath.Join(bin, "authserver"), config)
	if server.durability != "fsync" {
		t.Errorf("with the deployed Redis the server promises %q, want fsync", server.durability)
	}
	secret, err := os.ReadFile(filepath.Join(secrets, "demo_service_secret"))
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}}
	request, err := http.NewRequest(http.MethodPost, "http://"+server.address+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth("demo-service", string(secret))
	for _, r := range []*http.Request{request, get(t, "http://"+server.address+"/readyz")} {
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("%s: %s %s", r.URL.Path, response.Status, body)
		}
	}
}

func get(t *testing.T, location string) *http.Request {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, location, nil)
	if err != nil {
		t.Fatal(err)
	}
	return request
}

// buildAsDockerfile runs the build step of the Dockerfile and returns where the
// binaries are. They run in an image with nothing else in it, so they are static.
func buildAsDockerfile(t *testing.T) string {
	t.Helper()
	step := regexp.MustCompile(`(?m)^RUN (make build BIN=)/out$`).FindStringSubmatch(files(t)["Dockerfile"])
	if step == nil {
		t.Fatal("the Dockerfile has no build step")
	}
	bin := t.TempDir()
	command := exec.Command("bash", "-c", step[1]+bin)
	command.Dir = root(t)
	command.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false") // as without .git
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, output)
	}
	for _, name := range []string{"authserver", "resource-example"} {
		if !strings.Contains(files(t)["Dockerfile"], "COPY --from=build /out/"+name+" ") {
			t.Errorf("the Dockerfile does not copy %s", name)
		}
		checkStatic(t, filepath.Join(bin, name))
	}
	checkSize(t, filepath.Join(bin, "authserver"))
	return bin
}

// checkSize says so when the server is too large. What makes it so at once is a call
// of a method by a name that only the program knows, as in text/template: then the
// linker keeps all methods, of which go-redis has thousands.
func checkSize(t *testing.T, name string) {
	t.Helper()
	file, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if most := int64(25 << 20); file.Size() > most {
		t.Errorf("%s has %d bytes, at most %d are allowed; to see who calls methods by name: "+
			"go build -ldflags=-dumpdep ./cmd/authserver 2>&1 | grep ReflectMethod", name, file.Size(), most)
	}
}

func checkStatic(t *testing.T, name string) {
	t.Helper()
	if magic, err := os.ReadFile(name); err != nil || !bytes.HasPrefix(magic, []byte(elf.ELFMAG)) {
		t.Logf("%s is no ELF file here (error %v), so its linking was not checked", name, err)
		return
	}
	file, err := elf.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, program := range file.Progs {
		if program.Type == elf.PT_INTERP {
			t.Errorf("%s asks for a dynamic linker", name)
		}
	}
	if file.Section(".symtab") != nil {
		t.Errorf("%s is not stripped", name)
	}
}

// makeSecrets runs make-secrets and returns the directory of the secrets.
func makeSecrets(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	script, err := os.ReadFile(filepath.Join(root(t), "deploy/make-secrets"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "deploy"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "deploy/make-secrets")
	if err := os.WriteFile(path, script, 0o700); err != nil {
		t.Fatal(err)
	}
	secrets := filepath.Join(dir, "deploy/secrets")
	made := make(map[string]string)
	for range 2 { // the second run changes nothing
		if output, err := exec.Command("bash", path).CombinedOutput(); err != nil {
			t.Fatalf("make-secrets: %v\n%s", err, output)
		}
		for name, secret := range readCompose(t).Secrets {
			if secret.File != "./deploy/secrets/"+name {
				t.Errorf("secret %s: the file %s is not one that make-secrets makes and .gitignore keeps out", name, secret.File)
			}
			text, err := os.ReadFile(filepath.Join(secrets, name))
			if err != nil {
				t.Fatalf("make-secrets does not make it: %v", err)
			}
			if before, again := made[name]; again && before != string(text) {
				t.Errorf("a second make-secrets changed %s", name)
			}
			made[name] = string(text)
		}
	}
	owner, err := os.ReadFile(filepath.Join(dir, ".env"))
	if err != nil || !regexp.MustCompile(`^SECRETS_OWNER=[1-9]\d*:\d+\n$`).Match(owner) {
		t.Errorf("make-secrets wrote %q (error %v) to .env, want a user who is not root", owner, err)
	}
	return secrets
}

type deployed struct{ address, durability string }

// serveDeployed runs the server until the test ends; by then it must stop in peace.
func serveDeployed(t *testing.T, binary, config string) deployed {
	t.Helper()
	command := exec.Command(binary, "serve", "--config", config)
	command.Dir = t.TempDir()
	command.Env = append(os.Environ(), "AUTHSERVER_LISTEN=127.0.0.1:0", "AUTHSERVER_METRICS_LISTEN=127.0.0.1:0", "AUTHSERVER_DRAIN_DELAY=0s")
	stderr, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	t.Cleanup(func() {
		command.Process.Signal(syscall.SIGTERM)
		for lines.Scan() { // until it ends
		}
		if err := command.Wait(); err != nil {
			t.Errorf("after SIGTERM the server ended with %v", err)
		}
		// Its file system is read-only, but for a place for small files of its own.
		left, _ := os.ReadDir(command.Dir)
		inData, _ := os.ReadDir(filepath.Join(command.Dir, "data"))
		small := []string{"admin.sock.lock", "store.identity"}
		if len(left) != 1 || left[0].Name() != "data" || slices.ContainsFunc(inData, func(e os.DirEntry) bool { return !slices.Contains(small, e.Name()) }) {
			t.Errorf("the server left %v, and %v in data", left, inData)
		}
		if !slices.Contains(readCompose(t).Services["authserver"].Tmpfs, "/data:mode=1777") {
			t.Error("docker-compose.yml gives the server no place for them")
		}
	})
	var said strings.Builder
	for lines.Scan() {
		var line struct{ Msg, Address, Durability string }
		json.Unmarshal(lines.Bytes(), &line)
		if line.Msg == "serving" {
			return deployed{line.Address, line.Durability}
		}
		said.WriteString(lines.Text() + "\n")
	}
	t.Fatalf("the server does not serve:\n%s", said.String())
	return deployed{}
}
