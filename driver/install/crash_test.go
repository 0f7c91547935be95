package install

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
	"datera-flexvolume/driver"
)

// killed is the death of the process: nothing of it runs on.
type killed struct{}

// mortal makes changes until its time has come. Then it dies: before the change, or while it writes a file.
type mortal struct {
	realChanges
	left   int  // changes until it dies
	within bool // it dies in the middle of one that writes
	done   []string
	look   func() // looks at the folder after every change, as kubelet may
}

func (m *mortal) change(what string, do func() error) error {
	if m.left == 0 {
		panic(killed{})
	}
	m.left--
	m.done = append(m.done, what)
	err := do()
	m.look()
	return err
}

func (m *mortal) MakeDir(path string) error {
	return m.change("mkdir", func() error { return m.realChanges.MakeDir(path) })
}

func (m *mortal) Stage(path string, content io.Reader, mode fs.FileMode) (staged string, err error) {
	if m.left == 0 && m.within {
		_, _ = m.realChanges.Stage(path, io.LimitReader(content, 5), 0o600)
		m.look()
		panic(killed{})
	}
	err = m.change("stage", func() (err error) {
		staged, err = m.realChanges.Stage(path, content, mode)
		return err
	})
	return staged, err
}

func (m *mortal) Rename(from, to string) error {
	return m.change("rename "+to[strings.LastIndex(to, "/")+1:], func() error { return m.realChanges.Rename(from, to) })
}

func (m *mortal) Link(from, to string) error {
	return m.change("link", func() error { return m.realChanges.Link(from, to) })
}

func (m *mortal) Remove(path string) error {
	return m.change("remove", func() error { return m.realChanges.Remove(path) })
}

// mortalArray is an array that the same process changes.
type mortalArray struct {
	Array
	*mortal
}

func (m *mortal) openArray(open func(driver.Config) (Array, error)) func(driver.Config) (Array, error) {
	return func(config driver.Config) (Array, error) {
		array, err := open(config)
		return mortalArray{array, m}, err
	}
}

func (a mortalArray) RegisterInitiator(ctx context.Context, iqn, name string) (initiator *datera.Initiator, err error) {
	err = a.change("register", func() (err error) {
		initiator, err = a.Array.RegisterInitiator(ctx, iqn, name)
		return err
	})
	return initiator, err
}

func (a mortalArray) DeleteInitiator(ctx context.Context, iqn string) error {
	return a.change("forget", func() error { return a.Array.DeleteInitiator(ctx, iqn) })
}

// dies runs work and tells whether it was killed.
func dies(work func()) (died bool) {
	defer func() {
		if cause := recover(); cause != nil {
			died = cause.(killed) == killed{} // any other panic goes on
		}
	}()
	work()
	return false
}

// Whenever the installer is killed, kubelet finds a whole driver or none, and the next installer ends the work.
func TestKilledAtEveryChange(t *testing.T) {
	t.Parallel()
	scenes := map[string]struct {
		before, after func(*host)
		told          bool // kubelet must have been asked to look again once the configuration was there
	}{
		"first installation": {func(*host) {}, func(*host) {}, true},
		"another version": {(*host).install, func(h *host) {
			h.write("executable", "version 2")
			h.configure("log: {level: debug}\n")
		}, true},
		"attach mode none":       {(*host).install, func(h *host) { h.Attach = driver.AttachNone }, true},
		"another initiator name": {(*host).install, func(h *host) { h.setInitiator(otherIQN) }, false},
		"another password":       {(*host).install, func(h *host) { h.configure("log: {level: debug}\n") }, false},
	}
	for name, scene := range scenes {
		for _, within := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, within %t", name, within), func(t *testing.T) {
				t.Parallel()
				for left, finished := 0, false; !finished; left++ {
					finished = !killAt(t, left, within, scene.before, scene.after, scene.told)
					require.Less(t, left, 30, "it never comes to its end")
				}
			})
		}
	}
}

