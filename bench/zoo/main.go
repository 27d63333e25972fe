// Command zoo rotates the keys of a server a hundred times under continuous load and
// lets the libraries that resource servers use verify every token, at once and again
// shortly before it expires: does anybody notice a rotation? cache_for is one second.
// A key is published for 35 seconds by default before it signs, since many libraries
// ask for the key set every 30 seconds at most, whatever its headers say; with
// -publish-before 4s it is as short as the promises allow, and shows who does.
//
// The packages of both are those that .ci/setup installs for the sample APIs.
//
//	cd bench && go run ./zoo -node ../resource-example/node/node_modules -python ../.cache/venv/bin/python
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"authserver/authserver"
	"authserver/authserver/login"
	"authserver/keys"
	"authserver/store/boltstore"
)

const (
	audience = "https://zoo.example"
	lifetime = 30 * time.Second // of a token
	secret   = "0123456789012345678901234567890123456789"
)

func main() {
	rotations := flag.Int("rotations", 100, "rotations to go through")
	node := flag.String("node", "", "node_modules directory with jose")
	python := flag.String("python", "", "Python with PyJWT")
	publish := flag.Duration("publish-before", 35*time.Second, "how long a key is published before it signs; at least 4s")
	flag.Parse()
	if err := run(*rotations, *publish, *node, *python); err != nil {
		log.Fatal(err)
	}
}

// issuer is a server on loopback and its keys.
type issuer struct {
	url  string
	keys *keys.Manager
	mu   sync.Mutex
	jwks map[string]int // requests of the key set, by who asked
}

func newIssuer(ctx context.Context, directory string, publish time.Duration) (*issuer, error) {
	opened, err := boltstore.Open(filepath.Join(directory, "store.db"))
	if err != nil {
		return nil, err
	}
	master, err := keys.NewMasterKey()
	if err != nil {
		return nil, err
	}
	i := &issuer{jwks: make(map[string]int)}
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/jwks.json") {
			i.mu.Lock()
			i.jwks[r.URL.Query().Get("for")]++
			i.mu.Unlock()
		}
		handler.ServeHTTP(w, r)
	}))
	i.url = server.URL
	i.keys, err = keys.Open(ctx, keys.Config{
		Store: authserver.KeyStore(opened), MasterKey: master, Issuer: i.url, Algorithms: []string{"ES256"},
		CacheFor: time.Second, PublishBefore: publish, RotateEvery: publish + 2*time.Second,
		TokenLifetime: lifetime, RefreshLifetime: 2 * time.Minute,
		Lease: 1500 * time.Millisecond, PollEvery: 50 * time.Millisecond, Skew: 100 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	go i.keys.Run(ctx)
	pages, err := login.New(login.Branding{})
	if err != nil {
		return nil, err
	}
	built, err := authserver.New(authserver.Config{
		Issuer: i.url, Store: opened, Keys: i.keys, Login: pages, Logger: slog.New(slog.DiscardHandler),
		Tokens:    authserver.Tokens{Access: lifetime, ID: lifetime},
		Resources: []authserver.Resource{{Identifier: audience, Scopes: []string{"read"}}},
		Clients:   []authserver.Client{{ClientID: "job", ClientSecret: secret, GrantTypes: []string{"client_credentials"}, Scope: "read"}},
	})
	if err != nil {
		return nil, err
	}
	handler = built.Handler()
	go built.Run(ctx)
	return i, nil
}

func (i *issuer) token() (string, error) {
	request, err := http.NewRequest(http.MethodPost, i.url+"/token", strings.NewReader("grant_type=client_credentials"))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth("job", secret)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var body struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil || response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the token endpoint answered %s, %v", response.Status, err)
	}
	return body.AccessToken, nil
}

// animal is one library, and how it fared.
type animal struct {
	name   string
	verify func(token string) error

	verified, refused int
	late              int // tokens that it came to when they had all but expired: this machine was too slow
	reasons           map[string]int
}

// meal is a token.
type meal struct {
	token  string
	issued time.Time
}

func (a *animal) feed(meals <-chan meal) {
	a.reasons = make(map[string]int)
	for m := range meals {
		if time.Since(m.issued) > lifetime-3*time.Second {
			a.late++
			continue
		}
		a.verified++
		if err := a.verify(m.token); err != nil {
			if a.refused++; a.refused <= 3 {
				log.Printf("%s: %v", a.name, err)
			}
			if text := err.Error(); len(a.reasons) < 10 || a.reasons[text] > 0 {
				a.reasons[text[:min(len(text), 90)]]++
			}
		}
	}
}

func run(rotations int, publish time.Duration, node, python string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	directory, err := os.MkdirTemp("", "zoo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	i, err := newIssuer(ctx, directory, publish)
	if err != nil {
		return err
	}
	animals, err := zoo(ctx, i.url, node, python)
	if err != nil {
		return err
	}
	var eating sync.WaitGroup
	var mouths []chan meal
	for _, a := range animals {
		mouth := make(chan meal, 10000)
		mouths = append(mouths, mouth)
		eating.Go(func() { a.feed(mouth) })
	}
	give := func(m meal) {
		for _, mouth := range mouths {
			mouth <- m
		}
	}
	began, issued, failed := time.Now(), 0, 0
	for rotated(i) < rotations {
		token, err := i.token()
		if err != nil {
			failed++
			log.Print(err)
			continue
		}
		if issued++; issued%600 == 0 {
			log.Printf("%d rotations, %d tokens", rotated(i), issued)
		}
		m := meal{token, time.Now()}
		give(m)
		time.AfterFunc(lifetime-8*time.Second, func() {
			if ctx.Err() == nil {
				give(m)
			}
		})
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(lifetime)
	cancel()
	for _, mouth := range mouths {
		close(mouth)
	}
	eating.Wait()
	report, err := i.keys.VerifyLog(context.Background())
	if err != nil {
		return err
	}
	fmt.Printf("%d rotations in %s; %d tokens issued, %d requests for one failed; key log: %d entries, %d problems\n\n",
		rotated(i), time.Since(began).Round(time.Second), issued, failed, report.Entries, len(report.Problems))
	fmt.Println("| verifier | verifications | refused | not asked in time | requests of the key set | why |")
	fmt.Println("|---|---|---|---|---|---|")
	for _, a := range animals {
		var why []string
		for text, n := range a.reasons {
			why = append(why, fmt.Sprintf("%d × %s", n, strings.ReplaceAll(text, "|", "/")))
		}
		slices.Sort(why)
		fmt.Printf("| %s | %d | %d | %d | %d | %s |\n", a.name, a.verified, a.refused, a.late, i.jwks[a.name], strings.Join(why[:min(len(why), 3)], "; "))
	}
	return nil
}

// rotated counts the keys that have signed, but for the first.
func rotated(i *issuer) int {
	entries, err := i.keys.Log(context.Background())
	if err != nil {
		return 0
	}
	n := -1
	for _, e := range entries {
		if e.Ring == "ES256" && e.To == "active" {
			n++
		}
	}
	return n
}
