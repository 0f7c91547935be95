package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
	"datera-flexvolume/testdata/lab"
	"datera-flexvolume/testdata/vm"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares what a verb prints with a file in testdata; what differs from run to run, the digits of IQNs and which
// portal's disk came first, is replaced.
func golden(t *testing.T, name, text string) {
	t.Helper()
	text = regexp.MustCompile(`:sn:[0-9a-f]{16}`).ReplaceAllString(text, ":sn:0123456789abcdef")
	text = regexp.MustCompile(`/dev/sd[a-z]`).ReplaceAllString(text, "/dev/sda")
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), text)
}

// says runs a verb for people and wants an exit status of it.
func says(t *testing.T, node *lab.Machine, exit int, args ...string) string {
	t.Helper()
	result, err := node.Run(t.Context(), append([]string{lab.PluginDir + "/iscsi"}, args...)...)
	require.NoError(t, err)
	require.Equal(t, exit, result.Exit, "iscsi %s: %s%s", strings.Join(args, " "), result.Stdout, result.Stderr)
	return string(result.Stdout)
}

// health is what status says of a volume.
func health(t *testing.T, node *lab.Machine, volume lab.Volume) []string {
	t.Helper()
	var volumes []driver.VolumeStatus
	require.NoError(t, json.Unmarshal([]byte(says(t, node, 0, "status", "-o", "json")), &volumes))
	for _, v := range volumes {
		if v.PV == volume.Name {
			return v.Health
		}
	}
	t.Fatalf("status does not list volume %s: %v", volume.Name, volumes)
	return nil
}

// awaitSessions waits until so many sessions are up.
func awaitSessions(t *testing.T, node *lab.Machine, up string) {
	t.Helper()
	shell(t, node, `for i in {1..400}; do [ "$(grep -l LOGGED_IN /sys/class/iscsi_session/session*/state | wc -l)" = `+up+` ] && exit 0; sleep 0.1; done; exit 1`)
}

// tidy removes empty directories, as kubelet does after each call.
func tidy(t *testing.T, node *lab.Machine) {
	t.Helper()
	shell(t, node, "[ ! -d /var/lib/kubelet ] || find /var/lib/kubelet -depth -type d -exec rmdir {} \\; 2>/dev/null || :")
}

func TestStatus(t *testing.T) {
	volume := newVolume(t)
	stage(t, nodeA, volume)
	call(t, nodeA, "mount", volume.PodPath(podUID), volume.Request())
	golden(t, "status.txt", says(t, nodeA, 0, "status"))
	nodeA.Unplug(1)
	t.Cleanup(func() { nodeA.Plug(1) })
	awaitSessions(t, nodeA, "1")
	golden(t, "status-portal-down.txt", says(t, nodeA, 0, "status"))
	nodeA.Plug(1)
	awaitSessions(t, nodeA, "2")
	require.Equal(t, []string{"ok"}, health(t, nodeA, volume))
	call(t, nodeA, "unmount", volume.PodPath(podUID))
	require.Equal(t, "no volume on this node\n", says(t, nodeB, 0, "status"))

	shell(t, nodeA, "rm -r /var/lib/datera-iscsi") // the journal is a hint that may be lost
	require.Equal(t, []string{"not in this driver's journal"}, health(t, nodeA, volume))
	unstage(t, nodeA, volume)
}

// What the kernel does to a file system that met errors, and says of it.
func TestStatusOfErrors(t *testing.T) {
	tests := map[string]struct{ filesystem, hurt, health string }{
		"xfs shut down": {"xfs", "xfs_io -x -c shutdown DIR", "the kernel shut the file system down because of errors"},
		"ext4 on a disk that fails": {"ext4", `
			echo offline >/sys/block/DISK/device/state
			touch DIR/x 2>/dev/null || :
			sync
			echo running >/sys/block/DISK/device/state
			touch DIR/y 2>/dev/null || :`, "met errors"},
		"logged out by hand": {"ext4", "iscsiadm -m node --logoutall=all >/dev/null; while [ -e /sys/block/DISK ]; do sleep 0.1; done", "its device is gone"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			volume := newVolume(t, map[string]string{"kubernetes.io/fsType": test.filesystem})
			disk := strings.TrimPrefix(stage(t, nodeA, volume), "/dev/")
			shell(t, nodeA, strings.NewReplacer("DIR", volume.GlobalPath(), "DISK", disk).Replace(test.hurt))
			require.Contains(t, strings.Join(health(t, nodeA, volume), "; "), test.health)
			says(t, nodeA, 1, "doctor")
			unstage(t, nodeA, volume)
		})
	}
}

