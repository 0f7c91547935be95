package dateratest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
)

// store keeps the cluster in a folder, or nowhere.
type store struct {
	dir  string
	lock *flock.Flock
}

const (
	stateFile    = "state.json"
	volumesDir   = "volumes"
	snapshotsDir = "snapshots"
)

// openStore locks the folder and reads what it holds; the cluster is nil if it holds none yet.
func openStore(dir string) (*store, *cluster, error) {
	if dir == "" {
		return &store{}, nil, nil
	}
	for _, d := range []string{dir, filepath.Join(dir, volumesDir), filepath.Join(dir, snapshotsDir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, nil, fmt.Errorf("make the state folder: %w", err)
		}
	}
	s := &store{dir: dir, lock: flock.New(filepath.Join(dir, "lock"))}
	locked, err := s.lock.TryLock()
	if err != nil {
		return nil, nil, fmt.Errorf("lock the state folder: %w", err)
	}
	if !locked {
		return nil, nil, fmt.Errorf("state folder %s is in use by another simulator%s: stop it or choose another folder", dir, s.owner())
	}
	if err := os.WriteFile(s.lock.Path(), []byte(fmt.Sprintln(os.Getpid())), 0o600); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("write into the state folder: %w", err), s.close())
	}
	kept, err := s.load()
	if err != nil {
		return nil, nil, errors.Join(err, s.close())
	}
	return s, kept, nil
}

// owner says who holds the lock, as far as it is known.
func (s *store) owner() string {
	pid, err := os.ReadFile(s.lock.Path())
	if text := strings.TrimSpace(string(pid)); err == nil && text != "" {
		return " (process " + text + ")"
	}
	return ""
}

func (s *store) load() (*cluster, error) {
	text, err := os.ReadFile(filepath.Join(s.dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the state: %w", err)
	}
	c := &cluster{}
	if err := json.Unmarshal(text, c); err != nil || c.Tenants[rootTenant] == nil {
		return nil, fmt.Errorf("%s is not the state of a simulator (%v): move it away to begin anew", filepath.Join(s.dir, stateFile), err)
	}
	return c, nil
}

// save replaces the state at one stroke: whatever happens in between, the file is whole.
func (s *store) save(c *cluster) error {
	if s.dir == "" {
		return nil
	}
	text, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("save the state: %w", err)
	}
	path := filepath.Join(s.dir, stateFile)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("save the state: %w", err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("save the state: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("save the state: %w", err)
	}
	return syncDir(s.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("save the state: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s *store) close() error {
	if s == nil || s.lock == nil {
		return nil
	}
	return s.lock.Unlock()
}
