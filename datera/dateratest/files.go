package dateratest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"datera-flexvolume/datera/dateratest/target"
)

func volumeFile(v *volume) string     { return volumesDir + "/" + v.UUID }
func snapshotFile(s *snapshot) string { return snapshotsDir + "/" + s.ID }

// volumeFile is where a copy of the volume's content comes from, "" without a data path.
func (d *dataPath) volumeFile(v *volume) string {
	if d.backend == nil {
		return ""
	}
	return volumeFile(v)
}

func (d *dataPath) snapshotFile(s *snapshot) string {
	if d.backend == nil {
		return ""
	}
	return snapshotFile(s)
}

// files are all backing files that the state knows, by their path in the state folder.
func (c *cluster) files() map[string]bool {
	known := map[string]bool{}
	for v := range c.volumes() {
		known[volumeFile(v)] = true
		for _, s := range v.Snapshots {
			known[snapshotFile(s)] = true
		}
	}
	return known
}

// makeFiles lets sparse files be there and as big as the volumes.
func makeFiles(luns []target.LUN) error {
	for _, lun := range luns {
		f, err := os.OpenFile(lun.File, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return fmt.Errorf("backing file: %w", err)
		}
		about, err := f.Stat()
		if err == nil && about.Size() < lun.Size {
			err = f.Truncate(lun.Size)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("backing file: %w", err)
		}
	}
	return nil
}

// removeOrphans deletes the files of volumes and snapshots that are gone. The list is older than the folder's content,
// but files are only made in the same round or by copies that are on the list.
func (d *dataPath) removeOrphans(known map[string]bool) error {
	var failed []error
	for _, folder := range []string{volumesDir, snapshotsDir} {
		entries, err := os.ReadDir(filepath.Join(d.dir, folder))
		failed = append(failed, err)
		for _, e := range entries {
			name := folder + "/" + strings.TrimSuffix(e.Name(), copySuffix)
			if known[name] || d.isCopying(name) {
				continue
			}
			failed = append(failed, os.Remove(filepath.Join(d.dir, folder, e.Name())))
		}
	}
	return errors.Join(failed...)
}

func (d *dataPath) isCopying(file string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.copying[file]
}

// allocated is how many bytes of a file are really stored; 0 for a file that is not there.
func allocated(file string) int64 {
	var about unix.Stat_t
	if err := unix.Stat(file, &about); err != nil {
		return 0
	}
	return about.Blocks * 512
}

// copySuffix marks a copy that is not complete yet.
const copySuffix = ".copy"

// pendingCopy is a file whose content has to come from another one, and what to note when that is over.
type pendingCopy struct {
	from, to string
	done     func(err error)
}

// pendingCopies lists them; the caller holds s.mu, and so does whoever calls done.
func (s *Server) pendingCopies() []pendingCopy {
	var all []pendingCopy
	for v := range s.cluster.volumes() {
		if v.CopyFrom != "" && v.CopyError == "" {
			all = append(all, pendingCopy{v.CopyFrom, volumeFile(v), func(err error) {
				if err != nil {
					v.CopyError = describeCopy(v.CopyFrom, err)
					return
				}
				v.CopyFrom = ""
			}})
		}
		for _, snap := range v.Snapshots {
			if snap.CopyFrom != "" && snap.CopyError == "" {
				all = append(all, pendingCopy{snap.CopyFrom, snapshotFile(snap), func(err error) {
					if err != nil {
						snap.CopyError = describeCopy(snap.CopyFrom, err)
						return
					}
					snap.CopyFrom = ""
				}})
			}
		}
	}
	return all
}

// startCopies copies in the background what clones, snapshots and restored volumes need, also what a crash interrupted.
func (s *Server) startCopies() {
	s.mu.Lock()
	pending := s.pendingCopies()
	s.mu.Unlock()
	s.data.mu.Lock()
	defer s.data.mu.Unlock()
	for _, p := range pending {
		if s.data.copying[p.to] {
			continue
		}
		s.data.copying[p.to] = true
		s.data.copies.Add(1)
		go func() {
			defer s.data.copies.Done()
			s.runCopy(p)
		}()
	}
}

func (s *Server) runCopy(p pendingCopy) {
	err := copyFile(s.data.life, filepath.Join(s.data.dir, p.from), filepath.Join(s.data.dir, p.to))
	if s.data.life.Err() != nil {
		return // the next start does it again
	}
	if err != nil {
		s.log.Error("copy a volume", "from", p.from, "to", p.to, "error", err)
	}
	s.mu.Lock()
	p.done(err)
	err = s.save()
	s.mu.Unlock()
	if err != nil {
		s.log.Error("save the state", "error", err)
	}
	s.data.mu.Lock()
	delete(s.data.copying, p.to)
	s.data.mu.Unlock()
	s.reconcile(s.data.life)
}

// copyFile makes a copy that is complete or not there. A source that was never made is empty.
func copyFile(ctx context.Context, from, to string) error {
	source, err := os.Open(from)
	if errors.Is(err, os.ErrNotExist) {
		source, err = os.Open(os.DevNull)
	}
	if err != nil {
		return err
	}
	defer source.Close()
	copied, err := os.OpenFile(to+copySuffix, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = copyContent(ctx, source, copied)
	if err := errors.Join(err, copied.Sync(), copied.Close()); err != nil {
		return errors.Join(err, os.Remove(to+copySuffix))
	}
	return os.Rename(to+copySuffix, to)
}

// settleTries bounds how often the copy of a volume that is being written is brought up to date.
const settleTries = 8

// copyContent shares the blocks where the file system can. Elsewhere it copies until a whole pass finds no difference:
// then the copy is what the source was between that pass and the one before, although the source is in use.
func copyContent(ctx context.Context, source, copied *os.File) error {
	if err := unix.IoctlFileClone(int(copied.Fd()), int(source.Fd())); err == nil {
		return nil
	}
	about, err := source.Stat()
	if err != nil {
		return err
	}
	if err := copied.Truncate(about.Size()); err != nil {
		return err
	}
	for range settleTries {
		changed, err := copyDifferences(ctx, source, copied)
		if err != nil || !changed {
			return err
		}
	}
	return nil
}

const chunk = 1 << 20

// copyDifferences writes what is not equal, and tells whether anything was not. It skips what is a hole in both.
func copyDifferences(ctx context.Context, source, copied *os.File) (changed bool, err error) {
	a, b := make([]byte, chunk), make([]byte, chunk)
	for at := int64(0); ; at += chunk {
		if ctx.Err() != nil {
			return changed, ctx.Err()
		}
		at = min(nextData(source, at), nextData(copied, at)) / chunk * chunk
		n, err := source.ReadAt(a, at)
		if n == 0 {
			if errors.Is(err, io.EOF) {
				return changed, nil
			}
			return changed, err
		}
		m, _ := copied.ReadAt(b[:n], at)
		if m == n && string(a[:n]) == string(b[:n]) {
			continue
		}
		if _, err := copied.WriteAt(a[:n], at); err != nil {
			return changed, err
		}
		changed = true
	}
}

// nextData is where the next block that is not a hole begins, far behind the end if there is none.
func nextData(f *os.File, at int64) int64 {
	next, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 1 << 62
	}
	if err != nil {
		return at // a file system that does not know holes has data everywhere
	}
	return next
}
