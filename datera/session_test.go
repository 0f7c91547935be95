package datera

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"
)

func read(ctx context.Context, c *Client) error {
	_, err := c.Metadata(ctx, "shop_db1")
	return err
}

// cached is a configuration with a token folder, and the file in which the key then is.
func cached(t *testing.T, a *array) (Config, func() string) {
	config := a.config()
	config.TokenDir = filepath.Join(t.TempDir(), "run", "tokens")
	return config, func() string {
		files, err := filepath.Glob(filepath.Join(config.TokenDir, "*.session"))
		require.NoError(t, err)
		require.Len(t, files, 1)
		return files[0]
	}
}

func TestSessionIsSharedByProcesses(t *testing.T) {
	t.Parallel()
	a := newArray(t, always(map[string]any{}))
	config, file := cached(t, a)
	require.NoError(t, read(t.Context(), connect(t, config)))

	second := connect(t, config)
	require.NoError(t, read(t.Context(), second))
	require.EqualValues(t, 1, second.Requests(), "the second process needs no login")
	require.Equal(t, 1, a.loginCount())

	for path, mode := range map[string]os.FileMode{config.TokenDir: 0o700, file(): 0o600, file() + ".lock": 0o600} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode().Perm(), path)
	}
	text, err := os.ReadFile(file())
	require.NoError(t, err)
	require.NotContains(t, string(text), password)
	require.NotContains(t, file(), a.key)
	entries, err := os.ReadDir(config.TokenDir)
	require.NoError(t, err)
	require.Len(t, entries, 2, "the key, the lock and no temporary file")
}

func TestSessionNeedsLogin(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, config *Config, file string){
		"garbage":   func(t *testing.T, _ *Config, file string) { require.NoError(t, os.WriteFile(file, []byte("{"), 0o600)) },
		"empty":     func(t *testing.T, _ *Config, file string) { require.NoError(t, os.Truncate(file, 0)) },
		"gone":      func(t *testing.T, _ *Config, file string) { require.NoError(t, os.Remove(file)) },
		"other key": func(t *testing.T, c *Config, _ string) { c.RemoteServer = "ldap" },
		"too old": func(t *testing.T, _ *Config, file string) {
			past := time.Now().Add(-keyLife - time.Second)
			require.NoError(t, os.Chtimes(file, past, past))
		},
		"link": func(t *testing.T, _ *Config, file string) {
			require.NoError(t, os.Rename(file, file+".real"))
			require.NoError(t, os.Symlink(file+".real", file))
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArray(t, always(map[string]any{}))
			config, file := cached(t, a)
			require.NoError(t, read(t.Context(), connect(t, config)))
			spoil(t, &config, file())
			c := connect(t, config)
			require.NoError(t, read(t.Context(), c))
			require.EqualValues(t, 2, c.Requests(), "a login and a read")
		})
	}
}

// A cached key must not let a wrong password in.
func TestSessionOfAnotherPasswordIsNotUsed(t *testing.T) {
	t.Parallel()
	a := newArray(t, always(map[string]any{}))
	config, _ := cached(t, a)
	require.NoError(t, read(t.Context(), connect(t, config)))
	wrong := config
	wrong.Password = "wrong-" + password
	err := read(t.Context(), connect(t, wrong))
	require.True(t, IsAuth(err), "%v", err)

	right := connect(t, config)
	require.NoError(t, read(t.Context(), right))
	require.EqualValues(t, 1, right.Requests(), "the key of the right password is still there")
}

func TestSessionRenewal(t *testing.T) {
	t.Parallel()
	t.Run("expired", func(t *testing.T) {
		a := newArray(t, always(map[string]any{}))
		config, _ := cached(t, a)
		c := connect(t, config)
		require.NoError(t, read(t.Context(), c))
		a.expire()
		require.NoError(t, read(t.Context(), c))
		require.EqualValues(t, 2+3, c.Requests(), "refused read, login, read")

		third := connect(t, config)
		require.NoError(t, read(t.Context(), third))
		require.EqualValues(t, 1, third.Requests(), "the new key was kept")
	})
	t.Run("renewed by another process", func(t *testing.T) {
		a := newArray(t, always(map[string]any{}))
		config, _ := cached(t, a)
		first, second := connect(t, config), connect(t, config)
		require.NoError(t, read(t.Context(), first))
		require.NoError(t, read(t.Context(), second))
		a.expire()
		require.NoError(t, read(t.Context(), first))
		before := second.Requests()
		require.NoError(t, read(t.Context(), second))
		require.EqualValues(t, 2, second.Requests()-before, "refused read, read with the other's key")
		require.Equal(t, 2, a.loginCount())
	})
	t.Run("renewed by another process and lost again", func(t *testing.T) {
		a := newArray(t, always(map[string]any{}))
		config, _ := cached(t, a)
		first, second := connect(t, config), connect(t, config)
		require.NoError(t, read(t.Context(), second))
		a.expire()
		require.NoError(t, read(t.Context(), first))
		a.expire()
		require.NoError(t, read(t.Context(), second))
		require.Equal(t, 3, a.loginCount())
	})
	t.Run("refused for ever", func(t *testing.T) {
		a := newArray(t, refusing(401, "PermissionDeniedError", "not for you"))
		c := a.client(t)
		err := read(t.Context(), c)
		require.True(t, IsAuth(err), "%v", err)
		require.EqualValues(t, 2, c.Requests(), "a key fresh from the array is not renewed")
		require.Error(t, read(t.Context(), c))
		require.EqualValues(t, 2+3, c.Requests(), "an old key is renewed once")
	})
	t.Run("by many at once", func(t *testing.T) {
		a := newArray(t, always(map[string]any{}))
		config, _ := cached(t, a)
		clients := []*Client{connect(t, config), connect(t, config)}
		for round := range 3 {
			a.expire()
			var all sync.WaitGroup
			errs := make(chan error, 32)
			for i := range cap(errs) {
				all.Go(func() { errs <- read(t.Context(), clients[i%2]) })
			}
			all.Wait()
			for range cap(errs) {
				require.NoError(t, <-errs)
			}
			require.Equal(t, round+1, a.loginCount(), "one login for all")
		}
	})
}

