package calllog

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limits say how much of a log is kept.
type Limits struct {
	Bytes   int64         // beyond, the file is rotated away; 0: never
	Backups int           // so many rotated files are kept; 0: none; negative: all
	Age     time.Duration // rotated files beyond are deleted; 0: none for its age
}

// Writer appends lines to a log that other processes append to and rotate, too. No line is lost, none cut: whoever has
// the file open that another rotates away goes on writing to it under its new name. With no backups to keep, that file
// is deleted, and what is still written to it is gone.
type Writer struct {
	path   string
	limits Limits

	mutex sync.Mutex
	file  *os.File // nil: closed
}

// Append opens a log for writing, and makes it and its folder where they are missing. Rotated files beyond the limits are
// deleted.
func Append(path string, limits Limits) (*Writer, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	file, err := open(path)
	if err != nil {
		return nil, err
	}
	w := &Writer{path: filepath.Clean(path), limits: limits, file: file}
	w.makeRoom(0)
	w.prune()
	return w, nil
}

func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// Write appends whole lines: the kernel keeps what is appended by one call together.
func (w *Writer) Write(lines []byte) (int, error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.file == nil {
		return 0, os.ErrClosed
	}
	if w.makeRoom(int64(len(lines))) {
		w.prune()
	}
	return w.file.Write(lines)
}

// Close ends the writing.
func (w *Writer) Close() error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.file == nil {
		return os.ErrClosed
	}
	file := w.file
	w.file = nil
	return file.Close()
}

// TakeOver makes a descriptor of this process lead to the log, whatever writes to it.
func (w *Writer) TakeOver(descriptor int) error { return unix.Dup3(int(w.file.Fd()), descriptor, 0) }

// makeRoom rotates a file away to which so many bytes more are too much, and tells whether it did. A file that cannot be
// rotated is written to as it is.
func (w *Writer) makeRoom(more int64) (rotated bool) {
	for w.limits.Bytes > 0 {
		info, err := w.file.Stat()
		if err != nil || info.Size() == 0 || info.Size()+more <= w.limits.Bytes {
			return rotated
		}
		// The lock is on the file itself, not on its name: of all that have it open one rotates it. Nobody waits: who finds
		// it locked writes to it a last time. It ends when the file is closed.
		if lockFile(w.file) != nil {
			return rotated
		}
		if w.isCurrent(info) {
			if os.Rename(w.path, w.backup(time.Now())) != nil {
				_ = unix.Flock(int(w.file.Fd()), unix.LOCK_UN)
				return rotated
			}
			rotated = true
		}
		next, err := open(w.path)
		if err != nil {
			_ = unix.Flock(int(w.file.Fd()), unix.LOCK_UN)
			return rotated
		}
		_ = w.file.Close()
		w.file = next
	}
	return rotated
}

func lockFile(file *os.File) error { return unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

// isCurrent tells whether the log's name still leads to the file that is open.
func (w *Writer) isCurrent(opened fs.FileInfo) bool {
	named, err := os.Stat(w.path)
	return err == nil && os.SameFile(named, opened)
}

// backupTime is how lumberjack wrote the time into the name of a rotated file, in UTC.
const backupTime = "2006-01-02T15-04-05.000"

// backup is the name of the next file that is rotated away: behind all others, whatever the clock says. It needs the lock:
// the file that is rotated after this one is made when this one has its name.
func (w *Writer) backup(now time.Time) string {
	at := now.UTC().Truncate(time.Millisecond)
	for _, path := range rotated(w.path) {
		if last, err := w.timeOf(path); err == nil && !at.After(last) {
			at = last.Add(time.Millisecond)
		}
	}
	extension := filepath.Ext(w.path)
	return strings.TrimSuffix(w.path, extension) + "-" + at.Format(backupTime) + extension
}

// prune deletes the rotated files that are too many or too old.
func (w *Writer) prune() {
	kept := 0
	for _, path := range slices.Backward(rotated(w.path)) {
		at, err := w.timeOf(path)
		if err != nil {
			continue // not made by a rotation
		}
		tooOld := w.limits.Age > 0 && time.Since(at) > w.limits.Age
		if tooOld || w.limits.Backups >= 0 && kept >= w.limits.Backups {
			_ = os.Remove(path)
			continue
		}
		kept++
	}
}

// timeOf is when a file was rotated, by its name.
func (w *Writer) timeOf(path string) (time.Time, error) {
	extension := filepath.Ext(w.path)
	text := strings.TrimPrefix(path, strings.TrimSuffix(w.path, extension)+"-")
	return time.Parse(backupTime, strings.TrimSuffix(strings.TrimSuffix(text, ".gz"), extension))
}
