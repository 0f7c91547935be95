package datera

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
)

// session holds the key that the array gave at login. One goroutine, and by the cache's lock one process,
// logs in at a time; the others take over its key.
type session struct {
	turn  chan struct{} // holds one token; a mutex that a ctx can end
	key   string
	cache *keyCache // nil: none
	log   *slog.Logger
}

func (s *session) init(config Config, server string, log *slog.Logger) {
	s.turn = make(chan struct{}, 1)
	s.log = log
	if config.TokenDir != "" {
		s.cache = newKeyCache(config, server)
	}
}

// get returns a key other than stale, which the array refused (empty: none was). It logs in only when
// neither this process nor another has such a key; fresh says so.
func (s *session) get(ctx context.Context, stale string, login func(context.Context) (string, error)) (key string, fresh bool, err error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return "", false, fmt.Errorf("wait for another login to the array: %w", ctx.Err())
	}
	if s.key != "" && s.key != stale {
		return s.key, false, nil
	}
	if s.key = s.cache.read(); s.key != "" && s.key != stale {
		return s.key, false, nil
	}
	cache := s.cache
	unlock, err := cache.lock(ctx)
	switch {
	case err == nil:
		defer unlock()
	case ctx.Err() != nil:
		return "", false, fmt.Errorf("wait for the login of another process to the array: %w", err)
	default: // the cache only saves logins
		s.log.Warn("session keys of the array cannot be kept", "err", err)
		cache = nil
	}
	if s.key = cache.read(); s.key != "" && s.key != stale {
		return s.key, false, nil
	}
	s.key = ""
	key, err = login(ctx)
	if err != nil {
		cache.drop(stale)
		return "", false, err
	}
	s.key = key
	if err := cache.write(key); err != nil {
		s.log.Warn("session keys of the array cannot be kept", "err", err)
	}
	return key, true, nil
}

// login gets a session key. It sends no tenant: a session serves all tenants of the user.
func (c *Client) login(ctx context.Context) (string, error) {
	r := request{method: put, at: at("login"), body: struct {
		Name         string `json:"name"`
		Password     string `json:"password"`
		RemoteServer string `json:"remote_server,omitempty"`
	}{c.config.Username, c.config.Password, c.config.RemoteServer}}
	failed := func(err error) (string, error) {
		return "", fmt.Errorf("log in to %s as user %q (tenant %s): %w", c.server, c.config.Username, c.tenant, err)
	}
	a, err := c.send(ctx, r)
	if err != nil {
		return failed(err)
	}
	var out struct {
		Key string `json:"key"`
	}
	err = c.read(r, a, nil)
	if IsAuth(err) {
		return failed(fmt.Errorf("the user name or the password is wrong: %w", err))
	}
	if err != nil {
		return failed(err)
	}
	if json.Unmarshal(a.body, &out) != nil || out.Key == "" {
		return failed(errors.New("the answer holds no session key: is this the array's API?"))
	}
	return out.Key, nil
}
