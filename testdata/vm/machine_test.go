package vm

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
)

func boots(t *testing.T) context.Context {
	t.Helper()
	if testing.Short() {
		t.Skip("boots machines")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// succeed runs a script that must succeed, and returns its standard output.
func succeed(ctx context.Context, t *testing.T, m *Machine, script string) string {
	t.Helper()
	result, err := m.Shell(ctx, "set -e\n"+script)
	require.NoError(t, err)
	require.Zero(t, result.Exit, "%s\nstdout: %s\nstderr: %s", script, result.Stdout, result.Stderr)
	return string(result.Stdout)
}

// TestMachines lets all that needs live machines share two of them, since a boot costs seconds.
func TestMachines(t *testing.T) {
	ctx := boots(t)
	network := NewNetwork()
	disk := filepath.Join(t.TempDir(), "disk, with a comma")
	require.NoError(t, os.WriteFile(disk, make([]byte, 1<<20), 0o600))
	options := []Options{
		{Name: "a", Network: network, Index: 1, Env: []string{"GREETING=hello"}, Disks: []string{disk}},
		{Name: "b", Network: network, Index: 2},
	}
	machines := make([]*Machine, len(options))
	var booting sync.WaitGroup
	for i := range options {
		booting.Go(func() {
			m, err := Start(ctx, options[i])
			if err != nil {
				t.Errorf("start: %v", err)
				return
			}
			t.Cleanup(m.Kill)
			machines[i] = m
		})
	}
	booting.Wait()
	require.False(t, t.Failed())
	a, b := machines[0], machines[1]

	t.Run("commands", func(t *testing.T) { testCommands(ctx, t, a) })
	t.Run("processes", func(t *testing.T) { testProcesses(ctx, t, a) })
	t.Run("files", func(t *testing.T) { testFiles(ctx, t, a) })
	t.Run("node", func(t *testing.T) { testNode(ctx, t, b) })
	t.Run("network", func(t *testing.T) { testNetwork(ctx, t, a, b) })
	t.Run("iscsi", func(t *testing.T) { testISCSI(ctx, t, a, b) })
	t.Run("two machines of one number", func(t *testing.T) {
		_, err := Start(ctx, options[1])
		require.ErrorContains(t, err, "machine b: join the network as number 2: another machine has that number")
	})
	t.Run("pause", func(t *testing.T) {
		require.NoError(t, b.Pause())
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		_, err := b.Run(short, "true")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, b.Resume())
		succeed(ctx, t, b, "true")
	})
	t.Run("crash", func(t *testing.T) {
		_, err := b.Shell(ctx, "echo c >/proc/sysrq-trigger; sleep 60")
		require.ErrorContains(t, err, "sysrq triggered crash")
		require.ErrorContains(t, err, "machine b switched itself off")
		<-b.Done()
		_, err = b.Run(ctx, "true")
		require.ErrorContains(t, err, "machine b switched itself off")
		require.ErrorIs(t, syscall.Kill(b.qemu.Pid, 0), syscall.ESRCH)
	})
	t.Run("kill", func(t *testing.T) {
		succeed(ctx, t, a, "echo kept | dd of=/dev/vda conv=fsync status=none")
		sleep, err := a.Spawn(ctx, Command{Args: []string{"sleep", "60"}})
		require.NoError(t, err)
		a.Kill()
		_, err = sleep.Wait()
		require.ErrorIs(t, err, ErrOff)
		require.ErrorIs(t, syscall.Kill(a.qemu.Pid, 0), syscall.ESRCH)
		require.Empty(t, network.lans[0].ports, "the machines have left the network")
		content, err := os.ReadFile(disk)
		require.NoError(t, err)
		require.True(t, bytes.HasPrefix(content, []byte("kept\n")), "the disk outlasts the machine")
	})
}

func testCommands(ctx context.Context, t *testing.T, m *Machine) {
	for _, test := range []struct {
		name   string
		script string
		want   Result
	}{
		{"success", "", Result{}},
		{"exit status", "exit 42", Result{Exit: 42}},
		{"ended by a signal", "kill -KILL $$", Result{Exit: 137}},
		{"stdout and stderr apart", "echo out; echo err >&2", Result{Stdout: []byte("out\n"), Stderr: []byte("err\n")}},
		{"root", "whoami", Result{Stdout: []byte("root\n")}},
		{"host name", "hostname", Result{Stdout: []byte("a\n")}},
		{"environment of the machine", "echo $GREETING", Result{Stdout: []byte("hello\n")}},
		{"no input", "cat", Result{}},
		{"a daemon holds the output", "sleep 60 & echo started", Result{Stdout: []byte("started\n")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := m.Shell(ctx, test.script)
			require.NoError(t, err)
			require.Equal(t, test.want.Exit, got.Exit)
			require.Equal(t, string(test.want.Stdout), string(got.Stdout))
			require.Equal(t, string(test.want.Stderr), string(got.Stderr))
		})
	}
	t.Run("input, environment and directory of a command", func(t *testing.T) {
		var output bytes.Buffer
		exit, err := m.Exec(ctx, Command{
			Args: []string{"bash", "-c", "cat; echo $GREETING; pwd"}, Env: []string{"GREETING=good bye"}, Dir: "/etc/iscsi",
			Stdin: strings.NewReader("input\n"), Stdout: &output,
		})
		require.NoError(t, err)
		require.Zero(t, exit)
		require.Equal(t, "input\ngood bye\n/etc/iscsi\n", output.String())
	})
	t.Run("input that is not read", func(t *testing.T) {
		exit, err := m.Exec(ctx, Command{Args: []string{"true"}, Stdin: io.LimitReader(zeros{}, 4<<20)})
		require.NoError(t, err)
		require.Zero(t, exit)
	})
	t.Run("input that cannot be read", func(t *testing.T) {
		_, err := m.Exec(ctx, Command{Args: []string{"cat"}, Stdin: iotest.ErrReader(os.ErrPermission)})
		require.Error(t, err)
	})
	t.Run("much output", func(t *testing.T) {
		got, err := m.Run(ctx, "seq", "1000000")
		require.NoError(t, err)
		want := new(bytes.Buffer)
		for i := 1; i <= 1000000; i++ {
			want.Write(append(strconv.AppendInt(want.AvailableBuffer(), int64(i), 10), '\n'))
		}
		require.True(t, bytes.Equal(want.Bytes(), got.Stdout), "%d bytes differ from the %d expected", len(got.Stdout), want.Len())
	})
	t.Run("output that cannot be written", func(t *testing.T) {
		reader, writer := io.Pipe()
		require.NoError(t, reader.Close())
		_, err := m.Exec(ctx, Command{Args: []string{"yes"}, Stdout: writer})
		require.ErrorIs(t, err, io.ErrClosedPipe)
	})
	t.Run("nothing to run", func(t *testing.T) {
		_, err := m.Run(ctx)
		require.EqualError(t, err, "machine a: empty command")
	})
	t.Run("no such program", func(t *testing.T) {
		_, err := m.Run(ctx, "nonsense")
		require.ErrorContains(t, err, "machine "+m.Name()+`: run ["nonsense"]: exec: "nonsense": executable file not found`)
	})
	t.Run("many at once", func(t *testing.T) {
		var running sync.WaitGroup
		for i := range 30 {
			running.Go(func() {
				got, err := m.Run(ctx, "echo", fmt.Sprint(i))
				if want := fmt.Sprintln(i); err != nil || string(got.Stdout) != want {
					t.Errorf("got %q and error %v, want %q", got.Stdout, err, want)
				}
			})
		}
		running.Wait()
	})
}

func testProcesses(ctx context.Context, t *testing.T, m *Machine) {
	t.Run("output comes while the command runs", func(t *testing.T) {
		stdin, answer := io.Pipe()
		stdout, output := io.Pipe()
		process, err := m.Spawn(ctx, Command{Args: []string{"bash", "-c", "echo ready; read a; echo $a"}, Stdin: stdin, Stdout: output})
		require.NoError(t, err)
		lines := bufio.NewScanner(stdout)
		require.True(t, lines.Scan())
		require.Equal(t, "ready", lines.Text())
		_, err = answer.Write([]byte("now\n"))
		require.NoError(t, err)
		require.True(t, lines.Scan())
		require.Equal(t, "now", lines.Text())
		require.NoError(t, answer.Close())
		exit, err := process.Wait()
		require.NoError(t, err)
		require.Zero(t, exit)
	})
	t.Run("signal", func(t *testing.T) {
		stdout, output := io.Pipe()
		process, err := m.Spawn(ctx, Command{
			Args: []string{"bash", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"}, Stdout: output,
		})
		require.NoError(t, err)
		require.True(t, bufio.NewScanner(stdout).Scan())
		require.NoError(t, process.Signal(syscall.SIGTERM))
		exit, err := process.Wait()
		require.NoError(t, err)
		require.Equal(t, 7, exit)
	})
	t.Run("the end of the context kills the process group", func(t *testing.T) {
		short, cancel := context.WithCancel(ctx)
		stdout, output := io.Pipe()
		process, err := m.Spawn(short, Command{Args: []string{"bash", "-c", "sleep 4711 & echo ready; wait"}, Stdout: output})
		require.NoError(t, err)
		require.True(t, bufio.NewScanner(stdout).Scan())
		succeed(ctx, t, m, "ps | grep -q '[s]leep 4711'")
		cancel()
		_, err = process.Wait()
		require.ErrorIs(t, err, context.Canceled)
		succeed(ctx, t, m, "while ps | grep -q '[s]leep 4711'; do sleep 0.01; done")
	})
}

func testFiles(ctx context.Context, t *testing.T, m *Machine) {
	dir := t.TempDir()
	content := bytes.Repeat([]byte("0123456789abcdef"), 300_000)
	local := filepath.Join(dir, "local")
	require.NoError(t, os.WriteFile(local, content, 0o640))

	t.Run("put and get", func(t *testing.T) {
		require.NoError(t, m.Put(ctx, local, "/root/new/folder/file", 0o755))
		require.Equal(t, fmt.Sprintf("755 %d %x\n", len(content), sha256.Sum256(content)),
			succeed(ctx, t, m, "cd /root/new/folder; [ $(ls -A) = file ]; echo $(stat -c '%a %s' file) $(sha256sum <file | cut -d ' ' -f 1)"))
		back := filepath.Join(dir, "back")
		require.NoError(t, m.Get(ctx, "/root/new/folder/file", back))
		got, err := os.ReadFile(back)
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, got), "%d bytes came back of %d", len(got), len(content))
	})
	t.Run("directory", func(t *testing.T) {
		source := filepath.Join(dir, "source")
		require.NoError(t, os.MkdirAll(filepath.Join(source, "sub"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(source, "one"), []byte("1"), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(source, "sub", "two"), nil, 0o755))
		require.NoError(t, m.Put(ctx, source, "/root/copy", 0))
		require.Equal(t, "600 1 one\n755 0 sub/two\n", succeed(ctx, t, m, "cd /root/copy; stat -c '%a %s %n' one sub/two"))
	})
	t.Run("program that runs", func(t *testing.T) {
		short, cancel := context.WithCancel(ctx)
		defer cancel()
		succeed(ctx, t, m, "cp $(type -P sleep) /root/program")
		_, err := m.Spawn(short, Command{Args: []string{"/root/program", "60"}})
		require.NoError(t, err)
		require.NoError(t, m.Write(ctx, "/root/program", strings.NewReader("#!/bin/sh\necho new\n"), 0o755))
		require.Equal(t, "new\n", succeed(ctx, t, m, "/root/program"))
	})
	t.Run("content that breaks off", func(t *testing.T) {
		require.Error(t, m.Write(ctx, "/root/half", iotest.ErrReader(os.ErrPermission), 0o644))
		succeed(ctx, t, m, "[ ! -e /root/half ]")
	})
	t.Run("no such file", func(t *testing.T) {
		require.ErrorContains(t, m.Get(ctx, "/nonsense", filepath.Join(dir, "nonsense")),
			"machine a: read /nonsense: open /nonsense: no such file or directory")
		require.ErrorIs(t, m.Put(ctx, filepath.Join(dir, "missing"), "/root/missing", 0), os.ErrNotExist)
	})
}

// testNode proves that the machine is what an iSCSI node needs to be.
func testNode(ctx context.Context, t *testing.T, m *Machine) {
	require.Equal(t, "InitiatorName="+m.InitiatorName()+"\n", succeed(ctx, t, m, "cat /etc/iscsi/initiatorname.iscsi"))
	succeed(ctx, t, m, `
		pidof iscsid
		udevadm settle
		[ "$(findmnt -no PROPAGATION /)" = shared ]
		truncate -s 300M /root/disk; mkfs.xfs -q /root/disk; mount -o loop /root/disk /mnt; findmnt -n -t xfs /mnt; umount /mnt
		truncate -s 10M /root/disk; mkfs.ext4 -Fq /root/disk; mount -o loop /root/disk /mnt; umount /mnt; rm /root/disk
		modprobe -a dm_multipath dm_round_robin dm_service_time overlay target_core_iblock; multipath -ll`)
}

func testNetwork(ctx context.Context, t *testing.T, a, b *Machine) {
	ping := func(m *Machine, address string) int {
		result, err := m.Run(ctx, "busybox", "ping", "-c", "1", "-W", "1", address)
		require.NoError(t, err)
		return result.Exit
	}
	for lan := range 2 {
		require.Zero(t, ping(a, b.Address(lan)), "from a to b on subnet %d", lan)
		require.Zero(t, ping(b, a.Address(lan)), "from b to a on subnet %d", lan)
	}
	require.Zero(t, ping(a, HostAddress))
	a.Unplug(1)
	require.NotZero(t, ping(b, a.Address(1)), "subnet 1 is cut")
	require.Zero(t, ping(b, a.Address(0)), "subnet 0 is not")
	a.Plug(1)
	require.Zero(t, ping(b, a.Address(1)), "subnet 1 works again")
}

// testISCSI makes a the target of b, by both portals.
func testISCSI(ctx context.Context, t *testing.T, a, b *Machine) {
	const iqn = "iqn.2026-11.test:volume"
	succeed(ctx, t, a, `
		modprobe -a target_core_file iscsi_target_mod
		mount -t configfs none /sys/kernel/config
		truncate -s 1G /root/lun
		store=/sys/kernel/config/target/core/fileio_0/volume group=/sys/kernel/config/target/iscsi/`+iqn+`/tpgt_1
		mkdir -p $store
		echo fd_dev_name=/root/lun,fd_dev_size=$((1 << 30)) >$store/control
		echo 1 >$store/enable
		mkdir -p $group/lun/lun_0 $group/np/`+a.Address(0)+`:3260 $group/np/`+a.Address(1)+`:3260
		ln -s $store $group/lun/lun_0/store
		echo 0 >$group/attrib/authentication
		echo 1 >$group/attrib/generate_node_acls
		echo 0 >$group/attrib/demo_mode_write_protect
		echo 1 >$group/enable`)
	for lan := range 2 {
		portal := a.Address(lan) + ":3260"
		succeed(ctx, t, b, fmt.Sprintf("iscsiadm -m node -o new -T %s -p %s", iqn, portal))
		begin := time.Now()
		succeed(ctx, t, b, fmt.Sprintf("iscsiadm -m node -T %s -p %s --login", iqn, portal))
		t.Logf("login to %s took %v", portal, time.Since(begin))
		succeed(ctx, t, b, fmt.Sprintf("while [ ! -b /dev/disk/by-path/ip-%s-iscsi-%s-lun-0 ]; do sleep 0.01; done", portal, iqn))
	}
	path := func(lan int) string {
		return fmt.Sprintf("/dev/disk/by-path/ip-%s:3260-iscsi-%s-lun-0", a.Address(lan), iqn)
	}
	succeed(ctx, t, b, "mkfs.xfs -q "+path(0)+"; mount "+path(0)+" /mnt; echo written >/mnt/file; umount /mnt")
	require.Equal(t, "written\n", succeed(ctx, t, b, "mount "+path(1)+" /mnt; cat /mnt/file; umount /mnt"), "the other path leads to the same volume")
	succeed(ctx, t, b, "iscsiadm -m node -T "+iqn+" --logout; while [ -e "+path(0)+" ]; do sleep 0.01; done")
}

func TestStop(t *testing.T) {
	ctx := boots(t)
	for _, test := range []struct {
		name   string
		paused bool
		want   error
	}{
		{"machine that works", false, nil},
		{"machine that hangs", true, context.DeadlineExceeded},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, err := Start(ctx, Options{})
			require.NoError(t, err)
			t.Cleanup(m.Kill)
			patience := 30 * time.Second
			if test.paused {
				require.NoError(t, m.Pause())
				patience = 100 * time.Millisecond
			}
			limited, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			require.ErrorIs(t, m.Stop(limited), test.want)
			require.ErrorIs(t, syscall.Kill(m.qemu.Pid, 0), syscall.ESRCH)
			_, err = m.Run(ctx, "true")
			require.ErrorIs(t, err, ErrOff)
		})
	}
}