// doctor finds nothing on a node where all is well, and each of these things.
func TestDoctor(t *testing.T) {
	tidy(t, nodeA)
	volume := newVolume(t)
	stage(t, nodeA, volume)
	golden(t, "doctor.txt", says(t, nodeA, 0, "doctor"))
	record := shell(t, nodeA, "mkdir -p /opt; cp "+lab.PluginDir+"/iscsi /opt; ls /etc/iscsi/nodes/*/10.9.0.1,3260")
	iqn := filepath.Base(filepath.Dir(record))
	const (
		config  = lab.PluginDir + "/.datera-config"
		journal = "/var/lib/datera-iscsi"
		pod     = "/var/lib/kubelet/pods/u"
		// A new iscsid logs in to all sessions anew; until then none can be ended.
		begin   = "iscsid; until [ $(iscsiadm -m session -P 1 | grep -c 'iSCSI Connection State: LOGGED IN') = 2 ]; do sleep 0.1; done"
		restart = "kill -9 $(pidof iscsid); while pidof iscsid; do sleep 0.1; done; " + begin
	)
	startup := "iscsiadm -m node -T " + iqn + " -o update -n node.startup -v "
	for name, test := range map[string]struct {
		hurt, heal string
		configure  func(*driver.Config)
		finds      string
	}{
		"iscsid killed": {
			hurt: "kill -9 $(pidof iscsid); while pidof iscsid; do sleep 0.1; done", heal: begin,
			finds: `problem  iscsid +it does not run`,
		},
		"iscsid replaced": {
			hurt: "cp /sbin/iscsid /tmp/iscsid; mv /tmp/iscsid /sbin/iscsid", heal: restart,
			finds: `warning  open-iscsi +iscsid was replaced on disk`,
		},
		"another iscsiadm": {
			hurt:  "mv /sbin/iscsiadm /tmp; printf '#!/bin/sh\necho iscsiadm version 2.1.10\n' >/sbin/iscsiadm; chmod 755 /sbin/iscsiadm",
			heal:  "mv /tmp/iscsiadm /sbin",
			finds: `problem  open-iscsi +iscsiadm is 2\.1\.10 and iscsid is 2\.1\.8`,
		},
		"no mkfs.xfs": {
			hurt: "mv /sbin/mkfs.xfs /tmp", heal: "mv /tmp/mkfs.xfs /sbin",
			finds: `problem  programs +mkfs.xfs is not there; to do: install xfsprogs`,
		},
		"records that log in": {
			hurt: startup + "automatic", heal: startup + "manual",
			finds: `problem  node records .*node.startup = automatic.*\n.*problem  node records`,
		},
		"an empty record": {
			hurt: "cp " + record + " /tmp/record; : >" + record, heal: "cp /tmp/record " + record,
			finds: `problem  node records +` + record + ` is empty`,
		},
		"a stale lock": {
			hurt: "touch /run/lock/iscsi/lock; ln /run/lock/iscsi/lock /run/lock/iscsi/lock.write; sleep 0.1", heal: "rm /run/lock/iscsi/lock.write",
			finds: `problem  record lock +/run/lock/iscsi/lock.write`,
		},
		"no initiator name": {
			hurt: "mv /etc/iscsi/initiatorname.iscsi /tmp", heal: "mv /tmp/initiatorname.iscsi /etc/iscsi",
			finds: `problem  initiator name +this machine has no iSCSI initiator name`,
		},
		"another node's name": {
			hurt: "cp /etc/iscsi/initiatorname.iscsi /tmp; sed -i s/node-a/node-b/ /etc/iscsi/initiatorname.iscsi", heal: "mv /tmp/initiatorname.iscsi /etc/iscsi",
			finds: `problem  initiator name .*is registered on the array for another node than this, node-a, as k8s_kubernetes_node-b`,
		},
		"multipathd by itself": {
			hurt:  "modprobe -a dm_multipath; multipathd; until multipathd show status >/dev/null 2>&1; do sleep 0.1; done",
			heal:  "kill $(pidof multipathd); while pidof multipathd; do sleep 0.1; done",
			finds: `warning  multipath .*without a device section for DATERA IBLOCK`,
		},
		"a noexec plug-in folder": {
			hurt: "mount --bind " + lab.PluginDir + " " + lab.PluginDir + "; mount -o remount,bind,noexec " + lab.PluginDir, heal: "umount " + lab.PluginDir,
			finds: `problem  driver folder .*mounted noexec`,
		},
		"a log beside the driver": {
			hurt: "touch " + lab.PluginDir + "/iscsi.log", heal: "rm " + lab.PluginDir + "/iscsi.log",
			finds: `warning  driver folder .*iscsi.log: kubelet probes`,
		},
		"a read-only journal": {
			hurt: "mount --bind " + journal + " " + journal + "; mount -o remount,bind,ro " + journal, heal: "umount " + journal,
			finds: `problem  state folders .*read-only`,
		},
		"a configuration for a group": {hurt: "chmod 0640 " + config, heal: "chmod 0600 " + config, finds: `warning  configuration .*mode 0640`},
		"one that all may read":       {hurt: "chmod 0644 " + config, heal: "chmod 0600 " + config, finds: `problem  configuration .*mode 0644`},
		"a wrong password": {
			configure: func(c *driver.Config) { c.Password = "canary" },
			finds:     `problem  credentials .*the user name or the password is wrong`,
		},
		"an array that is off": {
			configure: func(c *driver.Config) { c.ManagementIP, c.Scheme = "10.9.0.1:7999", "http" },
			finds:     `problem  array .*nothing listens there`,
		},
		"a node that is not known": {
			configure: func(c *driver.Config) { c.Cluster = "another" },
			finds:     `problem  registration +no initiator on the array has the name "k8s_another_node-a"`,
		},
		"a portal that is dead": {
			hurt: "ip route add blackhole 10.9.1.1", heal: "ip route del blackhole 10.9.1.1",
			finds: `problem  portals +10.9.1.1:3260`,
		},
		"a wrong clock": {
			hurt: "date -s @$(($(date +%s) + 600))", heal: "date -s @$(($(date +%s) - 600))",
			finds: `warning  clock +this node is (10m|9m5).*off the array's clock`,
		},
		"data beside a volume": {
			hurt: "mkdir -p " + pod + "/volumes/datera~iscsi/pv-x; touch " + pod + "/volumes/datera~iscsi/pv-x/data", heal: "rm -r " + pod,
			finds: `problem  directories .*pv-x holds data`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if test.configure != nil {
				configure(t, test.configure, nodeA)
			}
			t.Cleanup(func() {
				_, err := nodeA.Shell(context.Background(), test.heal)
				require.NoError(t, err)
			})
			shell(t, nodeA, test.hurt)
			result, err := nodeA.Shell(t.Context(), "DATERA_CONFIG="+config+" /opt/iscsi doctor")
			require.NoError(t, err)
			require.Equal(t, 1, result.Exit, string(result.Stdout))
			require.Regexp(t, test.finds, string(result.Stdout))
			require.NotContains(t, string(result.Stdout)+string(result.Stderr), "canary")
		})
	}
	awaitSessions(t, nodeA, "2")
	golden(t, "doctor.txt", says(t, nodeA, 0, "doctor"))
	shell(t, nodeA, "rm /opt/iscsi")
	unstage(t, nodeA, volume)
}

