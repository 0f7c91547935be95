// Package support packs what a report of a fault needs, without secrets.
package support

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"datera-flexvolume/driver"
)

// Limits of a package.
const (
	// partTime bounds what one part may take; a part that hangs is left to itself.
	partTime = 40 * time.Second
	// maxFileBytes bounds every file that is read.
	maxFileBytes = 64 << 20
)

// folder is where everything is in the package.
const folder = "iscsi-support/"

// Collector knows where to look. The package holds nothing that is not told here.
type Collector struct {
	Operator *driver.Operator
	Version  string        // of the executable
	Root     string        // of the host; "" is /
	LogAge   time.Duration // older files of the log are left out
	LogBytes int           // what there may be of the log, unpacked; the newest is kept
	Getenv   func(string) string
}

// File is one file of a package.
type File struct {
	Name  string
	Bytes int
	What  string
}

// part is something that is collected. It may be several files.
type part struct {
	what    string
	collect func(ctx context.Context, add func(name string, content []byte)) error
}

// Write packs everything as tar.gz. A part that cannot be had is named in the package and spoils no other.
func (c Collector) Write(ctx context.Context, w io.Writer) ([]File, error) {
	packed := gzip.NewWriter(w)
	archive := tar.NewWriter(packed)
	secrets := newRedactor(append(c.Operator.Config.Secrets(), c.Getenv("DAT_PASS")), c.secretTexts()...)
	now := time.Now()
	var files []File
	var failures strings.Builder
	write := func(name, what, content string) error {
		header := tar.Header{Name: folder + name, Mode: 0o600, Size: int64(len(content)), ModTime: now, Format: tar.FormatPAX}
		if err := archive.WriteHeader(&header); err != nil {
			return err
		}
		files = append(files, File{name, len(content), what})
		_, err := io.WriteString(archive, content)
		return err
	}
	for _, part := range c.parts(secrets) {
		found, err := inTime(ctx, part)
		for _, file := range found {
			if err := write(file.name, part.what, secrets.hide(string(file.content))); err != nil {
				return files, err
			}
		}
		if err != nil {
			fmt.Fprintf(&failures, "%s: %v\n", part.what, err)
		}
		if ctx.Err() != nil {
			return files, context.Cause(ctx)
		}
	}
	if failures.Len() > 0 {
		if err := write("errors.txt", "what could not be had, and why", secrets.hide(failures.String())); err != nil {
			return files, err
		}
	}
	return files, errors.Join(archive.Close(), packed.Close())
}

// found is a file of a part.
type found struct {
	name    string
	content []byte
}

// inTime collects one part, and goes on without it when it hangs or hits a fault.
func inTime(ctx context.Context, p part) ([]found, error) {
	ctx, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	type result struct {
		files []found
		err   error
	}
	answer := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if cause := recover(); cause != nil {
				r.err = fmt.Errorf("fault: %v\n%s", cause, debug.Stack())
			}
			answer <- r
		}()
		r.err = p.collect(ctx, func(name string, content []byte) { r.files = append(r.files, found{name, content}) })
	}()
	select {
	case r := <-answer:
		return r.files, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("it did not end: %w", context.Cause(ctx))
	}
}

// lastLines is the end of a text, in whole lines.
func lastLines(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	text = text[len(text)-limit:]
	_, text, _ = strings.Cut(text, "\n")
	return text
}

// secretTexts are those that hold secrets under their names: the configuration, also one that cannot be used, and node records.
func (c Collector) secretTexts() []string {
	var texts []string
	if content, err := readFile(c.Operator.Config.Path); err == nil {
		texts = append(texts, string(content))
	}
	records, _ := c.Operator.Node.Records()
	for _, record := range records {
		if content, err := readFile(record.Path); err == nil {
			texts = append(texts, string(content))
		}
	}
	return texts
}

func readFile(path string) ([]byte, error) { return readAll(os.Open(path)) }

// readAll reads a file that was opened, or as much of it as a package may hold.
func readAll(file io.ReadCloser, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxFileBytes))
}

func (c Collector) onHost(path string) string { return filepath.Join(cmp.Or(c.Root, "/"), path) }

// text collects what something prints.
func text(name string, write func(ctx context.Context, w io.Writer) error) func(context.Context, func(string, []byte)) error {
	return func(ctx context.Context, add func(string, []byte)) error {
		var content bytes.Buffer
		err := write(ctx, &content)
		if content.Len() > 0 {
			add(name, content.Bytes())
		}
		return err
	}
}
