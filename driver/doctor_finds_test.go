package driver

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// Each thing that Doctor knows to be wrong, one by one.
func TestDoctorFinds(t *testing.T) {
	type change = func(d *desk, p *probe)
	tests := map[string]struct {
		change change
		check  string
		level  Level
		says   string
		todo   string
	}{
		"a configuration that is wrong": {
			func(d *desk, _ *probe) { d.ConfigError = errors.New("configuration /x: unknown key foo") },
			"configuration", LevelProblem, "unknown key foo", "",
		},
		"no credentials": {
			func(d *desk, _ *probe) { d.Config.Password = "" },
			"configuration", LevelWarning, "cannot grow volumes", "",
		},
		"no credentials in mode kubelet": {
			func(d *desk, _ *probe) { d.Config.Password, d.Config.Attach = "", AttachKubelet },
			"configuration", LevelWarning, "nor attach them", "",
		},
		"a configuration for the group": {
			func(d *desk, _ *probe) { require.NoError(d.t, os.Chmod(d.Config.Path, 0o640)) },
			"configuration", LevelWarning, "mode 0640", "chmod 0600",
		},

		"no mkfs.xfs": {
			func(d *desk, _ *probe) { delete(d.says, "mkfs.xfs") },
			"programs", LevelProblem, "mkfs.xfs is not there", "install xfsprogs",
		},
		"no mkfs.ext4": {
			func(d *desk, _ *probe) { delete(d.says, "mkfs.ext4") },
			"programs", LevelWarning, "without which there is no ext4", "e2fsprogs",
		},
		"a program that does not run": {func(d *desk, _ *probe) {
			d.Host.LookPath = func(program string) (string, error) { return program, nil }
			delete(d.says, "mount")
		}, "programs", LevelProblem, "`mount`: injected", "install util-linux anew"},
		"multipathd without multipath": {
			func(d *desk, _ *probe) { d.multipath = iscsi.Multipath{Runs: true, Section: true} },
			"programs", LevelProblem, "multipath is not there", "multipath-tools",
		},

		"a kernel without iscsi_tcp": {
			func(d *desk, _ *probe) { require.NoError(d.t, os.RemoveAll(d.Host.SysRoot)) },
			"kernel modules", LevelProblem, "no iscsi_tcp", "modprobe iscsi_tcp",
		},
		"a kernel without xfs": {
			func(d *desk, _ *probe) { d.write(d.t, d.proc+"/filesystems", "\text4\n") },
			"kernel modules", LevelProblem, "no xfs", "modprobe xfs",
		},
		"a kernel without ext4": {
			func(d *desk, _ *probe) { d.write(d.t, d.proc+"/filesystems", "\txfs\n") },
			"kernel modules", LevelWarning, "no ext4", "modprobe ext4",
		},
		"multipathd without dm_multipath": {func(d *desk, _ *probe) {
			d.multipath, d.says["multipath"] = iscsi.Multipath{Runs: true, Section: true}, ""
		}, "kernel modules", LevelProblem, "no dm_multipath", "modprobe dm_multipath"},

		"open-iscsi that does not say its version": {
			func(d *desk, _ *probe) { d.fails["versions"] = errInjected },
			"open-iscsi", LevelProblem, "injected", "install open-iscsi",
		},
		"no iscsiadm to ask": {
			func(d *desk, _ *probe) { delete(d.says, "iscsiadm"); d.fails["versions"] = errInjected },
			"open-iscsi", LevelWarning, "not known: iscsiadm is not there", "",
		},
		"open-iscsi 2.1.10": {
			func(d *desk, _ *probe) { d.versions = iscsi.Versions{Client: "2.1.10", Daemon: "2.1.10"} },
			"open-iscsi", LevelProblem, "never answers a login with node.session.scan=manual", "2.1.11",
		},
		"Fedora's 2.1.10": {func(d *desk, _ *probe) {
			d.versions = iscsi.Versions{Client: "6.2.1.10-2", Daemon: "6.2.1.10-2"}
		}, "open-iscsi", LevelProblem, "never answers", "2.1.11"},
		"a new daemon and an old client": {
			func(d *desk, _ *probe) { d.versions = iscsi.Versions{Client: "2.1.10", Daemon: "2.1.11"} },
			"open-iscsi", LevelProblem, "wait for each other for ever", "upgrade the older half",
		},
		"an old daemon and a new client": {
			func(d *desk, _ *probe) { d.versions = iscsi.Versions{Client: "2.1.11", Daemon: "2.1.9"} },
			"open-iscsi", LevelWarning, "iscsiadm is 2.1.11 and the iscsid that runs is 2.1.9", "restart iscsid",
		},
		"a replaced iscsid": {
			func(d *desk, _ *probe) { d.versions.Replaced = true },
			"open-iscsi", LevelWarning, "replaced on disk", "restart iscsid",
		},
		"no iscsid": {
			func(d *desk, _ *probe) { d.noDaemon = true },
			"iscsid", LevelProblem, "systemctl enable --now iscsid", "",
		},

		"an iscsid that ended": {
			func(d *desk, _ *probe) { d.idle = true },
			"iscsid", LevelProblem, "one that is lost will not come back", "systemctl start iscsid",
		},

		"no initiator name": {
			func(d *desk, _ *probe) { d.fails["name"] = errInjected },
			"initiator name", LevelProblem, "injected", "",
		},
		"an initiator name with capitals": {
			func(d *desk, p *probe) { d.iqn = capitals; p.byIQN[capitals] = "k8s_kubernetes_node-a" },
			"initiator name", LevelProblem, "has capital letters", "",
		},
		"another node's initiator name": {
			func(d *desk, p *probe) { p.byIQN[ownIQN] = "k8s_kubernetes_node-b" },
			"initiator name", LevelProblem,
			"is registered on the array for another node than this, node-a, as k8s_kubernetes_node-b", "set node: node-b"},

		"a record that logs in by itself": {func(d *desk, _ *probe) { d.records[0].Startup = "automatic" }, "node records", LevelProblem, "node.startup = automatic",
			"iscsiadm -m node -T " + iqnOne + " -p 10.0.0.1:3260 -o update -n node.startup -v manual"},
		"an empty record": {
			func(d *desk, _ *probe) { d.records[0].Empty = true },
			"node records", LevelProblem, "/etc/iscsi/nodes/x is empty", "iscsi reap --yes",
		},
		"an empty foreign record": {func(d *desk, _ *probe) {
			d.records[0].Empty, d.records[0].IQN = true, "iqn.2026-11.com.example:o"
		}, "node records", LevelWarning, "is empty", "rm /etc/iscsi/nodes/x"},
		"records that cannot be read": {
			func(d *desk, _ *probe) { d.fails["records"] = errInjected },
			"node records", LevelProblem, "injected", "",
		},
		"a stale lock": {
			func(d *desk, _ *probe) { d.stale = true },
			"record lock", LevelProblem, lockPath, "iscsi reap --yes",
		},

		"disks that multipath only claims": {
			func(d *desk, _ *probe) { d.multipath.Claimed = []string{"/dev/sdb"} },
			"multipath", LevelProblem, "udev keeps /dev/sdb for multipath", "blacklist",
		},
		"multipathd without a device section": {func(d *desk, _ *probe) {
			withMultipath(d, iscsi.Multipath{Configs: []string{"/etc/multipath/conf.d/a.conf"}})
		}, "multipath", LevelWarning,
			"without a device section for DATERA IBLOCK in /etc/multipath/conf.d/a.conf", `vendor "DATERA", product "IBLOCK"`},
		"multipathd that queues for ever": {
			func(d *desk, _ *probe) { withMultipath(d, iscsi.Multipath{Section: true, Queues: true}) },
			"multipath", LevelWarning, "wait for ever", "no_path_retry 24",
		},
		"a multipath.conf that cannot be read": {
			func(d *desk, _ *probe) { d.fails["multipath"] = errInjected },
			"multipath", LevelProblem, "injected", "",
		},

		"no driver where kubelet looks": {
			func(d *desk, _ *probe) { require.NoError(d.t, os.RemoveAll(d.plugins)) },
			"driver folder", LevelProblem, "kubelet looks for the driver at", "iscsi install",
		},
		"a driver that cannot be run": {func(d *desk, _ *probe) {
			require.NoError(d.t, os.Chmod(d.plugins+"/datera~iscsi/iscsi", 0o644))
		}, "driver folder", LevelProblem, "cannot run", "chmod 0755"},
		"a driver on a noexec mount": {func(d *desk, _ *probe) {
			d.holding[d.plugins+"/datera~iscsi"] = mount.Mount{Path: "/usr/libexec", Options: []string{"rw", "noexec"}}
		}, "driver folder", LevelProblem, "lies on /usr/libexec, which is mounted noexec", "remount,exec /usr/libexec"},
		"a driver on a read-only mount": {func(d *desk, _ *probe) {
			d.holding[d.plugins+"/datera~iscsi"] = mount.Mount{Path: "/usr", ReadOnly: true}
		}, "driver folder", LevelWarning, "cannot be replaced", "volumePluginDir"},
		"a log beside the driver": {
			func(d *desk, _ *probe) { d.write(d.t, d.plugins+"/datera~iscsi/iscsi.log", "") },
			"driver folder", LevelWarning, "iscsi.log: kubelet probes", "move it",
		},

		"a read-only state folder": {func(d *desk, _ *probe) {
			d.holding[d.Config.StateDir] = mount.Mount{Path: "/var", ReadOnly: true}
		}, "state folders", LevelProblem, "lies on /var, which is mounted read-only", "writable"},
		"a state folder that others may write to": {
			func(d *desk, _ *probe) { require.NoError(d.t, os.Chmod(d.Config.StateDir, 0o777)) },
			"state folders", LevelProblem, "mode 0777", "chmod go-w",
		},
		"a file for a state folder": {
			func(d *desk, _ *probe) { d.write(d.t, d.Config.RunDir, "") },
			"state folders", LevelProblem, "is no folder", "rm",
		},

		"an array of another version": {
			func(_ *desk, p *probe) { p.about.Versions = []string{"2.1", "2.3"} },
			"array", LevelProblem, "speaks versions 2.1, 2.3 of the API, not 2.2", "api_version",
		},
		"a clock that is slow": {
			func(_ *desk, p *probe) { p.about.Clock = time.Now().Add(5 * time.Minute) },
			"clock", LevelWarning, "-5m0s off the array's clock", "NTP",
		},
		"a clock that is fast": {
			func(_ *desk, p *probe) { p.about.Clock = time.Now().Add(-5 * time.Minute) },
			"clock", LevelWarning, "5m0s off the array's clock", "NTP",
		},
		"a node that is not registered": {
			func(_ *desk, p *probe) { clear(p.byIQN) },
			"registration", LevelProblem, `no initiator on the array has the name "k8s_kubernetes_node-a"`, "`iscsi register node-a`",
		},
		"a new initiator name": {func(_ *desk, p *probe) {
			p.byIQN = map[string]string{"iqn.1993-08.org.debian:01:old": "k8s_kubernetes_node-a"}
		}, "registration", LevelProblem,
			"registered with initiator iqn.1993-08.org.debian:01:old", "delete initiator iqn.1993-08.org.debian:01:old"},

		"a portal that does not answer": {
			func(d *desk, _ *probe) { d.dead = []string{"10.0.1.1:3260"} },
			"portals", LevelProblem, "10.0.1.1:3260: portal does not answer: connection refused", "firewall",
		},
		"a volume with a portal down": {
			func(d *desk, _ *probe) { d.down = []string{"10.0.1.1:3260"} },
			"volumes", LevelProblem, "pv-1: portal 10.0.1.1:3260 is down", "`iscsi status`",
		},
		"a file system that was shut down": {
			func(d *desk, _ *probe) { d.trouble[d.mounts[1].Path] = mount.ErrShutDown },
			"volumes", LevelProblem, "pv-1: the kernel shut the file system down", "",
		},
		"data beside a volume": {
			func(d *desk, _ *probe) { d.write(d.t, d.podPath("pod-2", "pv-2")+"/data", "precious") },
			"directories", LevelProblem, "holds data, and nothing is mounted there", "save what is in it",
		},
		"a leftover": {
			func(d *desk, _ *probe) { d.journalled(d.t, "pv-2", iqnTwo, time.Hour) },
			"leftovers", LevelWarning, "1: volume pv-2 (kube-pv-2)", "iscsi reap --yes",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d, p := wellDesk(t)
			test.change(d, p)
			found := d.findings(t)
			var of []Finding
			for _, f := range found {
				if f.Check == test.check {
					of = append(of, f)
				}
			}
			require.Len(t, of, 1, "all findings: %v", found)
			require.Equal(t, test.level, of[0].Level)
			require.Contains(t, of[0].Message, test.says)
			require.Contains(t, of[0].Remedy, test.todo)
		})
	}
}

