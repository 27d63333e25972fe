package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/go-oauth2/oauth2/v4"
	"github.com/go-oauth2/oauth2/v4/models"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
)

// redisStore keeps in Redis what go-oauth2's own store keeps, in the same form: the
// token under an id, and the id under the access token and the refresh token; all of
// a token is written in one transaction.
type redisStore struct{ client *redis.Client }

func (s redisStore) Create(ctx context.Context, info oauth2.TokenInfo) error {
	now := time.Now()
	text, err := json.Marshal(info)
	if err != nil {
		return err
	}
	if code := info.GetCode(); code != "" {
		return s.client.Set(ctx, code, text, info.GetCodeExpiresIn()).Err()
	}
	id := uuid.NewString()
	access := info.GetAccessExpiresIn()
	longest := access
	_, err = s.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		if refresh := info.GetRefresh(); refresh != "" {
			longest = info.GetRefreshCreateAt().Add(info.GetRefreshExpiresIn()).Sub(now)
			access = min(access, longest)
			p.Set(ctx, refresh, id, longest)
		}
		p.Set(ctx, info.GetAccess(), id, access)
		p.Set(ctx, id, text, longest)
		return nil
	})
	return err
}

func (s redisStore) remove(ctx context.Context, key string) error {
	return s.client.Del(ctx, key).Err()
}

func (s redisStore) RemoveByCode(ctx context.Context, code string) error { return s.remove(ctx, code) }

func (s redisStore) RemoveByAccess(ctx context.Context, access string) error {
	return s.remove(ctx, access)
}

func (s redisStore) RemoveByRefresh(ctx context.Context, refresh string) error {
	return s.remove(ctx, refresh)
}

func (s redisStore) get(ctx context.Context, key string) (oauth2.TokenInfo, error) {
	text, err := s.client.Get(ctx, key).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var token models.Token
	if err := json.Unmarshal(text, &token); err != nil {
		return nil, err
	}
	return &token, nil
}

func (s redisStore) byID(ctx context.Context, key string) (oauth2.TokenInfo, error) {
	id, err := s.client.Get(ctx, key).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s.get(ctx, id)
}

func (s redisStore) GetByCode(ctx context.Context, code string) (oauth2.TokenInfo, error) {
	return s.get(ctx, code)
}

func (s redisStore) GetByAccess(ctx context.Context, access string) (oauth2.TokenInfo, error) {
	return s.byID(ctx, access)
}

func (s redisStore) GetByRefresh(ctx context.Context, refresh string) (oauth2.TokenInfo, error) {
	return s.byID(ctx, refresh)
}