// forgotten makes the journal look as if nobody had asked for a volume for long.
func forgotten(t *testing.T, node *lab.Machine, volume lab.Volume) {
	t.Helper()
	shell(t, node, "udevadm settle; touch -d '20 minutes ago' /var/lib/datera-iscsi/volumes/"+volume.Name+".json")
}

// The pod was deleted between waitforattach and mountdevice: no call of kubelet's tells the node.
func TestReapOfADeletedPod(t *testing.T) {
	tidy(t, nodeA)
	volume := newVolume(t)
	device := call(t, control, "attach", volume.Request(), "node-a").Reply.Device
	disk := call(t, nodeA, "waitforattach", device, volume.Request()).Reply.Device
	require.Contains(t, says(t, nodeA, 0, "reap", "--yes"), "nothing is left behind", "a pod that is being started lost its volume")
	forgotten(t, nodeA, volume)
	require.Contains(t, says(t, nodeA, 1, "reap"), "it is not mounted, and nobody has asked for it for 20m")
	require.Equal(t, "2", shell(t, nodeA, "ls -d /sys/class/iscsi_session/session* | wc -l"), "it was removed without --yes")
	require.Contains(t, says(t, nodeA, 1, "doctor"), "warning  leftovers")

	reader, err := nodeA.Spawn(t.Context(), vm.Command{Args: []string{"bash", "-c", "exec sleep 600 3<" + disk}})
	require.NoError(t, err)
	shell(t, nodeA, "until ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q '"+disk+"$'; do sleep 0.05; done")
	require.Regexp(t, `kept +volume .*in use by process [0-9]+ \(sleep\): has `+disk+` open`, says(t, nodeA, 0, "reap", "--yes"))
	require.NoError(t, reader.Signal(syscall.SIGKILL))
	_, err = reader.Wait()
	require.NoError(t, err)

	require.Regexp(t, `removed +volume +`+volume.Name, says(t, nodeA, 0, "reap", "--yes"))
	clean(t, nodeA)
	require.Equal(t, "nothing is left behind\n", says(t, nodeA, 0, "reap"))
	call(t, control, "detach", volume.Name, "node-a")
}

