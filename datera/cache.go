package datera

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// keyCache keeps a session key in a file, so that short-lived processes need not log in each. It may vanish
// at any time. A nil keyCache keeps nothing.
type keyCache struct {
	dir, file string
	password  string
}

// keyLife is how long the array keeps a session. Whether use prolongs it is not documented, and a login too
// many costs less than a key too old: one request against two.
const keyLife = 15 * time.Minute

// cachedKey is the file. Check proves that the key came from the same password, without holding it.
type cachedKey struct {
	Key   string `json:"key"`
	Salt  []byte `json:"salt"`
	Check []byte `json:"check"`
}

func newKeyCache(config Config, server string) *keyCache {
	id := sha256.Sum256([]byte(strings.Join([]string{server, config.RemoteServer, config.Username}, "\x00")))
	return &keyCache{
		dir:      config.TokenDir,
		file:     filepath.Join(config.TokenDir, hex.EncodeToString(id[:16])+".session"),
		password: config.Password,
	}
}

// check is slow enough to make guessing a password from the file dear, and quick enough for every call (about 1 ms).
func (k *keyCache) check(salt []byte) ([]byte, error) {
	return pbkdf2.Key(sha256.New, k.password, salt, 4096, sha256.Size)
}

// read returns the key in the file, or "" when there is none that is young and of this password.
func (k *keyCache) read() string {
	if k == nil {
		return ""
	}
	info, err := os.Lstat(k.file)
	if err != nil || !info.Mode().IsRegular() || time.Since(info.ModTime()) > keyLife {
		return ""
	}
	data, err := os.ReadFile(k.file)
	if err != nil {
		return ""
	}
	var cached cachedKey
	if json.Unmarshal(data, &cached) != nil || len(cached.Salt) == 0 {
		return ""
	}
	check, err := k.check(cached.Salt)
	if err != nil || subtle.ConstantTimeCompare(check, cached.Check) != 1 {
		return ""
	}
	return cached.Key
}

// write puts the key in place of the old one in one step.
func (k *keyCache) write(key string) error {
	if k == nil {
		return nil
	}
	cached := cachedKey{Key: key, Salt: make([]byte, 16)}
	rand.Read(cached.Salt)
	var err error
	if cached.Check, err = k.check(cached.Salt); err != nil {
		return err
	}
	data, err := json.Marshal(cached)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(k.dir, ".session-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), k.file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// drop removes the file if it still holds this key.
func (k *keyCache) drop(key string) {
	if k != nil && key != "" && k.read() == key {
		_ = os.Remove(k.file)
	}
}

// lock keeps other processes from logging in too.
func (k *keyCache) lock(ctx context.Context) (unlock func(), err error) {
	if k == nil {
		return func() {}, nil
	}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return nil, err
	}
	if info, err := os.Stat(k.dir); err != nil {
		return nil, err
	} else if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("others than its owner may write to %s: make it mode 0700", k.dir)
	}
	lock := flock.New(k.file+".lock", flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, 10*time.Millisecond); err != nil {
		return nil, err
	}
	return func() { _ = lock.Unlock() }, nil
}
