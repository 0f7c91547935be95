package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// folder is a directory where kubelet mounts a volume of this driver, while nothing is mounted there.
type folder struct {
	path    string
	content []string // names of a few entries
	changed time.Time
}

// unmounted lists these directories, by their real paths. None that is mounted is opened: its device may be dead.
func (o *Operator) unmounted(s scene) []folder {
	mounted := map[string]bool{}
	for _, m := range s.mounts {
		mounted[m.Path] = true
	}
	var found []folder
	for _, root := range o.roots(s) {
		pods, _ := filepath.Glob(filepath.Join(root, "pods", "*", "volumes", FolderName))
		for _, parent := range append(pods, filepath.Join(root, globalMounts)) {
			entries, _ := os.ReadDir(parent)
			for _, entry := range entries {
				path := filepath.Join(parent, entry.Name())
				if mounted[path] || !entry.IsDir() || checkVolumeName(entry.Name()) != nil {
					continue
				}
				if f, err := readFolder(path); err == nil {
					found = append(found, f)
				}
			}
		}
	}
	return found
}

func readFolder(path string) (folder, error) {
	const few = 3
	dir, err := os.Open(path)
	if err != nil {
		return folder{}, err
	}
	defer dir.Close()
	info, err := dir.Stat()
	if err != nil {
		return folder{}, err
	}
	names, _ := dir.Readdirnames(few + 1) // io.EOF when there are none
	if len(names) > few {
		names[few] = "…"
	}
	return folder{path: path, content: names, changed: info.ModTime()}, nil
}

// leftDirectories are empty directories of volumes that are not mounted: with such a one kubelet does not finish with a
// pod that is gone.
func (o *Operator) leftDirectories(s scene, older time.Duration) []Leftover {
	var found []Leftover
	for _, f := range o.unmounted(s) {
		if time.Since(f.changed) < older {
			continue
		}
		left := Leftover{
			Kind: kindDirectory, What: f.path, Why: "nothing is mounted there",
			remove: func(context.Context) error { return o.Mounter.RemoveDir(f.path) },
		}
		if len(f.content) > 0 {
			left.Keep = "it has content (" + strings.Join(f.content, ", ") + ") on the node's own disk"
		}
		found = append(found, left)
	}
	return found
}

// leftFiles are files of the driver's own that no call will read again. Its locks are none of them: a lock is the
// kernel's, not the file's, and who waits for one must find the file that others lock. Nor are hints: attach sweeps them.
func (o *Operator) leftFiles(older time.Duration) []Leftover {
	var found []Leftover
	cutOff := o.journal().cutOff()
	for _, path := range slices.Sorted(maps.Keys(cutOff)) {
		if info, err := os.Lstat(path); err == nil && time.Since(info.ModTime()) > older {
			found = append(found, Leftover{
				Kind: kindFile, What: path, Why: "a call was cut off while it wrote it",
				remove: func(context.Context) error {
					return o.whileFree(cutOff[path], func() error { return removeUnchanged(path, info) })
				},
			})
		}
	}
	return found
}

// removeUnchanged removes a file unless somebody has written a new one.
func removeUnchanged(path string, listed fs.FileInfo) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.ModTime().Equal(listed.ModTime()) {
		return fmt.Errorf("%s has been written anew", path)
	}
	return ignoreMissing(os.Remove(path))
}