// A call that is killed in the middle leaves records, sessions and perhaps a lock.
func TestReapOfAKilledCall(t *testing.T) {
	tidy(t, nodeA)
	volume := newVolume(t)
	device := call(t, control, "attach", volume.Request(), "node-a").Reply.Device
	left := 0
	for moment := 40 * time.Millisecond; moment < 400*time.Millisecond; moment += 60 * time.Millisecond {
		kill(t, moment, "waitforattach", device, volume.Request())
		shell(t, nodeA, "udevadm settle; while pidof iscsiadm >/dev/null; do sleep 0.05; done; for f in /var/lib/datera-iscsi/volumes/*.json; do [ ! -e $f ] || touch -d '20 minutes ago' $f; done")
		left += strings.Count(says(t, nodeA, 0, "reap", "--yes"), "removed")
		clean(t, nodeA)
	}
	require.Positive(t, left, "no kill has left anything")
	call(t, control, "detach", volume.Name, "node-a")
}

func TestReapLeavesAMountedVolumeAlone(t *testing.T) {
	tidy(t, nodeA)
	volume := newVolume(t)
	disk := stage(t, nodeA, volume)
	sum := write(t, nodeA, volume.GlobalPath())
	forgotten(t, nodeA, volume)
	require.Equal(t, "nothing is left behind\n", says(t, nodeA, 0, "reap", "--yes"))
	require.Equal(t, sum, read(t, nodeA, volume.GlobalPath()))

	// Mounted in another mount namespace alone, as a container that was not told of the unmount has it.
	other, err := nodeA.Spawn(t.Context(), vm.Command{Args: []string{"unshare", "--mount", "--propagation", "private", "sleep", "600"}})
	require.NoError(t, err)
	shell(t, nodeA, "until pidof sleep >/dev/null && [ $(readlink /proc/$(pidof sleep)/ns/mnt) != $(readlink /proc/self/ns/mnt) ]; do usleep 50000; done")
	shell(t, nodeA, "umount "+volume.GlobalPath())
	require.Regexp(t, `kept +volume .*mounted at `+volume.GlobalPath(), says(t, nodeA, 0, "reap", "--yes"))
	shell(t, nodeA, "ls /sys/block/"+strings.TrimPrefix(disk, "/dev/"))
	require.NoError(t, other.Signal(syscall.SIGKILL))
	_, err = other.Wait()
	require.NoError(t, err)
	require.Regexp(t, `removed +volume`, says(t, nodeA, 0, "reap", "--yes"))
	call(t, control, "detach", volume.Name, "node-a")
	clean(t, nodeA)
}

// A session to the same array that somebody made by hand is shown and left alone, and so is its record.
func TestReapLeavesAForeignSessionAlone(t *testing.T) {
	volume := newVolume(t)
	device := call(t, control, "attach", volume.Request(), "node-a").Reply.Device
	attachment, err := driver.ParseAttachment(device)
	require.NoError(t, err)
	iqn := attachment.Target.IQN
	shell(t, nodeA, "iscsiadm -m node -o new -T "+iqn+" -p 10.9.0.1:3260; iscsiadm -m node -T "+iqn+" -p 10.9.0.1:3260 --login; touch -d '1 hour ago' $(find /etc/iscsi/nodes /var/lib/iscsi/nodes -type f)")
	require.Regexp(t, `kept +session .*`+iqn+`.*nothing proves that it is this driver's`, says(t, nodeA, 0, "reap", "--yes"))
	require.Contains(t, says(t, nodeA, 0, "status"), "not in this driver's journal")
	shell(t, nodeA, "iscsiadm -m node -T "+iqn+" --logout")
	require.Regexp(t, `kept +node record +`+iqn+`.*not written by this driver`, says(t, nodeA, 0, "reap", "--yes"))
	shell(t, nodeA, "iscsiadm -m node -T "+iqn+" -o delete")
	clean(t, nodeA)
	call(t, control, "detach", volume.Name, "node-a")
}