// killAt kills an installation before the change of this number, and runs it again.
func killAt(t *testing.T, left int, within bool, before, after func(*host), told bool) (died bool) {
	h := newHost(t)
	before(h)
	first, second, open := h.another(), h.another(), h.OpenArray
	h.Installer = first
	after(h)
	*second = *first
	config := ""
	if content := h.read(".datera-config"); content != "" {
		config = content
	}
	doomed := &mortal{left: left, within: within, look: func() {
		require.Contains(t, []string{"", "version 1", "version 2"}, h.read("iscsi"), "a half driver is visible")
		if now := h.read(".datera-config"); now != config {
			h.config() // must be whole
		}
	}}
	first.changes, first.OpenArray = doomed, doomed.openArray(open)
	died = dies(func() { first.installOnce(t.Context()) })

	again := &mortal{left: 1000, look: doomed.look}
	second.changes, second.OpenArray = again, again.openArray(open)
	h.Installer = second
	h.install()
	want, err := os.ReadFile(h.Executable)
	require.NoError(t, err)
	require.Equal(t, string(want), h.read("iscsi"))
	require.Equal(t, driverFiles, h.files(), "something was left behind by an installer that was killed after %d changes", left)
	initiator, err := h.Initiator.Name()
	require.NoError(t, err)
	require.Equal(t, map[string]string{initiator: name}, h.array.Initiators("/root"))
	require.NoError(t, h.Check(t.Context()))

	done := append(doomed.done, again.done...)
	if told {
		require.Greater(t, lastIndex(done, "rename iscsi"), lastIndex(done, "rename .datera-config"),
			"killed after %d changes: kubelet asked the driver before the configuration was there: %v", left, done)
	} else {
		require.NotContains(t, done, "rename iscsi", "kubelet was asked to look again for nothing")
	}
	return died
}

func lastIndex(list []string, word string) int {
	for i, other := range slices.Backward(list) {
		if other == word {
			return i
		}
	}
	return -1
}

func TestKilledBeforeTheRegistration(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.OpenArray = func(driver.Config) (Array, error) { panic(killed{}) }
	require.True(t, dies(func() { h.installOnce(t.Context()) }))
	require.Equal(t, []string{".datera-config", "iscsi"}, h.files(), "nothing of the array")
	before := h.identity("iscsi")
	h.Installer = h.another()
	h.install()
	require.Equal(t, before, h.identity("iscsi"))
	require.Equal(t, map[string]string{iqn: name}, h.array.Initiators("/root"))
}

// Even when the initiator gets one more name after the death, the registration is known to be this host's.
func TestKilledRightAfterTheRegistration(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	doomed := &mortal{left: 1000}
	doomed.look = func() {
		if slices.Contains(doomed.done, "register") {
			panic(killed{})
		}
	}
	h.changes, h.OpenArray = doomed, doomed.openArray(h.OpenArray)
	require.True(t, dies(func() { h.installOnce(t.Context()) }))
	require.Equal(t, map[string]string{iqn: name}, h.array.Initiators("/root"))
	h.setInitiator(otherIQN)
	h.Installer = h.another()
	h.install()
	require.Equal(t, map[string]string{otherIQN: name}, h.array.Initiators("/root"))
}

// Uninstall, too, can be killed at any moment: the next one ends the work, or an installation undoes it.
func TestUninstallKilledAtEveryChange(t *testing.T) {
	t.Parallel()
	again := map[string]struct {
		run   func(*host) error
		files []string
		known int
	}{
		"uninstall": {func(h *host) error { return h.Uninstall(t.Context(), 0) }, nil, 0},
		"uninstall without the source": {func(h *host) error {
			require.NoError(t, os.Remove(h.source))
			return h.Uninstall(t.Context(), 0)
		}, nil, 0},
		"install": {func(h *host) error { return h.Install(t.Context(), 0) }, driverFiles, 1},
		"uninstall while a volume comes": {func(h *host) error {
			h.volumes = []driver.VolumeStatus{{PV: "pv-1"}}
			defer func() { h.volumes = nil }()
			if h.anythingInstalled() && h.read(".datera-config") != "" {
				require.ErrorContains(t, h.Uninstall(t.Context(), 0), "pv-1")
			}
			return h.Install(t.Context(), 0)
		}, driverFiles, 1},
	}
	for name, then := range again {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			died := true
			for left := 0; died; left++ {
				h := newHost(t)
				h.install()
				doomed := h.another()
				doomed.changes = &mortal{left: left, look: func() {
					require.Contains(t, []string{"", "version 1"}, h.read("iscsi"))
				}}
				died = dies(func() { _ = doomed.Uninstall(t.Context(), 0) })
				require.NoError(t, then.run(h), "after %d changes", left)
				require.Equal(t, then.files, h.files(), "after %d changes", left)
				require.Len(t, h.array.Initiators("/root"), then.known, "after %d changes", left)
				require.Less(t, left, 30, "it never comes to its end")
			}
		})
	}
}

func TestTwoInstallersAtOnce(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ended := make(chan error)
	for range 4 {
		i := h.another()
		i.changes = &mortal{left: 1000, look: func() { requireWhole(t, h) }}
		go func() { ended <- i.Install(context.WithoutCancel(t.Context()), 0) }()
	}
	for range 4 {
		require.NoError(t, <-ended)
	}
	h.install()
	require.Equal(t, driverFiles, h.files())
}

func requireWhole(t *testing.T, h *host) {
	if content := h.read("iscsi"); content != "" && content != "version 1" {
		t.Errorf("a half driver is visible: %q", content)
	}
}
