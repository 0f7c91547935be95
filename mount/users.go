package mount

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Limits of the search for those who hold a mount or a device: it is a hint in an error message.
const (
	searchTime  = 500 * time.Millisecond
	searchCount = 5
)

// usersOfPath names the mounts below path and the processes with an open file or a working directory in it. It reads
// only /proc, where the kernel answers without asking the file system.
func (m *Mounter) usersOfPath(ctx context.Context, path string) string {
	var users []string
	if mounts, err := m.mounts(); err == nil {
		for _, mount := range mounts {
			if strings.HasPrefix(mount.Path, path+"/") && len(users) < searchCount {
				users = append(users, "mount below it at "+mount.Path)
			}
		}
	}
	return strings.Join(append(users, m.processes(ctx, searchCount-len(users), func(process string) string {
		return opened(process, path)
	})...), ", ")
}

// usersOfDevice names the processes in whose mount namespace the device is mounted.
func (m *Mounter) usersOfDevice(ctx context.Context, device string) string {
	number, err := numberOf(device)
	if err != nil {
		return ""
	}
	field := fmt.Appendf(nil, " %d:%d ", number.major, number.minor)
	seen := map[string]bool{}
	return strings.Join(m.processes(ctx, searchCount, func(process string) string {
		namespace, err := os.Readlink(filepath.Join(process, "ns/mnt"))
		if err != nil || seen[namespace] {
			return ""
		}
		seen[namespace] = true
		text, err := os.ReadFile(filepath.Join(process, "mountinfo"))
		if err != nil {
			return ""
		}
		for line := range bytes.Lines(text) {
			if bytes.Contains(line, field) {
				if mounts, err := parseMounts(line); err == nil && len(mounts) == 1 && mounts[0].isOf(number) {
					return "mounted at " + mounts[0].Path
				}
			}
		}
		return ""
	}), ", ")
}

// processes asks about each process and names at most so many of those with an answer.
func (m *Mounter) processes(ctx context.Context, most int, ask func(directory string) string) []string {
	deadline := time.Now().Add(searchTime)
	entries, err := os.ReadDir(m.opts.Proc)
	if err != nil {
		return nil
	}
	var found []string
	for _, entry := range entries {
		if len(found) >= most || ctx.Err() != nil || time.Now().After(deadline) {
			break
		}
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		directory := filepath.Join(m.opts.Proc, entry.Name())
		if answer := ask(directory); answer != "" {
			name, _ := os.ReadFile(filepath.Join(directory, "comm"))
			found = append(found, fmt.Sprintf("process %s (%s): %s", entry.Name(), bytes.TrimSpace(name), answer))
		}
	}
	return found
}

// opened is the first path at or below a directory that a process has open or works in.
func opened(process, directory string) string {
	links := []string{"cwd", "root", "exe"}
	if files, err := os.ReadDir(filepath.Join(process, "fd")); err == nil {
		for _, file := range files {
			links = append(links, "fd/"+file.Name())
		}
	}
	for _, link := range links {
		target, err := os.Readlink(filepath.Join(process, link))
		if err == nil && (target == directory || strings.HasPrefix(target, directory+"/")) {
			return target
		}
	}
	return ""
}