// What stays when journal and session are lost, but the disk of the node is not: records of the driver's own, a stale
// lock, empty records, and the directories of pods.
func TestReapOfFiles(t *testing.T) {
	tidy(t, nodeA)
	volume := newVolume(t)
	device := call(t, control, "attach", volume.Request(), "node-a").Reply.Device
	call(t, nodeA, "waitforattach", device, volume.Request())
	pod := volume.PodPath("gone")
	shell(t, nodeA, `
		cp -a /etc/iscsi/nodes /tmp/nodes
		iscsiadm -m node --logoutall=all
		rm -r /var/lib/datera-iscsi
		: >$(ls /etc/iscsi/nodes/*/10.9.1.1,3260)
		touch -d '1 hour ago' $(find /etc/iscsi/nodes -type f)
		touch /run/lock/iscsi/lock; ln /run/lock/iscsi/lock /run/lock/iscsi/lock.write
		mkdir -p `+pod+` `+volume.PodPath("full")+`; touch `+volume.PodPath("full")+`/data
		touch -d '1 hour ago' `+pod+` `+volume.PodPath("full")+` `+filepath.Dir(volume.GlobalPath())+`/* 2>/dev/null || :
		sleep 0.1`)
	listed := says(t, nodeA, 1, "reap")
	for _, kind := range []string{`leftover +record lock`, `leftover +node record +iqn.2013-05.com.daterainc`, `leftover +directory +` + pod, `kept +directory +` + volume.PodPath("full")} {
		require.Regexp(t, kind, listed)
	}
	removed := says(t, nodeA, 0, "reap", "--yes")
	require.NotContains(t, removed, "failed")
	clean(t, nodeA)
	shell(t, nodeA, "! ls -d "+pod+" /run/lock/iscsi/lock.write 2>/dev/null; ls "+volume.PodPath("full")+"/data; rm -r /var/lib/kubelet/pods /tmp/nodes")
	call(t, control, "detach", volume.Name, "node-a")
}

// multipathd has the paths of a map open, which is no use of it; a device upon the map is.
func TestReapWithMultipath(t *testing.T) {
	shell(t, nodeA, `
		printf 'defaults {\n find_multipaths no\n}\nblacklist {\n devnode "^vd"\n}\n' >/etc/multipath.conf
		modprobe -a dm_multipath dm_service_time
		multipathd
		until multipathd show status >/dev/null 2>&1; do sleep 0.1; done`)
	t.Cleanup(func() {
		_, err := nodeA.Shell(context.Background(), "kill $(pidof multipathd); while pidof multipathd >/dev/null; do sleep 0.1; done; rm /etc/multipath.conf")
		require.NoError(t, err)
	})
	volume := newVolume(t)
	device := call(t, control, "attach", volume.Request(), "node-a").Reply.Device
	mapped := call(t, nodeA, "waitforattach", device, volume.Request()).Reply.Device
	require.Regexp(t, `^/dev/dm-\d+$`, mapped)
	shell(t, nodeA, "dmsetup create upon --table '0 2048 linear "+mapped+" 0'")
	forgotten(t, nodeA, volume)
	require.Contains(t, says(t, nodeA, 0, "status"), mapped)
	require.Regexp(t, `kept +volume .*/dev/dm-\d+ stands on /dev/sd`, says(t, nodeA, 0, "reap", "--yes"))
	shell(t, nodeA, "dmsetup remove upon; udevadm settle")
	require.Regexp(t, `removed +volume +`+volume.Name+` \(e2e-`+volume.Name+`, `+mapped+`\)`, says(t, nodeA, 0, "reap", "--yes"))
	call(t, control, "detach", volume.Name, "node-a")
	clean(t, nodeA)
}
