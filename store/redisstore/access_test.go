package redisstore_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/store"
	"authserver/store/redisstore"
	"authserver/store/storetest"

	"github.com/redis/go-redis/v9"
)

func TestContractOverTLS(t *testing.T) {
	server := redistest.StartTLS(t, false)
	options := redisstore.Options{URL: server.URL, Timeout: 10 * time.Second, Logger: slog.New(slog.DiscardHandler)}
	var unknown x509.UnknownAuthorityError
	if s, err := redisstore.Open(t.Context(), options); !errors.As(err, &unknown) {
		if err == nil {
			s.Close()
		}
		t.Fatalf("with a certificate of nobody we trust: %v", err)
	}
	certificate, err := os.ReadFile(server.CertificateFile)
	if err != nil {
		t.Fatal(err)
	}
	authority := x509.NewCertPool()
	authority.AppendCertsFromPEM(certificate)
	options.TLSConfig = &tls.Config{RootCAs: authority}
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := redisstore.Open(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	})
}

// The user of docs/operating.md can do what the contract asks for, and each command was used, so that
// none of them can go. It can neither read other keys nor run other commands.
func TestLeastUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.acl")
	line := strings.Replace(redistest.Recipe(t, "user authserver on "), "#<sha256>", ">secret", 1)
	_, allowed, _ := strings.Cut(line, "-@all +")
	leastCommands := strings.Split(allowed, " +")
	if err := os.WriteFile(path, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := redistest.Start(t, "--aclfile", path)
	t.Run("contract", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) store.Store { return open(t, "redis://authserver:secret@"+server.Addr) })
	})

	administrator := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer administrator.Close()
	statistics, err := administrator.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range leastCommands {
		if !strings.Contains(statistics, "cmdstat_"+command+":calls=") || strings.Contains(statistics, "cmdstat_"+command+":calls=0,") {
			t.Errorf("%s is allowed and not needed", command)
		}
	}
	user := redis.NewClient(&redis.Options{Addr: server.Addr, Username: "authserver", Password: "secret"})
	defer user.Close()
	for _, command := range [][]any{{"GET", "other:key"}, {"KEYS", "*"}, {"FLUSHALL"}, {"CONFIG", "SET", "maxmemory", "1"}, {"ACL", "LIST"}} {
		if err := user.Do(t.Context(), command...).Err(); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
			t.Errorf("%v: %v", command, err)
		}
	}
}

// What docs/operating.md adds to the user for replicas, a Cluster and a database number
// is what they need: without it the store cannot be used, with it all calls work.
func TestLeastUserElsewhere(t *testing.T) {
	t.Parallel()
	line := strings.Replace(redistest.Recipe(t, "user authserver on "), "#<sha256>", ">secret", 1)
	for more, start := range map[string]func(args ...string) (url, durability string){
		"+wait": func(args ...string) (string, string) {
			return redistest.StartSentinels(t, 1, append(args, durable...)...).Servers[0].URL(), redisstore.Replicated
		},
		"+cluster|slots": func(args ...string) (string, string) { return redistest.StartCluster(t, 0, args...).URL(), "" },
		"+select":        func(args ...string) (string, string) { return redistest.Start(t, args...).URL() + "/1", "" },
	} {
		for _, added := range []string{"", " " + more} {
			path := filepath.Join(t.TempDir(), "users.acl")
			if err := os.WriteFile(path, []byte(line+added+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			url, durability := start("--aclfile", path)
			err := everyCall(t, redisstore.Options{
				URL: strings.Replace(url, "://", "://authserver:secret@", 1), Timeout: 10 * time.Second, Logger: slog.New(slog.DiscardHandler), Durability: durability,
			})
			if added == "" && err == nil {
				t.Errorf("%s is not needed", more)
			} else if added != "" && err != nil {
				t.Errorf("with %s: %v", more, err)
			}
		}
	}
}

func everyCall(t *testing.T, options redisstore.Options) error {
	s, err := redisstore.Open(t.Context(), options)
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, later := t.Context(), time.Now().Add(time.Hour)
	_, counted := s.Add(ctx, "counter", 1, time.Hour)
	s.Delete(ctx, "record") // of a call before
	created := s.Create(ctx, "record", nil, later)
	_, swapped := s.Swap(ctx, "record", 1, nil, later)
	linked := errors.Join(s.Link(ctx, "index", "member", later), s.Unlink(ctx, "index", "member"))
	for _, err := range s.Linked(ctx, "index", store.Member{}) {
		linked = errors.Join(linked, err)
	}
	member := store.MemberKey("family", "member")
	made := errors.Join(s.Delete(ctx, member), s.Create(ctx, member, nil, later))
	_, moved := s.Swap(ctx, member, 1, nil, later)
	_, found := s.Get(ctx, member)
	made = errors.Join(made, moved, found)
	for _, err := range s.Members(ctx, "family") {
		made = errors.Join(made, err)
	}
	_, appended := s.Append(ctx, "log", []byte("event"), time.Hour)
	_, read := s.Get(ctx, "record", "other")
	_, told := s.Tail(ctx, "log", 0, 0)
	_, asked := s.Clock(ctx)
	return errors.Join(asked, counted, created, swapped, linked, made, appended, read, told, s.Delete(ctx, "record"), s.Ping(ctx))
}

// The recipes of docs/operating.md, as they are written there, give what they promise.
func TestRecipes(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	user := strings.Replace(redistest.Recipe(t, "user authserver on "), "#<sha256>", ">secret", 1)
	if err := os.WriteFile(filepath.Join(directory, "users.acl"), []byte(user+" +wait +cluster|slots\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	each := redistest.Settings(redistest.Block(t, "# redis.conf"), directory)
	replicated := append(slices.Clone(each), redistest.Settings(redistest.Block(t, "# redis.conf, with replicas, besides"), directory)...)
	for name, recipe := range map[string]struct {
		start      func(t *testing.T) string
		durability string
	}{
		"one": {func(t *testing.T) string { return redistest.Start(t, each...).URL() }, redisstore.Fsync},
		"Sentinel": {func(t *testing.T) string {
			return redistest.StartSentinelsWith(t, redistest.Block(t, "# sentinel.conf"), 2, replicated...).URL()
		}, redisstore.Replicated},
		"Cluster": {func(t *testing.T) string {
			cluster := append(slices.Clone(replicated), redistest.Settings(redistest.Block(t, "# redis.conf, of a Cluster, besides"), directory)...)
			return redistest.StartCluster(t, 1, cluster...).URL()
		}, redisstore.Replicated},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			options := redisstore.Options{URL: strings.Replace(recipe.start(t), "://", "://authserver:secret@", 1), Timeout: 10 * time.Second,
				Logger: slog.New(slog.NewTextHandler(&log, nil)), Durability: recipe.durability}
			for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
				log.Reset()
				err := everyCall(t, options)
				if err == nil && strings.Contains(log.String(), "level=WARN") {
					err = errors.New("the log warns: " + log.String())
				}
				if err == nil {
					break
				}
				if time.Now().After(deadline) { // before: replicas that lag on a busy machine, or are not there yet
					t.Fatal(err)
				}
			}
		})
	}
}
