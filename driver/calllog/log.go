package calllog

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// pollInterval is how often a log that is followed is looked at.
const pollInterval = 250 * time.Millisecond

// Files are those of a log, the oldest first: what was rotated away (NAME-TIME.EXT, perhaps .gz), then the log itself.
func Files(path string) []string {
	files := rotated(path)
	if _, err := os.Stat(path); err == nil {
		files = append(files, path)
	}
	return files
}

func rotated(path string) []string {
	extension := filepath.Ext(path)
	prefix := strings.TrimSuffix(filepath.Base(path), extension) + "-"
	entries, _ := os.ReadDir(filepath.Dir(path))
	var files []string
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, prefix) && strings.HasSuffix(strings.TrimSuffix(name, ".gz"), extension) {
			files = append(files, filepath.Join(filepath.Dir(path), name))
		}
	}
	slices.SortFunc(files, func(a, b string) int {
		return cmp.Compare(strings.TrimSuffix(a, ".gz"), strings.TrimSuffix(b, ".gz"))
	})
	return files
}

// Open reads one of the files, unpacked.
func Open(path string) (io.ReadCloser, error) {
	file, err := os.Open(path)
	if err != nil || !strings.HasSuffix(path, ".gz") {
		return file, err
	}
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("unpack %s: %w", path, err), file.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{unpacked, file}, nil
}

// Read hands the calls of a log over, the oldest first. With follow it goes on with those that come, until ctx is done.
func Read(ctx context.Context, path string, filter Filter, follow bool, take func([]Entry) error) error {
	files := Files(path)
	if len(files) == 0 && !follow {
		return fmt.Errorf("there is no log %s: no call has been made yet, or the configuration's log.path is another", path)
	}
	current := &tail{path: path}
	defer current.close()
	_ = current.open() // before the older ones are read, so that a rotation meanwhile loses nothing
	var entries []Entry
	for _, file := range files {
		if file == path || endedBefore(file, filter.Since) {
			continue
		}
		found, err := readFile(ctx, file, filter)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // deleted meanwhile
			return err
		}
		entries = append(entries, found...)
	}
	for {
		found, err := current.next(filter)
		if err != nil {
			return err
		}
		if err := take(append(entries, found...)); err != nil || !follow {
			return err
		}
		entries = nil
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pollInterval):
		}
	}
}

func endedBefore(path string, since time.Time) bool {
	info, err := os.Stat(path)
	return err == nil && info.ModTime().Before(since)
}

func readFile(ctx context.Context, path string, filter Filter) ([]Entry, error) {
	file, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewReader(file)
	var entries []Entry
	for ctx.Err() == nil {
		line, err := lines.ReadBytes('\n')
		if e, is := parse(bytes.TrimSpace(line)); is && filter.takes(e) {
			entries = append(entries, e)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // a file that is being packed
			return entries, nil
		}
		if err != nil {
			return entries, fmt.Errorf("read %s: %w", path, err)
		}
	}
	return entries, context.Cause(ctx)
}

// tail is the file that is written to, up to where it was read.
type tail struct {
	path  string
	file  *os.File
	lines *bufio.Reader
	begun []byte // a line whose end is not written yet
}

func (t *tail) open() error {
	file, err := os.Open(t.path)
	if err == nil {
		t.close()
		t.file, t.lines, t.begun = file, bufio.NewReader(file), nil
	}
	return err
}

func (t *tail) close() {
	if t.file != nil {
		_ = t.file.Close()
	}
}

// next reads what has come since, also when the file was rotated away meanwhile.
func (t *tail) next(filter Filter) ([]Entry, error) {
	rotated := t.rotated()
	entries, err := t.rest(filter)
	if err != nil || !rotated || t.open() != nil {
		return entries, err
	}
	more, err := t.rest(filter)
	return append(entries, more...), err
}

func (t *tail) rotated() bool {
	if t.file == nil {
		return true
	}
	now, err := os.Stat(t.path)
	if err != nil {
		return false
	}
	own, err := t.file.Stat()
	return err == nil && !os.SameFile(now, own)
}

func (t *tail) rest(filter Filter) ([]Entry, error) {
	var entries []Entry
	for t.file != nil {
		line, err := t.lines.ReadBytes('\n')
		t.begun = append(t.begun, line...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return entries, fmt.Errorf("read %s: %w", t.path, err)
		}
		if e, is := parse(bytes.TrimSpace(t.begun)); is && filter.takes(e) {
			entries = append(entries, e)
		}
		t.begun = nil
	}
	return entries, nil
}
