package mount

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// fakeRunner answers for programs.
type fakeRunner struct {
	ran []string
	run func(ctx context.Context, command string) (string, error)
}

func (f *fakeRunner) Run(ctx context.Context, program string, args ...string) ([]byte, error) {
	command := strings.Join(append([]string{program}, args...), " ")
	f.ran = append(f.ran, command)
	out, err := f.run(ctx, command)
	return []byte(out), err
}

type exited int

func (e exited) Error() string { return fmt.Sprintf("exit status %d", int(e)) }
func (e exited) ExitCode() int { return int(e) }

// fakeHost is a mountinfo file that tests write, and a directory for mount points.
type fakeHost struct {
	*Mounter
	t         *testing.T
	runner    *fakeRunner
	directory string
	device    string // a block device that exists; nothing is done to it
	number    deviceNumber
}

func newFakeHost(t *testing.T) *fakeHost {
	t.Helper()
	directory, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	h := &fakeHost{t: t, directory: directory, device: blockNode(t)}
	h.number, err = numberOf(h.device)
	require.NoError(t, err)
	h.runner = &fakeRunner{run: func(_ context.Context, command string) (string, error) {
		t.Errorf("unexpected program: %s", command)
		return "", exited(1)
	}}
	h.Mounter = New(h.runner, Options{
		MountInfo: filepath.Join(directory, "mountinfo"), SysDevBlock: filepath.Join(directory, "sys"),
		KernelLog: filepath.Join(directory, "none"), UnmountTimeout: 200 * time.Millisecond, BusyTimeout: 30 * time.Millisecond,
	})
	require.NoError(t, os.MkdirAll(filepath.Join(directory, "sys", fmt.Sprintf("%d:%d", h.number.major, h.number.minor)), 0o700))
	h.mountinfo()
	return h
}

// blockNode finds a block device that may be opened.
func blockNode(t *testing.T) string {
	t.Helper()
	nodes, _ := filepath.Glob("/dev/loop[0-9]*")
	for i := len(nodes) - 1; i >= 0; i-- {
		if fd, err := unix.Open(nodes[i], unix.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			unix.Close(fd)
			return nodes[i]
		}
	}
	lacking(t, "no block device that may be opened")
	return ""
}

func (h *fakeHost) mountinfo(lines ...string) {
	h.t.Helper()
	text := "21 1 253:0 / / rw - ext4 /dev/root rw\n" + strings.Join(lines, "\n")
	require.NoError(h.t, os.WriteFile(h.opts.MountInfo, []byte(strings.TrimSpace(text)+"\n"), 0o600))
}

// line is the mountinfo of the host's device at a path.
func (h *fakeHost) line(path, filesystem, mode string) string {
	return fmt.Sprintf("50 21 %d:%d / %s %s,relatime shared:1 - %s %s %s", h.number.major, h.number.minor, path, mode, filesystem, h.device, mode)
}

func (h *fakeHost) path(name string) string { return filepath.Join(h.directory, name) }
