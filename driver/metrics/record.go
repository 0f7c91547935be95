// Package metrics counts the driver's calls in a file for Prometheus: that of node-exporter's textfile collector. Calls
// are short processes, and many run at once; none of them is lost, and none waits for another.
package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"datera-flexvolume/driver"
)

// Recorder adds calls to the file.
type Recorder struct {
	Path    string // of the file: NAME.prom
	Dir     string // of what is counted so far; its loss begins the counters anew, which Prometheus understands
	Version string // of the executable

	Volumes, Sessions func() int // on this node, now
}

// Call is one call.
type Call struct {
	Verb    string
	Success bool
	Work    driver.Work
}

// Record counts a call. It returns when ctx is done, whatever the file system does.
func (r Recorder) Record(ctx context.Context, call Call) error {
	ended := make(chan error, 1)
	go func() { ended <- r.record(ctx, call) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return fmt.Errorf("count the call in %s: %w", r.Path, context.Cause(ctx))
	}
}

// record notes the call in a file of its own. Then whoever has the lock adds up all notes that there are; who finds it
// taken leaves that to its holder, who looks for notes once more after giving it back.
func (r Recorder) record(ctx context.Context, call Call) error {
	if err := os.MkdirAll(r.notes(), 0o700); err != nil {
		return err
	}
	note, err := json.Marshal(call)
	if err != nil {
		return err
	}
	if _, err := replace(r.notes(), ".call-*.json", "", note, 0o600); err != nil {
		return err
	}
	for ctx.Err() == nil {
		lock := flock.New(filepath.Join(r.Dir, "lock"), flock.SetPermissions(0o600))
		locked, err := lock.TryLock()
		if err != nil || !locked {
			return err
		}
		if err := errors.Join(r.addUp(), lock.Unlock()); err != nil {
			return err
		}
		if left, _ := filepath.Glob(filepath.Join(r.notes(), "call-*.json")); len(left) == 0 {
			return nil
		}
	}
	return context.Cause(ctx)
}

func (r Recorder) notes() string { return filepath.Join(r.Dir, "notes") }
func (r Recorder) state() string { return filepath.Join(r.Dir, "state.json") }

// addUp needs the lock. State names the notes that it holds, so that one which could not be deleted is not counted twice.
func (r Recorder) addUp() error {
	var s state
	if content, err := os.ReadFile(r.state()); err != nil || json.Unmarshal(content, &s) != nil {
		s = state{}
	}
	notes, err := filepath.Glob(filepath.Join(r.notes(), "call-*.json"))
	if err != nil {
		return err
	}
	for _, note := range notes {
		content, err := os.ReadFile(note)
		if err != nil {
			return err
		}
		var call Call
		if json.Unmarshal(content, &call) == nil && !slices.Contains(s.Notes, filepath.Base(note)) {
			s.add(call)
		}
	}
	s.Notes = s.Notes[:0]
	for _, note := range notes {
		s.Notes = append(s.Notes, filepath.Base(note))
	}
	content, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if _, err := replace(r.Dir, ".state-*", r.state(), content, 0o600); err != nil {
		return err
	}
	for _, note := range notes {
		if err := os.Remove(note); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for dir, prefix := range map[string]string{r.notes(): ".call-", r.Dir: ".state-", filepath.Dir(r.Path): r.unfinished()} {
		sweep(dir, prefix)
	}
	// The collector reads NAME.prom only, so it never sees a file that is being written.
	_, err = replace(filepath.Dir(r.Path), r.unfinished()+"*", r.Path, s.text(r), 0o644)
	return err
}

// unfinished begins the name of a file that is to become the collector's.
func (r Recorder) unfinished() string { return "." + filepath.Base(r.Path) + "." }

// sweepAge is when nobody writes to a file any more: a call ends long before.
const sweepAge = time.Hour

// sweep removes what processes left that were killed while they replaced a file. It may stay: the next call sweeps, too.
func sweep(dir, prefix string) {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), prefix) {
			continue
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > sweepAge {
			_ = os.Remove(filepath.Join(dir, entry.Name()))
		}
	}
}

// replace writes a file by way of another beside it, of the pattern .NAME; to NAME where path is "". It does not wait for
// the disk: after a power cut it is enough to count from zero.
func replace(dir, pattern, path string, content []byte, mode os.FileMode) (string, error) {
	file, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return "", err
	}
	if path == "" {
		path = filepath.Join(dir, filepath.Base(file.Name())[1:])
	}
	_, err = file.Write(content)
	err = errors.Join(err, file.Chmod(mode), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(file.Name()))
	}
	return path, nil
}

// RecordTime bounds the counting of a call: kubelet waits for the end of the process.
const RecordTime = time.Second
