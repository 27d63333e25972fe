// Package redisstore keeps the store in Redis 7 or later (or Valkey): one server,
// Sentinel, or Cluster.
//
// Each method is one round trip and touches one key of Redis for each name it is
// given, so that everything works on a Cluster. What must be atomic is a script.
// A write is as durable as Redis is configured to make it; see Durability.
package redisstore

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"authserver/store"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Options say where Redis is.
type Options struct {
	// URL is redis://[user[:password]@]host:port[/db], rediss:// for TLS,
	// redis+sentinel://[user[:password]@]host:port,host:port/master[/db],
	// redis+cluster://[user[:password]@]host:port,host:port, or the latter two with
	// rediss.
	URL       string
	Password  string        // instead of the one in URL
	TLSConfig *tls.Config   // for rediss; the system's roots when nil
	Prefix    string        // of all keys; "authserver:" when empty
	Timeout   time.Duration // of one call; 500ms when zero
	Logger    *slog.Logger  // slog.Default() when nil
	// InsecureCleartext allows a Redis without TLS at an address of the public internet.
	InsecureCleartext bool
	// Durability is the least that the store has to promise: Async, Fsync or
	// Replicated. Redis is asked what it can; when empty, that is enough.
	Durability string
}

// Store is a store.Store in Redis.
type Store struct {
	client  redis.UniversalClient
	prefix  string
	timeout time.Duration
	tls     bool

	// Replicas that must have a write before it is acknowledged; 0 without Replicated.
	replicas int
	mu       sync.Mutex
	lacks    []string // why it cannot promise what it is asked for, or Fsync
}

// Open connects and checks that Redis can keep what the store promises. The error is a
// store.UnavailableError where Redis may do so later, as it is. It
// refuses a Redis that evicts, a replica, and versions before 7; it warns where
// Redis is configured to lose acknowledged writes on a crash.
func Open(ctx context.Context, options Options) (*Store, error) {
	config, err := parseURL(options.URL)
	if err != nil {
		return nil, err
	}
	if options.Password != "" {
		config.Password = options.Password
	}
	if config.TLSConfig != nil && options.TLSConfig != nil {
		config.TLSConfig = options.TLSConfig
	}
	s := &Store{prefix: options.Prefix, timeout: options.Timeout, tls: config.TLSConfig != nil}
	if s.prefix == "" {
		s.prefix = "authserver:"
	}
	if s.timeout == 0 {
		s.timeout = 500 * time.Millisecond
	}
	log := options.Logger
	if log == nil {
		log = slog.Default()
	}
	redis.SetLogger(driverLog{log})
	// Without this, go-redis would hold a call for its own timeouts of seconds.
	config.ContextTimeoutEnabled = true
	config.DialTimeout = 2 * time.Second
	config.DialerRetries = 1 // a call is repeated as a whole; five would use up its time
	config.DisableIdentity = true
	config.Protocol = 2 // nothing of RESP3 is used, and with it the driver looks for notifications before, in and after each call
	config.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	s.client = withoutPanics(redis.NewUniversalClient(config))
	err = checkAddresses(ctx, config, options.InsecureCleartext, log)
	if err == nil {
		err = s.check(ctx, config, options.Durability == Replicated, log)
	}
	if err == nil {
		err = s.require(options.Durability)
	}
	if err != nil {
		s.client.Close()
		return nil, fmt.Errorf("checking Redis at %s: %w", strings.Join(config.Addrs, ","), s.unavailable(err))
	}
	return s, nil
}

// CheckURL says what is wrong with Options.URL, as Open would. It does not repeat it: it
// may hold a password.
func CheckURL(text string) error {
	_, err := parseURL(text)
	return err
}

