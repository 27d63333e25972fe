package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"sync"
	"time"

	"authserver/bench/internal/process"
	"authserver/bench/internal/report"
	"authserver/internal/accesstoken"
	"authserver/internal/feed"
	"authserver/internal/intake"
	"authserver/store/redisstore"
)

// memory measures what n live revocations cost: one row.
func memory(table report.Table, binary string, n int) error {
	redis, err := process.StartRedis("--appendonly", "no")
	if err != nil {
		return err
	}
	defer redis.Stop()
	if err := fill("redis://127.0.0.1:"+redis.Port, n); err != nil {
		return err
	}
	installed, err := process.Install(binary, process.Options{RedisPort: redis.Port})
	if err != nil {
		return err
	}
	defer installed.Remove()
	began := time.Now()
	server, err := installed.Start()
	if err != nil {
		return err
	}
	defer server.Stop()
	var plain []byte
	err = process.Await(func() error {
		plain, err = fetch(installed.Base, "identity")
		return err
	}, time.Minute)
	if err != nil {
		return err
	}
	started := time.Since(began)
	compressed, err := fetch(installed.Base, "gzip")
	if err != nil {
		return err
	}
	trust := func(*intake.Token) error { return nil }
	before := heap()
	follower := feed.NewFollower(installed.Base)
	began = time.Now()
	if err := follower.Load(plain, trust); err != nil {
		return err
	}
	loading := time.Since(began)
	plain = plain[:len(plain):len(plain)]
	held := heap() - before
	runtime.KeepAlive(plain)
	subjects := feed.SubjectsOf("k", &accesstoken.Claims{ID: "a", GrantID: "b", SessionID: "c", Subject: "d", ClientID: "e", Issuer: "f"})
	const looks = 2_000_000
	began = time.Now()
	for range looks {
		follower.Set.Revoked(subjects)
	}
	look := time.Since(began) / looks
	mib := func(bytes int) string { return fmt.Sprintf("%.2f MB", float64(bytes)/1e6) }
	table.Row(fmt.Sprint(n), started.Round(time.Millisecond).String(), fmt.Sprintf("%.0f MiB", server.ResidentMiB()), mib(len(plain)), mib(len(compressed)),
		report.Milliseconds(loading)+" ms", mib(held), look.String())
	return nil
}

func heap() int {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int(stats.HeapAlloc)
}

// fill appends n revocations to the log, as servers do.
func fill(url string, n int) error {
	ctx := context.Background()
	store, err := redisstore.Open(ctx, redisstore.Options{URL: url})
	if err != nil {
		return err
	}
	defer store.Close()
	now := time.Now().Unix()
	failures := make([]error, 64)
	var filling sync.WaitGroup
	for worker := range failures {
		filling.Go(func() {
			for i := worker; i < n && failures[worker] == nil; i += len(failures) {
				event := fmt.Appendf(nil, `{"v":1,"grant_id":"grant-%d","reason":"bench","at":%d,"until":%d}`, i, now, now+600+int64(i%600))
				_, failures[worker] = store.Append(ctx, "revocations", event, time.Hour)
			}
		})
	}
	filling.Wait()
	for _, err := range failures {
		if err != nil {
			return err
		}
	}
	return nil
}

func fetch(base, encoding string) ([]byte, error) {
	request, err := http.NewRequest("GET", base+"/revocations", nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept-Encoding", encoding)
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", response.Status)
	}
	return body, err
}
