package redisstore

import (
	"testing"
	"time"

	"authserver/internal/redistest"
	"authserver/store"

	"github.com/redis/go-redis/v9"
)

// To touch a family that is there for replicas to confirm, however often and slowly, does not
// move when it is gone.
func TestTouchMovesNothing(t *testing.T) {
	ctx, server := t.Context(), redistest.Start(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr, ReadTimeout: time.Minute})
	defer client.Close()
	s := &Store{client: client, prefix: "authserver:", timeout: time.Minute}
	until := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	if err := s.Create(ctx, store.MemberKey("family", "member"), nil, until); err != nil {
		t.Fatal(err)
	}
	const key = "authserver:f:family"
	often := redis.NewScript(touch + `for i = 1, 20000 do touch(KEYS[1]) end return 1`)
	if err := often.Run(ctx, client, []string{key}).Err(); err != nil {
		t.Fatal(err)
	}
	if at, err := client.PExpireTime(ctx, key).Result(); err != nil || at.Milliseconds() != until.UnixMilli() {
		t.Errorf("the family is gone at %s, not at %s: %v", time.UnixMilli(at.Milliseconds()), until, err)
	}
}
