package driver

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// left lists the leftovers without removing any.
func (d *desk) left(t *testing.T) []Leftover {
	t.Helper()
	found, err := d.Leftovers(t.Context(), DefaultAge)
	require.NoError(t, err)
	require.Empty(t, d.takeDone(), "looking for leftovers changed something")
	require.Empty(t, d.removed)
	return found
}

// reaped removes the leftovers and wants nothing to be left of them.
func (d *desk) reaped(t *testing.T) []Leftover {
	t.Helper()
	found, err := d.Reap(t.Context(), DefaultAge)
	require.NoError(t, err)
	for _, l := range found {
		require.Empty(t, l.Error, l.What)
	}
	require.Zero(t, Left(found))
	return found
}

// one wants a single leftover of a kind.
func one(t *testing.T, found []Leftover, kind string) Leftover {
	t.Helper()
	require.Len(t, found, 1)
	require.Equal(t, kind, found[0].Kind)
	return found[0]
}

func TestReapTakesAVolumeWhosePodWasDeletedBeforeItWasMounted(t *testing.T) {
	d := newDesk(t)
	d.attached(d.journalled(t, "pv-1", iqnOne, 12*time.Minute), "/dev/sdb")
	l := one(t, d.left(t), kindVolume)
	require.Equal(t, "pv-1 (kube-pv-1, /dev/sdb)", l.What)
	require.Empty(t, l.Keep)
	require.Contains(t, l.Why, "it is not mounted, and nobody has asked for it for 12m")
	d.reaped(t)
	require.Equal(t, []string{"logout " + serial}, d.takeDone())
	require.Empty(t, d.disks)
	require.NoFileExists(t, d.journal().inUse("pv-1"))
	require.Empty(t, d.journal().unfinished())
	require.Empty(t, d.left(t))
}

func TestReapLeavesAlone(t *testing.T) {
	tests := map[string]struct {
		change func(t *testing.T, d *desk)
		keep   string // "" for what is not even listed
	}{
		"a mounted volume":                    {func(_ *testing.T, d *desk) { d.mounted("pv-1", "/dev/sdb") }, ""},
		"one that somebody mounted elsewhere": {func(_ *testing.T, d *desk) { d.mounts = []mount.Mount{{Device: "/dev/sdb", Path: "/mnt"}} }, ""},
		"one that was asked for just now":     {func(t *testing.T, d *desk) { age(t, d.journal().inUse("pv-1"), 4*time.Minute) }, ""},
		"one with an open disk":               {func(_ *testing.T, d *desk) { d.users = []string{"process 7 (dd): has /dev/sdb open"} }, "process 7 (dd)"},
		"one of whose users nothing is known": {func(_ *testing.T, d *desk) { d.fails["users"] = errors.New("/proc is not readable") }, "/proc is not readable"},
		"one under another device": {func(_ *testing.T, d *desk) {
			d.layers = []iscsi.Layer{{Path: "/dev/dm-d", Number: "253:0", Multipath: true}, {Path: "/dev/dm-e", Number: "253:1"}}
		}, "/dev/dm-e stands on /dev/sdb"},
		"one whose map is mounted": {func(_ *testing.T, d *desk) {
			d.layers = []iscsi.Layer{{Path: "/dev/dm-d", Number: numberOfDisk("/dev/dm-d"), Multipath: true}}
			d.mounts = []mount.Mount{{Device: "/dev/dm-d", Path: "/mnt"}}
		}, ""},
		"one that is leaving and mounted": {func(t *testing.T, d *desk) {
			d.mounted("pv-1", "/dev/sdb")
			require.NoError(t, d.journal().leave("pv-1"))
		}, "it is mounted on"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.attached(d.journalled(t, "pv-1", iqnOne, time.Hour), "/dev/sdb")
			test.change(t, d)
			found := d.left(t)
			if test.keep == "" {
				require.Empty(t, found)
			} else {
				require.Contains(t, one(t, found, kindVolume).Keep, test.keep)
			}
			d.reaped(t)
			require.Empty(t, d.takeDone(), "something was done to a volume that may be in use")
			require.NotEmpty(t, d.disks)
			_, known := d.journal().read("pv-1")
			require.True(t, known)
		})
	}
}