// What concerns two checks is the finding of one.
func TestDoctorTellsOnce(t *testing.T) {
	for check, change := range map[string]func(*desk, *probe){
		"leftovers":    func(d *desk, _ *probe) { d.journalled(t, "pv-2", iqnTwo, time.Hour) },
		"registration": func(_ *desk, p *probe) { p.byIQN[ownIQN] = "named by hand" },
		"record lock":  func(d *desk, _ *probe) { d.stale = true },
	} {
		t.Run(check, func(t *testing.T) {
			d, p := wellDesk(t)
			change(d, p)
			found := d.findings(t)
			require.Len(t, found, 1, "%v", found)
			require.Equal(t, check, found[0].Check)
		})
	}
}

// withMultipath makes multipathd run, with all that it needs.
func withMultipath(d *desk, m iscsi.Multipath) {
	m.Runs = true
	d.multipath, d.says["multipath"] = m, ""
}

// What is right in one way or another is no finding.
func TestDoctorAccepts(t *testing.T) {
	tests := map[string]func(d *desk, p *probe){
		"multipathd with a device section": func(d *desk, _ *probe) {
			withMultipath(d, iscsi.Multipath{Section: true})
			d.write(d.t, d.Host.SysRoot+"/module/dm_multipath/x", "")
		},
		"multipathd that leaves the disks alone": func(d *desk, _ *probe) {
			withMultipath(d, iscsi.Multipath{Blacklist: true})
			d.write(d.t, d.Host.SysRoot+"/module/dm_multipath/x", "")
		},
		"an iscsid that is started with the first login": func(d *desk, _ *probe) {
			d.idle, d.mounts, d.records = true, nil, nil
			clear(d.disks)
			require.NoError(d.t, d.journal().forget("pv-1"))
		},
		"a module that is yet to be loaded": func(d *desk, _ *probe) {
			require.NoError(d.t, os.RemoveAll(d.Host.SysRoot))
			d.write(d.t, d.proc+"/sys/kernel/osrelease", "6.1.0-1\n")
			d.write(d.t, d.Host.ModulesRoot+"/6.1.0-1/modules.dep", "kernel/drivers/scsi/libiscsi.ko.xz: x\nkernel/drivers/scsi/iscsi_tcp.ko.xz: kernel/drivers/scsi/libiscsi.ko.xz\n")
		},
		"a node of mode none without credentials":      func(d *desk, p *probe) { d.Config.Attach = AttachNone; clear(p.byIQN) },
		"a node that registers itself":                 func(d *desk, p *probe) { d.Config.Attach = AttachKubelet; clear(p.byIQN) },
		"an array that tells neither version nor time": func(_ *desk, p *probe) { p.about = datera.About{} },
		"a volume that is not mounted yet": func(d *desk, _ *probe) {
			d.mounts = nil
			age(d.t, d.journal().inUse("pv-1"), time.Minute)
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			d, p := wellDesk(t)
			change(d, p)
			require.Empty(t, d.findings(t))
		})
	}
}
