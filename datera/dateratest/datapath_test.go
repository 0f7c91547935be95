package dateratest_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/datera/dateratest/target"
)

// fakeTarget is a back end that only remembers.
type fakeTarget struct {
	mu      sync.Mutex
	targets map[string]target.Target
	fail    error
	opening error
	closed  bool
	applies func() // is called before a target is made
}

func (f *fakeTarget) Name() string  { return "fake" }
func (f *fakeTarget) FirstLUN() int { return 1 }

func (f *fakeTarget) Open(context.Context, string, string, []netip.AddrPort) error {
	f.targets = map[string]target.Target{}
	return f.opening
}

func (f *fakeTarget) Apply(_ context.Context, t target.Target) error {
	if f.applies != nil {
		f.applies()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail == nil {
		f.targets[t.IQN] = t
	}
	return f.fail
}

func (f *fakeTarget) Remove(_ context.Context, iqn string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail == nil {
		delete(f.targets, iqn)
	}
	return f.fail
}

func (f *fakeTarget) Sessions(context.Context) (map[string][]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sessions := map[string][]string{}
	for iqn, t := range f.targets {
		sessions[iqn] = t.Initiators // whoever may be logged in is
	}
	return sessions, f.fail
}

func (f *fakeTarget) Close(context.Context) error {
	f.closed = true
	return nil
}

func (f *fakeTarget) get(iqn string) (target.Target, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, ok := f.targets[iqn]
	return t, ok
}

func (f *fakeTarget) setFailure(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

func startWithTarget(t *testing.T, options ...dateratest.Option) (*dateratest.Server, *fakeTarget, *caller, string) {
	t.Helper()
	backend, dir := &fakeTarget{}, t.TempDir()
	array := dateratest.Start(t, append(options, dateratest.WithState(dir),
		dateratest.WithOptions(func(o *dateratest.Options) { o.Backend = backend }))...)
	return array, backend, connect(t, array), dir
}

func soon(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, 5*time.Second, 2*time.Millisecond, what)
}

func TestTargetFollowsTheState(t *testing.T) {
	array, backend, c, dir := startWithTarget(t)
	require.NoError(t, array.RegisterInitiator(iqn1, "node1"))
	made := c.ok("POST", "/app_instances", simple("pv-1", 1))
	iqn := at(t, made, "storage_instances", 0, "access", "iqn").(string)
	require.EqualValues(t, 1, at(t, made, "storage_instances", 0, "volumes", 0, "lun"))
	seen, _ := array.AppInstance("/root", "pv-1")
	file := filepath.Join(dir, "volumes", seen.VolumeUUID)
	got, _ := backend.get(iqn)
	require.Equal(t, target.Target{IQN: iqn, Portals: []target.Portal{{Address: netip.MustParseAddrPort("172.28.41.43:3260")},
		{Address: netip.MustParseAddrPort("172.29.41.56:3260")}}, LUNs: []target.LUN{{Serial: seen.VolumeUUID, File: file, Size: 1 << 30}}, Initiators: []string{}}, got)
	require.EqualValues(t, 0, c.ok("GET", vol, nil)["capacity_in_use"])
	require.NoError(t, os.WriteFile(file, []byte("content"), 0o600))
	require.EqualValues(t, 1, c.ok("GET", vol, nil)["capacity_in_use"], "rounded up")

	c.ok("PUT", si+"/acl_policy", js{"initiators": []js{{"path": "/initiators/" + iqn1}}})
	c.ok("PUT", si+"/auth", js{"type": "mchap", "target_user_name": "user", "target_pswd": "123456789012", "initiator_user_name": "array",
		"initiator_pswd": "1234567890123456"})
	c.ok("PUT", vol, js{"size": 2})
	require.NoError(t, array.SetFault(dateratest.Fault{Name: dateratest.PortalDown, Value: "172.29.41.56", For: "1h"}))
	got, _ = backend.get(iqn)
	require.Equal(t, []string{iqn1}, got.Initiators)
	require.Equal(t, target.Auth{User: "user", Password: "123456789012", MutualUser: "array", MutualPassword: "1234567890123456"}, got.Auth)
	require.EqualValues(t, 2<<30, got.LUNs[0].Size)
	require.Equal(t, []bool{false, true}, []bool{got.Portals[0].Down, got.Portals[1].Down})
	about, err := os.Stat(file)
	require.NoError(t, err)
	require.EqualValues(t, 2<<30, about.Size(), "the file grew first")
	require.Equal(t, []any{iqn1}, c.ok("GET", si, nil)["active_initiators"])
	c.fails(400, "InvalidRequestError", "PUT", "/app_instances/pv-1", js{"admin_state": "offline"})

	c.ok("PUT", "/app_instances/pv-1", js{"admin_state": "offline", "force": true})
	_, served := backend.get(iqn)
	require.False(t, served, "offline has no target")
	require.FileExists(t, file)
	c.ok("DELETE", "/app_instances/pv-1", nil)
	require.NoFileExists(t, file)
}

// stoppedClock goes on only when it is told to.
type stoppedClock struct{ passed atomic.Int64 }

func (c *stoppedClock) set(o *dateratest.Options) {
	o.Now = func() time.Time { return time.Unix(1000, 0).Add(time.Duration(c.passed.Load())) }
}

func (c *stoppedClock) advance() { c.passed.Add(int64(time.Second)) }

func TestTargetComesLate(t *testing.T) {
	var clock stoppedClock
	array, backend, c, _ := startWithTarget(t, dateratest.WithOpStateDelay(time.Millisecond), dateratest.WithOptions(clock.set))
	made := c.ok("POST", "/app_instances", simple("pv-1", 1))
	iqn := at(t, made, "storage_instances", 0, "access", "iqn").(string)
	_, served := backend.get(iqn)
	require.False(t, served)
	clock.advance()
	soon(t, "target", func() bool { _, served := backend.get(iqn); return served })
	c.ok("PUT", vol, js{"size": 2})
	got, _ := backend.get(iqn)
	require.EqualValues(t, 1<<30, got.LUNs[0].Size, "a resize takes its time")
	clock.advance()
	soon(t, "resize", func() bool { got, _ := backend.get(iqn); return got.LUNs[0].Size == 2<<30 })
	require.NoError(t, array.SetFault(dateratest.Fault{Name: dateratest.PortalDown, Value: "172.29.41.56", For: "1ms"}))
	got, _ = backend.get(iqn)
	require.True(t, got.Portals[1].Down)
	clock.advance()
	soon(t, "portal up again", func() bool { got, _ := backend.get(iqn); return !got.Portals[1].Down })
}

func TestTargetFails(t *testing.T) {
	_, backend, c, _ := startWithTarget(t)
	backend.setFailure(errors.New("no such portal"))
	made := c.ok("POST", "/app_instances", simple("pv-1", 1))
	iqn := at(t, made, "storage_instances", 0, "access", "iqn").(string)
	failed := c.ok("GET", si, nil)
	require.Equal(t, "failed", failed["op_state"])
	require.Equal(t, "critical", failed["health"])
	require.Equal(t, []any{"no such portal"}, failed["causes"])
	backend.setFailure(nil)
	soon(t, "it is tried again", func() bool { return c.ok("GET", si, nil)["op_state"] == "available" })
	backend.setFailure(errors.New("busy"))
	c.ok("PUT", "/app_instances/pv-1", js{"admin_state": "offline", "force": true})
	backend.setFailure(nil)
	soon(t, "removed at last", func() bool { _, served := backend.get(iqn); return !served })
}

// A storage instance that becomes available by itself is not said to be so before its target is there.
func TestTargetIsBeingMade(t *testing.T) {
	var clock stoppedClock
	_, backend, c, _ := startWithTarget(t, dateratest.WithOpStateDelay(time.Millisecond), dateratest.WithOptions(clock.set))
	begun, goOn := make(chan struct{}), make(chan struct{})
	backend.applies = sync.OnceFunc(func() { close(begun); <-goOn })
	c.ok("POST", "/app_instances", simple("pv-1", 1))
	clock.advance() // only now: else the answer itself would wait for the target
	<-begun
	require.Equal(t, "unavailable", c.ok("GET", si, nil)["op_state"])
	close(goOn)
	soon(t, "target", func() bool { return c.ok("GET", si, nil)["op_state"] == "available" })
}

func TestBackendDoesNotOpen(t *testing.T) {
	backend := &fakeTarget{opening: errors.New("no modules")}
	_, err := dateratest.New(dateratest.Options{Backend: backend, StateDir: t.TempDir()})
	require.ErrorContains(t, err, "no modules")
	require.True(t, backend.closed)
}

func TestCopies(t *testing.T) {
	array, backend, c, dir := startWithTarget(t)
	c.ok("POST", "/app_instances", simple("pv-1", 1))
	source, _ := array.AppInstance("/root", "pv-1")
	file := func(ai string) string {
		seen, _ := array.AppInstance("/root", ai)
		return filepath.Join(dir, "volumes", seen.VolumeUUID)
	}
	content := bytes.Repeat([]byte("first"), 1<<19)
	write(t, file("pv-1"), 700<<20, content)
	write(t, file("pv-1"), 1<<30-7, []byte("the end"))
	stamp := c.ok("POST", vol+"/snapshots", js{})["utc_ts"].(string)
	available := func(path string) func() bool {
		return func() bool { return c.ok("GET", path, nil)["op_state"] == "available" }
	}
	soon(t, "snapshot", available(vol+"/snapshots/"+stamp))
	write(t, file("pv-1"), 700<<20, bytes.Repeat([]byte("other"), 1<<19))

	c.ok("POST", "/app_instances", js{"name": "pv-2", "clone_snapshot_src": js{"path": vol + "/snapshots/" + stamp}})
	soon(t, "clone", available("/app_instances/pv-2/storage_instances/storage-1"))
	require.True(t, bytes.Equal(content, readAt(t, file("pv-2"), 700<<20, len(content))))
	require.Equal(t, "the end", string(readAt(t, file("pv-2"), 1<<30-7, 7)))
	require.EqualValues(t, 1, c.ok("GET", "/app_instances/pv-2/storage_instances/storage-1/volumes/volume-1", nil)["capacity_in_use"], "sparse")

	c.ok("PUT", "/app_instances/pv-1", js{"admin_state": "offline"})
	c.ok("PUT", "/app_instances/pv-1", js{"restore_point": stamp})
	c.ok("PUT", "/app_instances/pv-1", js{"admin_state": "online"})
	soon(t, "restored", available(si))
	require.True(t, bytes.Equal(content, readAt(t, file("pv-1"), 700<<20, len(content))))
	_, served := backend.get(source.IQN)
	require.True(t, served)

	c.ok("DELETE", vol+"/snapshots/"+stamp, nil)
	left, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestCopyGoesOnAfterARestart(t *testing.T) {
	dir := t.TempDir()
	array, err := dateratest.New(dateratest.Options{StateDir: dir, Backend: &fakeTarget{}})
	require.NoError(t, err)
	made, err := array.CreateAppInstance("pv-1", 1)
	require.NoError(t, err)
	write(t, filepath.Join(dir, "volumes", made.VolumeUUID), 5, []byte("content"))
	require.NoError(t, array.Close(t.Context()))

	state := filepath.Join(dir, "state.json")
	text, err := os.ReadFile(state)
	require.NoError(t, err)
	snapshot := []byte(`"snapshots":[{"id":"half","uuid":"u","utc_ts":"1.5","size":1,"copy_from":"volumes/` + made.VolumeUUID + `"},` +
		`{"id":"odd","uuid":"v","utc_ts":"1.6","size":1,"copy_from":"volumes"}],"snapshot_policies":null}]`)
	text = bytes.Replace(text, []byte(`"snapshots":[],"snapshot_policies":null}]`), snapshot, 1)
	require.NoError(t, os.WriteFile(state, text, 0o600))
	for _, name := range []string{"volumes/orphan", "snapshots/half.copy", "snapshots/orphan.copy"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("old"), 0o600))
	}

	array = dateratest.Start(t, dateratest.WithState(dir), dateratest.WithOptions(func(o *dateratest.Options) { o.Backend = &fakeTarget{} }))
	c := connect(t, array)
	soon(t, "copy", func() bool { return c.ok("GET", vol+"/snapshots/1.5", nil)["op_state"] == "available" })
	soon(t, "failure", func() bool { return c.ok("GET", vol+"/snapshots/1.6", nil)["op_state"] == "failed" })
	require.Equal(t, "content", string(readAt(t, filepath.Join(dir, "snapshots/half"), 5, 7)))
	found, err := filepath.Glob(dir + "/*/*")
	require.NoError(t, err)
	slices.Sort(found)
	require.Equal(t, []string{dir + "/snapshots/half", dir + "/volumes/" + made.VolumeUUID}, found, "orphans are gone")
}

func write(t *testing.T, file string, offset int64, content []byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteAt(content, offset)
	require.NoError(t, err)
}

func readAt(t *testing.T, file string, offset int64, length int) []byte {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	content := make([]byte, length)
	_, err = f.ReadAt(content, offset)
	require.NoError(t, err)
	return content
}