// Between the list and the removal the world goes on. What is decided is decided under the volume's lock.
func TestReapLooksAgainUnderTheLock(t *testing.T) {
	tests := map[string]struct {
		meanwhile func(t *testing.T, d *desk)
		says      string
	}{
		"another call works on it": {func(t *testing.T, d *desk) {
			unlock, err := d.lockVolume(t.Context(), "pv-1")
			require.NoError(t, err)
			t.Cleanup(unlock)
		}, "another call works on it right now"},
		"it is asked for again": {func(t *testing.T, d *desk) {
			require.NoError(t, d.journal().write("pv-1", mustRead(t, d, "pv-1")))
		}, "it is wanted again"},
		"it is mounted":   {func(_ *testing.T, d *desk) { d.mounted("pv-1", "/dev/sdb") }, "it is wanted again"},
		"it is opened":    {func(_ *testing.T, d *desk) { d.users = []string{"process 7 (dd)"} }, "process 7 (dd)"},
		"it is gone":      {func(t *testing.T, d *desk) { require.NoError(t, d.journal().forget("pv-1")) }, "no such file"},
		"sysfs fails":     {func(_ *testing.T, d *desk) { d.fails["sessions"] = errInjected }, "injected"},
		"a fault follows": {func(_ *testing.T, d *desk) { d.Mounts = nil }, "fault in the driver itself"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.attached(d.journalled(t, "pv-1", iqnOne, time.Hour), "/dev/sdb")
			l := one(t, d.left(t), kindVolume)
			test.meanwhile(t, d)
			err := d.guarded(t.Context(), func() error { return l.remove(t.Context()) })
			require.ErrorContains(t, err, test.says)
			require.NotEmpty(t, d.disks)
			require.Empty(t, d.journal().unfinished(), "every later call would try to remove it")
		})
	}
}

func TestReapPutsBackWhatTurnsOutToBeInUse(t *testing.T) {
	d := newDesk(t)
	d.attached(d.journalled(t, "pv-1", iqnOne, time.Hour), "/dev/sdb")
	d.fails["released"] = mount.ErrInUse
	found, err := d.Reap(t.Context(), DefaultAge)
	require.NoError(t, err)
	require.Contains(t, one(t, found, kindVolume).Error, "it is in use")
	require.Equal(t, 1, Left(found))
	require.Empty(t, d.journal().unfinished(), "every later call would try to remove it")
	require.Equal(t, []string{"pv-1"}, d.journal().used())
}

func TestReapLeavesTheRestToTheNextCall(t *testing.T) {
	d := newDesk(t)
	d.attached(d.journalled(t, "pv-1", iqnOne, time.Hour), "/dev/sdb")
	d.fails["logout"] = errInjected
	found, err := d.Reap(t.Context(), DefaultAge)
	require.NoError(t, err)
	require.Contains(t, one(t, found, kindVolume).Error, "injected")
	require.Equal(t, []string{"pv-1"}, d.journal().unfinished())
	delete(d.fails, "logout")
	require.Contains(t, one(t, d.reaped(t), kindVolume).Why, "its removal began and did not end")
	require.Empty(t, d.disks)
}

func TestReapForgetsWhatARebootTookAway(t *testing.T) {
	d := newDesk(t)
	d.journalled(t, "pv-1", iqnOne, time.Hour)
	require.Contains(t, one(t, d.reaped(t), kindVolume).Why, "it has neither session nor mount")
	require.Empty(t, d.journal().used())
}