const parentOnly = "VM_TEST_PARENT"

// TestParentKilled kills a process that has a machine, as nobody can prepare for, and looks for what is left.
func TestParentKilled(t *testing.T) {
	ctx := boots(t)
	if os.Getenv(parentOnly) != "" {
		m, err := Start(ctx, Options{Network: NewNetwork(), Index: 1})
		require.NoError(t, err)
		fmt.Printf("qemu %d\n", m.qemu.Pid)
		<-m.Done()
		return
	}
	files := t.TempDir()
	parent := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestParentKilled$")
	parent.Env = append(os.Environ(), parentOnly+"=1", "TMPDIR="+files)
	stdout, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	qemu := 0
	for lines := bufio.NewScanner(stdout); qemu == 0 && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "qemu %d", &qemu)
	}
	require.NotZero(t, qemu, "the machine has booted")
	require.NoError(t, syscall.Kill(qemu, 0))
	require.NoError(t, parent.Process.Kill())
	_ = parent.Wait()
	require.Eventually(t, func() bool { return gone(qemu) }, 5*time.Second, 10*time.Millisecond, "QEMU outlives its parent")
	left, err := os.ReadDir(files)
	require.NoError(t, err)
	require.Empty(t, left)
}

// gone tells whether a process has ended; it may wait as a zombie for a parent that does not care.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestOptions(t *testing.T) {
	for _, test := range []struct {
		name    string
		options Options
		want    string
	}{
		{"name with a blank", Options{Name: "a b"}, `machine "a b": not a host name`},
		{"index too small", Options{Network: NewNetwork()}, "machine node: index 0 on its network is not in 1 to 254"},
		{"index too great", Options{Network: NewNetwork(), Index: 255}, "machine node: index 255 on its network is not in 1 to 254"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := complete(test.options)
			require.EqualError(t, err, test.want)
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