// parseURL reads a store URL, or says what CheckURL does.
func parseURL(text string) (*redis.UniversalOptions, error) {
	scheme, rest, found := strings.Cut(text, "://")
	base, kind, _ := strings.Cut(scheme, "+")
	if !found || base != "redis" && base != "rediss" || kind != "" && kind != "sentinel" && kind != "cluster" {
		return nil, errors.New("the store URL must begin with redis://, redis+sentinel:// or redis+cluster://, or rediss for TLS")
	}
	options := &redis.UniversalOptions{IsClusterMode: kind == "cluster"}
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		user, password, _ := strings.Cut(rest[:at], ":")
		var err1, err2 error
		options.Username, err1 = url.PathUnescape(user)
		options.Password, err2 = url.PathUnescape(password)
		if err1 != nil || err2 != nil { // which would repeat it
			return nil, errors.New("the user or password in the store URL is not percent-encoded; write a % as %25")
		}
		rest = rest[at+1:]
	}
	hosts, path, _ := strings.Cut(rest, "/")
	for host := range strings.SplitSeq(hosts, ",") {
		name, port, err := net.SplitHostPort(host)
		if _, unknown := strconv.ParseUint(port, 10, 16); err != nil || name == "" || unknown != nil {
			return nil, errors.New("the store URL has a host without a port or name; write host:port, and a password before an @")
		}
		options.Addrs = append(options.Addrs, host)
	}
	if base == "rediss" {
		options.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	database := path
	switch kind {
	case "sentinel":
		options.MasterName, database, _ = strings.Cut(path, "/")
		if options.MasterName == "" {
			return nil, errors.New("the store URL lacks the master's name: redis+sentinel://host:port,host:port/master")
		}
	case "cluster":
		if path != "" && path != "0" {
			return nil, errors.New("the store URL names a database; a Redis Cluster has none but 0")
		}
		return options, nil
	default:
		if len(options.Addrs) > 1 {
			return nil, errors.New("the store URL names several hosts; that takes redis+sentinel:// or redis+cluster://")
		}
	}
	if database != "" {
		n, err := strconv.Atoi(database)
		if err != nil || n < 0 {
			return nil, errors.New("the store URL does not end in the number of a database, such as /0")
		}
		options.DB = n
	}
	return options, nil
}

// Durability says what an acknowledged write survives: Async, Fsync or Replicated.
// Behind Sentinel it is Async unless Replicated was asked for: the replica that is
// promoted may lack the last writes.
func (s *Store) Durability() string {
	switch {
	case len(s.lacks) > 0:
		return Async
	case s.replicas > 0:
		return Replicated
	}
	return Fsync
}

// check reads what Redis says about itself.
func (s *Store) check(ctx context.Context, options *redis.UniversalOptions, replicated bool, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if options.MasterName != "" && !replicated {
		s.lack(log, "Redis replicates after it has acknowledged: a failover can lose the last writes; see durability: replicated")
	}
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		return cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return s.checkNode(ctx, node, replicated, log) })
	}
	return s.checkNode(ctx, s.client, replicated, log)
}

// lack notes and warns why no more can be promised.
func (s *Store) lack(log *slog.Logger, why string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.lacks, why) { // of another node of a Cluster
		s.lacks = append(s.lacks, why)
		log.Warn(why, args...)
	}
}

func (s *Store) checkNode(ctx context.Context, node redis.Cmdable, replicated bool, log *slog.Logger) error {
	text, err := node.Info(ctx).Result()
	if err != nil {
		return err
	}
	info := parseInfo(text)
	if info["loading"] == "1" {
		return errLoading
	}
	version := info["redis_version"]
	if major, _, _ := strings.Cut(version, "."); len(major) == 1 && major < "7" {
		return fmt.Errorf("its version is %s; 7.0 or later is needed", version)
	}
	if info["role"] != "master" {
		return fmt.Errorf("its role is %s; the store needs the master (through redis+sentinel:// it is found by itself)", info["role"])
	}
	if eviction := info["maxmemory_policy"]; eviction != "noeviction" {
		return fmt.Errorf("its maxmemory-policy is %s, which forgets revocations when memory is short; "+
			"run `redis-cli config set maxmemory-policy noeviction` and put it into redis.conf", eviction)
	}
	policy := "unknown"
	if found, err := node.ConfigGet(ctx, "appendfsync").Result(); err == nil {
		policy = found["appendfsync"]
	}
	switch {
	case info["aof_enabled"] != "1":
		s.lack(log, "Redis keeps no append-only file: a restart of Redis loses grants and revocations; set appendonly yes")
	case policy != "always":
		s.lack(log, "Redis does not fsync each write: a power cut loses the last second; set appendfsync always", "appendfsync", policy)
	}
	if replicated {
		s.checkReplicas(info, log)
	}
	return nil
}

