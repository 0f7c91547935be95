package vm

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBuildImageReportsWhatTheScriptSays(t *testing.T) {
	repository := t.TempDir()
	script := filepath.Join(repository, "testdata", "vm", "build.sh")
	below := filepath.Join(repository, "some", "package")
	require.NoError(t, os.MkdirAll(filepath.Dir(script), 0o755))
	require.NoError(t, os.MkdirAll(below, 0o755))
	t.Chdir(below)

	require.NoError(t, os.WriteFile(script, []byte("echo building >&2; echo /the/image"), 0o644))
	var log strings.Builder
	image, err := buildImage(t.Context(), &log)
	require.NoError(t, err)
	require.Equal(t, "/the/image", image)
	require.Equal(t, "building\n", log.String())

	require.NoError(t, os.WriteFile(script, []byte("echo the disk is full >&2; exit 3"), 0o644))
	_, err = buildImage(t.Context(), io.Discard)
	require.EqualError(t, err, "build the machines' image by "+script+": exit status 3\nthe disk is full\n")
}

func TestBuildImageStopsAllThatTheScriptStarted(t *testing.T) {
	repository := t.TempDir()
	script := filepath.Join(repository, "testdata", "vm", "build.sh")
	require.NoError(t, os.MkdirAll(filepath.Dir(script), 0o755))
	require.NoError(t, os.WriteFile(script, []byte("sleep 60 & echo $! >pid; wait"), 0o644))
	t.Chdir(repository)
	ctx, cancel := context.WithCancel(t.Context())
	var child int
	go func() {
		defer cancel()
		child = awaitPid(filepath.Join(repository, "pid"))
	}()
	_, err := buildImage(ctx, io.Discard)
	require.ErrorIs(t, err, context.Canceled)
	require.NotZero(t, child)
	require.Eventually(t, func() bool { return gone(child) }, 5*time.Second, 10*time.Millisecond)
}

func TestOutsideTheRepository(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	_, err := Start(t.Context(), Options{Log: io.Discard})
	require.EqualError(t, err, "no testdata/vm/build.sh in "+dir+" or above it: run this within the repository")
}

func TestChooseAccelerator(t *testing.T) {
	for _, test := range []struct {
		name, wanted, known string
		want, err           string
	}{
		{name: "wanted", wanted: "kvm", known: "tcg", want: "kvm"},
		{name: "known", known: "kvm", want: "kvm"},
		{name: "wanted nonsense", wanted: "xen", err: `VM_ACCEL is "xen": it must be kvm or tcg`},
	} {
		t.Run(test.name, func(t *testing.T) {
			image := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(image, "accelerator"), []byte(test.known), 0o644))
			t.Setenv("VM_ACCEL", test.wanted)
			got, err := chooseAccelerator(t.Context(), image, io.Discard)
			if test.err != "" {
				require.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, got)
		})
	}
}

// TestAcceleratorThatFails gives the probe an image that cannot boot.
func TestAcceleratorThatFails(t *testing.T) {
	if device, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		t.Skip("no KVM to try")
	} else {
		device.Close()
	}
	t.Setenv("VM_ACCEL", "")
	image := t.TempDir()
	for range 2 {
		got, err := chooseAccelerator(t.Context(), image, io.Discard)
		require.NoError(t, err)
		require.Equal(t, "tcg", got)
		require.FileExists(t, filepath.Join(image, "accelerator"))
	}
}

func TestStartReportsWhyQEMUEnded(t *testing.T) {
	_, err := start(t.Context(), Options{Name: "a"}, "/nonsense", "tcg")
	require.ErrorContains(t, err, "boot: machine a: QEMU ended: exit status 1; the console's end:")
	require.ErrorContains(t, err, "/nonsense/vmlinuz")
}

func TestStartObeysItsContext(t *testing.T) {
	ctx := boots(t)
	image, err := buildImage(ctx, os.Stderr)
	require.NoError(t, err)
	network := NewNetwork()
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err = start(short, Options{Name: "a", Network: network, Index: 1}, image, "tcg")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "machine a: boot: ")
	require.Empty(t, network.lans[0].ports)
	require.Empty(t, network.lans[1].ports)
}

func TestConsoleKeepsItsEnd(t *testing.T) {
	var log strings.Builder
	c := console{log: &log}
	require.Equal(t, "the console is empty", c.tail())
	all := strings.Repeat("0123456789\r\n", 10_000) + "end\r\n"
	for rest := all; rest != ""; {
		n := min(len(rest), 999)
		_, err := c.Write([]byte(rest[:n]))
		require.NoError(t, err)
		rest = rest[n:]
	}
	require.Equal(t, all, log.String())
	require.True(t, strings.HasSuffix(c.tail(), "0123456789\nend"))
	require.Less(t, len(c.tail()), consoleBytes+100)
}

// awaitPid waits until a file has a process id.
func awaitPid(file string) int {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for range 1000 {
		text, _ := os.ReadFile(file)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && syscall.Kill(pid, 0) == nil {
			return pid
		}
		<-ticker.C
	}
	return 0
}