// A claim that was made anew has another name and the same disk.
func TestReapDoesNotTakeTheDiskOfAnotherVolume(t *testing.T) {
	d := newDesk(t)
	d.attached(d.journalled(t, "pv-old", iqnOne, time.Hour), "/dev/sdb")
	d.journalled(t, "pv-new", iqnOne, time.Minute)
	require.Equal(t, "pv-old (kube-pv-old, /dev/sdb)", one(t, d.reaped(t), kindVolume).What)
	require.NotEmpty(t, d.disks, "the disk belongs to pv-new")
	require.Equal(t, []string{"pv-new"}, d.journal().used())
}

func TestReapInModeNoneGivesTheVolumeBack(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a", attachMode(AttachNone))
	n.ask(t, "mount", podPath, optionsWith(nil))
	n.mounts = n.mounts[:1] // as if it had been killed between mount and bind
	key := n.journal().used()[0]
	s := &sight{host: n.host, t: t, diskState: "running", trouble: map[string]error{}}
	o := &Operator{Driver: n.Driver, Node: s, Mounts: s, Host: Host{ProcRoot: t.TempDir()}}
	found, err := o.Leftovers(t.Context(), DefaultAge)
	require.NoError(t, err)
	require.Empty(t, found, "the mount may have been a moment ago")

	age(t, n.journal().inUse(key), time.Hour)
	n.takeDone()
	found, err = o.Reap(t.Context(), DefaultAge)
	require.NoError(t, err)
	l := one(t, found, kindVolume)
	require.True(t, l.Removed, l.Error)
	require.Contains(t, l.Why, "no pod has got it")
	require.Equal(t, []string{"umount", "logout"}, words(n.takeDone()))
	require.False(t, *n.ask(t, "isattached", optionsWith(nil), "node-a").Attached, "the grant was not given back")

	n.ask(t, "mount", podPath, optionsWith(nil))
	age(t, n.journal().inUse(key), time.Hour)
	found, err = o.Reap(t.Context(), DefaultAge)
	require.NoError(t, err)
	require.Empty(t, found, "a pod has it")
}

func TestReapNeverTouchesASessionThatTheJournalDoesNotKnow(t *testing.T) {
	d := newDesk(t)
	d.attached(iscsi.Target{IQN: iqnOne, Serial: serial, Portals: []string{"10.0.0.1:3260"}}, "/dev/sdb")
	d.sessions = []iscsi.Session{{IQN: "iqn.2026-11.com.example:other", State: "LOGGED_IN", Disks: []iscsi.Disk{{Path: "/dev/sdx", Vendor: diskVendor}}}}
	l := one(t, d.left(t), kindSession)
	require.Contains(t, l.What, iqnOne)
	require.Contains(t, l.Keep, "nothing proves that it is this driver's")
	d.reaped(t)
	require.Empty(t, d.takeDone())
}

