package redisstore

import (
	"context"

	"authserver/store"

	"github.com/redis/go-redis/v9"
)

// Do implements store.Batcher. In a Cluster the keys are at several nodes.
func (s *Store) Do(ctx context.Context, b store.Batch) ([]store.Record, error) {
	if _, cluster := s.client.(*redis.ClusterClient); cluster {
		return nil, store.ErrSeparate
	}
	if err := b.Check(); err != nil {
		return nil, err
	}
	keys := make([]string, 0, len(b.Create)+len(b.Link)+len(b.Get))
	args := make([]any, 0, 3+3*len(b.Create)+2*len(b.Link)+len(b.Get))
	args = append(args, operation(), len(b.Create), len(b.Link))
	for _, c := range b.Create {
		key, field := placeOf(c.Key)
		keys, args = append(keys, s.prefix+key), append(args, field, expiry(c.Expires), c.Value)
	}
	for _, l := range b.Link {
		keys, args = append(keys, s.prefix+indexKey(l.Index)), append(args, l.Member, expiry(l.Expires))
	}
	for _, key := range b.Get {
		key, field := placeOf(key)
		keys, args = append(keys, s.prefix+key), append(args, field)
	}
	if len(keys) == 0 {
		return nil, nil
	}
	result, err := s.runOn(ctx, batchScript, keys, args...)
	if err != nil {
		return nil, err
	}
	answer, _ := result.([]any)
	if len(answer) == 0 {
		return nil, unexpected(result)
	}
	switch existing, ok := answer[0].(int64); {
	case !ok || existing < 0 || int(existing) > len(b.Create):
		return nil, unexpected(answer[0])
	case existing > 0:
		return nil, &store.ExistsError{Key: b.Create[existing-1].Key}
	case len(answer) != 1+len(b.Get):
		return nil, unexpected(result)
	}
	return decodeRecords(answer[1:])
}
