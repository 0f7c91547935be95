package driver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"
)

// A record says that a volume is on this node or on its way. It is written before the
// first change to the node and removed after the last. Kernel and array are the truth: a
// record that is lost costs a repetition or, in attach mode none, a clean-up by hand.
type record struct {
	Name        string `json:"name"`        // of the volume in Kubernetes
	AppInstance string `json:"appInstance"` // name on the array
	Device      string `json:"device"`      // the device string
	// Direct says that mount attached the volume by itself, so unmount must detach it.
	Direct *directAttachment `json:"direct,omitempty"`
}

// directAttachment is what unmount needs to know when nobody else detaches (attach mode none).
type directAttachment struct {
	Mount  string `json:"mount"`  // where the file system is mounted
	Server string `json:"server"` // of the array, with its scheme
	Tenant string `json:"tenant,omitempty"`
}

// journal keeps the records of a node: those in volumes belong to volumes in use, those
// in leaving to volumes whose removal has begun and must be finished whatever happens.
type journal struct{ dir string }

func (j journal) inUse(key string) string {
	return filepath.Join(j.dir, "volumes", fileNameFor(key)+".json")
}
func (j journal) leaving(key string) string {
	return filepath.Join(j.dir, "leaving", fileNameFor(key)+".json")
}

// write stores a record so that the old one stands or the new one does, also after a power cut. The time of its file is
// that of the last write, also of the same.
func (j journal) write(key string, r record) error {
	now := time.Now()
	if known, err := readRecord(j.inUse(key)); err == nil && reflect.DeepEqual(known, r) {
		_ = os.Chtimes(j.inUse(key), now, now) // only to tell how long nobody has asked for it
	} else {
		document, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err := writeDurably(j.inUse(key), append(document, '\n')); err != nil {
			return fmt.Errorf("record volume %s in %s: %w", r.Name, j.dir, err)
		}
	}
	// What has come back is no longer leaving.
	return ignoreMissing(os.Remove(j.leaving(key)))
}

// read finds the record of a volume, in use or leaving. A record that cannot be read
// counts as lost.
func (j journal) read(key string) (record, bool) {
	for _, path := range []string{j.inUse(key), j.leaving(key)} {
		if r, err := readRecord(path); err == nil {
			return r, true
		}
	}
	return record{}, false
}

func readRecord(path string) (record, error) {
	document, err := os.ReadFile(path)
	if err != nil {
		return record{}, err
	}
	var r record
	if err := json.Unmarshal(document, &r); err != nil {
		return record{}, err
	}
	return r, checkVolumeName(r.Name)
}

// leave marks the removal as begun: from here on every call on this node finishes it.
func (j journal) leave(key string) error {
	if err := os.MkdirAll(filepath.Join(j.dir, "leaving"), 0o700); err != nil {
		return err
	}
	return ignoreMissing(os.Rename(j.inUse(key), j.leaving(key)))
}

func (j journal) forget(key string) error {
	return errors.Join(ignoreMissing(os.Remove(j.inUse(key))), ignoreMissing(os.Remove(j.leaving(key))))
}

// unfinished lists the keys of removals that began and did not end.
func (j journal) unfinished() []string { return j.keys("leaving") }

// used lists the keys of the volumes in use.
func (j journal) used() []string { return j.keys("volumes") }

func (j journal) keys(folder string) []string {
	entries, err := os.ReadDir(filepath.Join(j.dir, folder))
	if err != nil {
		return nil
	}
	var keys []string
	for _, entry := range entries {
		if key, found := strings.CutSuffix(entry.Name(), ".json"); found && !strings.HasPrefix(key, ".") {
			keys = append(keys, key)
		}
	}
	return keys
}

// cutOff lists the temporary files of records that a killed call was writing, with the keys of their volumes.
func (j journal) cutOff() map[string]string {
	found := map[string]string{}
	paths, _ := filepath.Glob(filepath.Join(j.dir, "volumes", ".*.json.*"))
	for _, path := range paths {
		key, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), "."), ".json.")
		found[path] = key
	}
	return found
}

// writeDurably replaces a file by way of a temporary one beside it. Only root may read it.
func writeDurably(path string, content []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return syncDir(dir)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