// checkReplicas decides how many replicas must have a write: with the primary they
// are more than half, so that of any majority of the machines one has it.
func (s *Store) checkReplicas(info map[string]string, log *slog.Logger) {
	online := 0
	for name, value := range info {
		if strings.HasPrefix(name, "slave") && strings.Contains(value, "state=online") {
			online++
		}
	}
	if online == 0 {
		s.lack(log, noReplica)
		return
	}
	if info["min_slaves_good_slaves"] == "" { // INFO has it where the setting is on
		log.Warn("Redis takes writes also when it has lost its replicas, and they may come and go; set min-replicas-to-write 1 and min-replicas-max-lag 1")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replicas = max(s.replicas, (1+online)/2)
}

const noReplica = "Redis has no replica: nothing is left when its machine is; add replicas"

func parseInfo(text string) map[string]string {
	info := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), ":"); found {
			info[name] = value
		}
	}
	return info
}

// checkAddresses refuses a Redis to which everything would go over the public internet
// for all to read, and to write; on another network it warns (ATTACKS OP-06).
func checkAddresses(ctx context.Context, options *redis.UniversalOptions, allowed bool, log *slog.Logger) error {
	if loopback(options.Addrs) {
		return nil
	}
	if options.Password == "" && (options.TLSConfig == nil || len(options.TLSConfig.Certificates) == 0) {
		log.Warn("Redis asks nobody for a password: whoever reaches it is who this server trusts; set one, or let it ask for a certificate")
	}
	if options.TLSConfig != nil {
		return nil
	}
	for _, addr := range options.Addrs {
		host, _, _ := net.SplitHostPort(addr)
		// A name that does not resolve is the driver's to complain about.
		ips, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		for _, ip := range ips {
			if public(ip) && !allowed {
				return fmt.Errorf("%s is %s, an address of the public internet, and the connection would not be encrypted: use rediss://, or a private address; insecure_store: true allows it", host, ip)
			}
		}
	}
	log.Warn("the connection to Redis is not encrypted: use rediss://, or a network that nobody else is on")
	return nil
}

var shared = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598

func public(ip netip.Addr) bool {
	ip = ip.Unmap()
	return ip.IsGlobalUnicast() && !ip.IsPrivate() && !shared.Contains(ip)
}

func loopback(addrs []string) bool {
	for _, addr := range addrs {
		host, _, _ := net.SplitHostPort(addr)
		ip, err := netip.ParseAddr(host)
		if host != "localhost" && (err != nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}

// Close releases the connections.
func (s *Store) Close() error { return s.client.Close() }

// Ping reports whether Redis answers and takes writes: a script that writes is
// refused by a replica and by a Redis that cannot persist.
func (s *Store) Ping(ctx context.Context) error {
	_, err := s.run(ctx, pingScript, "ping")
	return err
}

// Clock implements store.Clock. The nodes of a Cluster are taken to agree.
func (s *Store) Clock(ctx context.Context) (time.Time, error) {
	ctx, cancel := s.budget(ctx)
	defer cancel()
	at, err := s.client.Time(ctx).Result()
	if err != nil {
		return time.Time{}, s.trouble(err)
	}
	return at, nil
}

var _ store.Clock = (*Store)(nil)

// budget bounds a call.
func (s *Store) budget(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.timeout)
}

// run runs a script on one key. It is sent by its hash, and whole where Redis does
// not know it.
func (s *Store) run(ctx context.Context, script *redis.Script, key string, args ...any) (any, error) {
	return s.runOn(ctx, script, []string{s.prefix + key}, args...)
}

// runOn runs a script on several keys that are in one place.
func (s *Store) runOn(ctx context.Context, script *redis.Script, keys []string, args ...any) (any, error) {
	ctx, cancel := s.budget(ctx)
	defer cancel()
	var result any
	var err error
	if s.replicas > 0 {
		result, err = s.replicate(ctx, script, keys, args)
	} else {
		result, err = script.Run(ctx, s.client, keys, args...).Result()
	}
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, s.trouble(err)
	}
	return result, nil
}

// trouble says what came of asking. Which node of a Cluster has what is asked for anew:
// after a failover, the driver would go on for a minute to ask the one that is gone.
func (s *Store) trouble(err error) error {
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		cluster.ReloadState(context.Background())
	}
	return fmt.Errorf("asking Redis: %w", s.unavailable(err))
}

// operation returns the identity of one call. The driver may send a call again
// whose answer was lost; by this the script knows its own work.
func operation() []byte {
	id := make([]byte, operationSize)
	rand.Read(id)
	return id
}

// expiry is an instant in milliseconds as the scripts take it, none before 1970 and none
// that does not fit into a record.
func expiry(t time.Time) int64 { return min(max(t.UnixMilli(), 1), 1<<(8*numberSize)-1) }

var _ store.Batcher = (*Store)(nil)