func TestReapOfNodeRecords(t *testing.T) {
	old := time.Now().Add(-time.Hour)
	own := iscsi.Record{IQN: iqnOne, Portal: "10.0.0.1:3260", Path: "/etc/iscsi/nodes/x", Startup: "manual", Own: true, Changed: old}
	with := func(change func(*iscsi.Record)) iscsi.Record {
		r := own
		change(&r)
		return r
	}
	tests := map[string]struct {
		records []iscsi.Record
		change  func(t *testing.T, d *desk)
		listed  bool
		keep    string
	}{
		"its own":                    {[]iscsi.Record{own, with(func(r *iscsi.Record) { r.Portal = "10.0.1.1:3260" })}, nil, true, ""},
		"an empty one":               {[]iscsi.Record{with(func(r *iscsi.Record) { r.Own, r.Empty = false, true })}, nil, true, ""},
		"somebody else's":            {[]iscsi.Record{with(func(r *iscsi.Record) { r.Own = false })}, nil, true, "was not written by this driver"},
		"somebody else's beside own": {[]iscsi.Record{own, with(func(r *iscsi.Record) { r.Own = false })}, nil, true, "was not written by this driver"},
		"a new one":                  {[]iscsi.Record{own, with(func(r *iscsi.Record) { r.Changed = time.Now() })}, nil, true, "it was written"},
		"of another target":          {[]iscsi.Record{with(func(r *iscsi.Record) { r.IQN = "iqn.2026-11.com.example:other" })}, nil, false, ""},
		"with a session": {[]iscsi.Record{own}, func(_ *testing.T, d *desk) {
			d.attached(iscsi.Target{IQN: iqnOne, Serial: serial, Portals: []string{"10.0.0.1:3260"}}, "/dev/sdb")
			d.mounted("pv-1", "/dev/sdb")
		}, false, ""},
		"of a volume of the journal": {[]iscsi.Record{own}, func(t *testing.T, d *desk) { d.journalled(t, "pv-1", iqnOne, time.Minute) }, false, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.records = test.records
			if test.change != nil {
				test.change(t, d)
			}
			found := d.left(t)
			if !test.listed {
				require.Empty(t, found)
			} else if l := one(t, found, kindRecord); test.keep != "" {
				require.Contains(t, l.Keep, test.keep)
			}
			d.reaped(t)
			if test.listed && test.keep == "" {
				require.Equal(t, []string{"forget " + iqnOne}, d.takeDone())
			} else {
				require.Empty(t, d.takeDone())
			}
		})
	}
}

func TestReapOfTheRecordLock(t *testing.T) {
	d := newDesk(t)
	d.attached(d.journalled(t, "pv-1", iqnOne, time.Hour), "/dev/sdb")
	d.stale = true
	require.Equal(t, lockPath, d.left(t)[0].What)
	d.reaped(t)
	require.Equal(t, []string{"break " + lockPath, "logout " + serial}, d.takeDone(), "the lock holds the logout up")
}

func TestReapOfDirectories(t *testing.T) {
	d := newDesk(t)
	make := func(path string, ago time.Duration) string {
		require.NoError(t, os.MkdirAll(path, 0o755))
		age(t, path, ago)
		return path
	}
	d.running(t, "pv-1", iqnOne, "/dev/sdb")
	for _, mounted := range d.mounts {
		make(mounted.Path, time.Hour)
	}
	empty := make(d.podPath("pod-2", "pv-2"), time.Hour)
	global := make(d.kubelet+"/"+globalMounts+"/pv-2", time.Hour)
	make(d.podPath("pod-3", "pv-3"), time.Minute)
	full := d.podPath("pod-4", "pv-4")
	d.write(t, full+"/data", "precious")
	age(t, full, time.Hour)
	make(strings.Replace(d.podPath("pod-5", "pv-5"), FolderName, "kubernetes.io~csi", 1), time.Hour)
	make(d.podPath("pod-6", "NO VOLUME"), time.Hour)

	keep := map[string]string{}
	for _, l := range d.left(t) {
		require.Equal(t, kindDirectory, l.Kind)
		keep[l.What] = l.Keep
	}
	require.Equal(t, map[string]string{empty: "", global: "", full: "it has content (data) on the node's own disk"}, keep)
	d.reaped(t)
	require.ElementsMatch(t, []string{empty, global}, d.removed)
}