func TestLoginFailures(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		login http.HandlerFunc
		want  []string
	}{
		"wrong password": {refusing(401, "AuthFailedError", "bad "+password), []string{"log in to http://", `as user "admin"`, "tenant /root/shop", "the user name or the password is wrong", "401 AuthFailedError: bad (hidden)"}},
		"other error":    {refusing(500, "InternalError", "oops"), []string{"log in to", "500 InternalError: oops"}},
		"no key":         {always(nil), []string{"no session key"}},
		"not JSON":       {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, []string{"no session key"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newPlain(t, test.login)
			config := s.config()
			config.Tenant, config.TokenDir = "shop", t.TempDir()
			c := connect(t, config)
			err := read(t.Context(), c)
			for _, want := range test.want {
				require.ErrorContains(t, err, want)
			}
			require.NotContains(t, err.Error(), password)
			require.EqualValues(t, 1, c.Requests(), "a failed login is final")
		})
	}
}

// A key that the array refuses is not left for others when there is no new one.
func TestFailedRenewalDropsTheKey(t *testing.T) {
	t.Parallel()
	a := newArray(t, always(map[string]any{}))
	config, file := cached(t, a)
	c := connect(t, config)
	require.NoError(t, read(t.Context(), c))
	path := file()
	a.Config.Handler = refusing(401, "AuthFailedError", "user was deleted")
	require.True(t, IsAuth(read(t.Context(), c)))
	require.NoFileExists(t, path)
}

// The key of another process, or of another password, is not dropped along with an old one.
func TestDropLeavesOtherKeys(t *testing.T) {
	t.Parallel()
	config := Config{TokenDir: t.TempDir(), Username: "admin", Password: password}
	cache := newKeyCache(config, "https://array:7718")
	require.NoError(t, cache.write("new"))
	cache.drop("old")
	require.Equal(t, "new", cache.read())

	config.Password = "another"
	newKeyCache(config, "https://array:7718").drop("new")
	require.Equal(t, "new", cache.read())
	cache.drop("new")
	require.Empty(t, cache.read())
}

func TestSessionWaits(t *testing.T) {
	t.Parallel()
	a := newArray(t, always(map[string]any{}))
	config, file := cached(t, a)
	require.NoError(t, read(t.Context(), connect(t, config)))
	lock := flock.New(file() + ".lock")
	require.NoError(t, lock.Lock())
	a.expire()

	c := connect(t, config)
	after := func(requests int64) func() bool { // of which the last was refused for its key
		return func() bool { return c.Requests() == requests && len(c.session.turn) == 1 }
	}
	ctx, giveUp := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- read(ctx, c) }()
	require.Eventually(t, after(1), time.Minute, time.Millisecond, "it waits for the lock")
	giveUp()
	err := <-done
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "wait for the login of another process")

	whole := t.Context()
	go func() { done <- read(whole, c) }()
	require.Eventually(t, after(2), time.Minute, time.Millisecond, "it waits for the lock")
	ctx, giveUp = context.WithCancel(t.Context())
	giveUp()
	_, _, err = c.session.get(ctx, "", nil)
	require.ErrorContains(t, err, "wait for another login")
	require.NoError(t, lock.Unlock())
	require.NoError(t, <-done)
}

// The cache only saves logins: without it everything works.
func TestUnusableTokenDir(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, config *Config, server string){
		"a file": func(t *testing.T, config *Config, _ string) {
			config.TokenDir = filepath.Join(config.TokenDir, "file")
			require.NoError(t, os.WriteFile(config.TokenDir, nil, 0o600))
		},
		"writable by others": func(t *testing.T, config *Config, _ string) {
			require.NoError(t, os.Chmod(config.TokenDir, 0o777))
		},
		"lock is a folder": func(t *testing.T, config *Config, server string) {
			require.NoError(t, os.Mkdir(newKeyCache(*config, server).file+".lock", 0o700))
		},
		"key is a folder": func(t *testing.T, config *Config, server string) {
			require.NoError(t, os.Mkdir(newKeyCache(*config, server).file, 0o700))
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArray(t, always(map[string]any{}))
			config := a.config()
			config.TokenDir = t.TempDir()
			spoil(t, &config, a.URL)
			var log strings.Builder
			config.Logger = textLog(&log)
			require.NoError(t, read(t.Context(), connect(t, config)))
			require.Contains(t, log.String(), "session keys of the array cannot be kept")
			require.NotContains(t, log.String(), password)
			left, err := filepath.Glob(filepath.Join(config.TokenDir, ".session-*"))
			require.NoError(t, err)
			require.Empty(t, left)
			if name == "writable by others" {
				require.NoFileExists(t, newKeyCache(config, a.URL).file, "others could replace it")
			}
		})
	}
}