func TestReapOfFiles(t *testing.T) {
	d := newDesk(t)
	file := func(path, content string, ago time.Duration) string {
		d.write(t, path, content)
		age(t, path, ago)
		return path
	}
	journal, run := filepath.Join(d.Config.StateDir, "volumes"), d.Config.RunDir
	gone := []string{
		file(journal+"/.pv-1.json.123456", "{", time.Hour),
		file(journal+"/pv-2.json", "{", time.Hour), // cannot be read: it counts as lost anyway
		file(filepath.Join(d.Config.StateDir, "leaving", "pv-3.json"), "", time.Hour),
	}
	kept := []string{
		file(journal+"/.pv-4.json.123456", "{", time.Minute),
		file(journal+"/README", "", time.Hour),
		file(run+"/hints/pv-5.json", "{}", time.Hour),
		file(run+"/lock/volume-pv-1", "", time.Hour),
		file(run+"/session/x.session", "", time.Hour),
	}
	var listed []string
	for _, l := range d.left(t) {
		require.Equal(t, kindFile, l.Kind)
		require.Empty(t, l.Keep)
		listed = append(listed, l.What)
	}
	require.ElementsMatch(t, gone, listed)
	d.reaped(t)
	for _, path := range gone {
		require.NoFileExists(t, path)
	}
	for _, path := range kept {
		require.FileExists(t, path)
	}
}

func TestReapKeepsAFileThatWasWrittenAnew(t *testing.T) {
	d := newDesk(t)
	path := filepath.Join(d.Config.StateDir, "volumes", ".pv-1.json.123456")
	d.write(t, path, "{")
	age(t, path, time.Hour)
	l := one(t, d.left(t), kindFile)
	require.NoError(t, writeDurably(path, []byte(`{"Node":"x"}`)))
	require.ErrorContains(t, l.remove(t.Context()), "has been written anew")
	require.FileExists(t, path)
}

func TestReapRefusesAnAgeWithinKubeletsPause(t *testing.T) {
	d := newDesk(t)
	_, err := d.Leftovers(t.Context(), 3*time.Minute)
	require.ErrorContains(t, err, "4m0s or more")
	_, err = d.Reap(t.Context(), 0)
	require.ErrorContains(t, err, "4m0s or more")
	require.Greater(t, retryTime, 2*time.Minute+2*time.Second+CallDeadline, "kubelet may still be between two tries")
}

func TestReapFails(t *testing.T) {
	for _, what := range []string{"sessions", "records", "mountinfo"} {
		t.Run(what, func(t *testing.T) {
			d := newDesk(t)
			d.fails[what] = errInjected
			_, err := d.Reap(t.Context(), DefaultAge)
			require.ErrorIs(t, err, errInjected)
		})
	}
}

func TestReapEndsWithItsContext(t *testing.T) {
	d := newDesk(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := d.Reap(ctx, DefaultAge)
	require.ErrorIs(t, err, context.Canceled)
}

// kubelet asks for the same again while a pod wants it: that must count.
func TestWaitForAttachTellsThatAVolumeIsWanted(t *testing.T) {
	n := newNode(t, array(t), "node-a").registered(t)
	device := n.ask(t, "attach", optionsWith(nil), "node-a").Device
	n.ask(t, "waitforattach", device, optionsWith(nil))
	path := n.journal().inUse("pv-datera-0")
	age(t, path, time.Hour)
	n.ask(t, "waitforattach", device, optionsWith(nil))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), info.ModTime(), time.Minute)
}

func TestLeftoversForPeople(t *testing.T) {
	var text bytes.Buffer
	require.NoError(t, WriteLeftovers(&text, []Leftover{
		{Kind: kindVolume, What: "pv-1 (kube-pv-1, /dev/sdb)", Why: "it is not mounted, and nobody has asked for it for 12m0s"},
		{Kind: kindVolume, What: "pv-2 (kube-pv-2)", Why: "its removal began and did not end", Removed: true},
		{Kind: kindDirectory, What: "/var/lib/kubelet/pods/u/volumes/datera~iscsi/pv-3", Why: "nothing is mounted there", Keep: "it has content (data) on the node's own disk"},
		{Kind: kindRecord, What: iqnOne, Why: "it has no session, and the journal does not know it", Error: "iscsiadm exit 6:\nlocked"},
	}))
	goldenText(t, "reap.txt", text.String(), "/no/such/folder")
	text.Reset()
	require.NoError(t, WriteLeftovers(&text, nil))
	require.Equal(t, "nothing is left behind\n", text.String())
}
