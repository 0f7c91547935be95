package faults

import (
	"context"
	"slices"
	"strings"

	"datera-flexvolume/driver"
)

// writeData leaves a file on the volume and remembers its checksum.
func (k *kubelet) writeData(ctx context.Context, node string) {
	path := k.podPath() + "/data"
	k.sum = k.shell(ctx, k.nodes[node], "dd if=/dev/urandom of="+path+" bs=64k count=8 status=none && sync -f "+path+" && sha256sum <"+path)
}

// checkData wants the file to be as it was.
func (k *kubelet) checkData(ctx context.Context, node string) {
	if k.over() || k.sum == "" {
		return
	}
	k.checks++
	if sum := k.shell(ctx, k.nodes[node], "sha256sum <"+k.podPath()+"/data 2>&1 || :"); sum != k.sum && k.err == nil {
		k.violated("data on %s: %s, written was %s", node, sum, k.sum)
	}
}

// checkAccess wants at most one node to be let in by the array, where no call is under way.
func (k *kubelet) checkAccess(ctx context.Context) {
	if k.over() {
		return
	}
	k.checks++
	hosts := strings.Fields(k.shell(ctx, k.control, "ls -d /sys/kernel/config/target/iscsi/iqn*/tpgt_*/acls/* 2>/dev/null | sed 's/.*:01://' | sort -u"))
	if len(hosts) > 1 {
		k.violated("%v have access at the same time", hosts)
	}
}

// checkFormats wants mkfs to have made a file system once at most in the volume's life. Those that other volumes were given
// do not count.
func (k *kubelet) checkFormats(ctx context.Context, others int) {
	made := k.formats(ctx)
	k.checks++
	if len(made) > others+1 {
		k.violated("mkfs ran %d times for one volume: %q", len(made)-others, made)
	}
}

// formats has a line for each mkfs that made a file system.
func (k *kubelet) formats(ctx context.Context) []string {
	var made []string
	for _, node := range []string{nodeA, nodeB} {
		if said := k.shell(ctx, k.nodes[node], awaitPrograms+"cat "+mkfsLog+" 2>/dev/null || :"); said != "" {
			made = append(made, strings.Split(said, "\n")...)
		}
	}
	return made
}

// programs are those that a call starts; the ones of a killed call run on.
const programs = "iscsi iscsiadm mkfs.xfs mount umount xfs_growfs"

// awaitPrograms is a script that waits until they have ended.
const awaitPrograms = "for i in {1..300}; do pidof " + programs + " >/dev/null || break; sleep 0.1; done\n"

// leftOn lists what a node still has.
func (k *kubelet) leftOn(ctx context.Context, node string) []string {
	if k.over() { // what is left then says nothing more
		return nil
	}
	said := k.shell(ctx, k.nodes[node], awaitPrograms+`
		pidof `+programs+` | sed 's/^/process /'
		for s in /sys/class/iscsi_session/session*; do [ -e "$s" ] && echo "session $(cat "$s/targetname")"; done
		lsscsi | sed 's/^/disk /'
		grep -E ' /var/lib/kubelet/|^/dev/(sd|dm)' /proc/self/mounts | sed 's/^/mount /'
		find /etc/iscsi/nodes /var/lib/iscsi/nodes -type f 2>/dev/null | sed 's/^/record /'
		find /var/lib/datera-iscsi -type f 2>/dev/null | sed 's/^/journal /'
		find /var/lib/kubelet -name '*`+k.volume.Name+`*' 2>/dev/null | sed 's/^/directory /'
		for f in /run/datera-iscsi/lock/*; do [ ! -e "$f" ] || flock -n "$f" true || echo "lock $f"; done
		:`)
	left := strings.Split(said, "\n")
	return slices.DeleteFunc(left, func(line string) bool {
		// In mode none the driver makes a directory of its own, which it finds again by the journal only.
		return line == "" || k.lost && k.mode == driver.AttachNone && strings.HasPrefix(line, "directory ")
	})
}

// checkNothingLeft comes at the end of a life. The volume is deleted on the way, which is refused while anybody has it.
func (k *kubelet) checkNothingLeft(ctx context.Context, left map[string][]string) {
	for node, things := range left {
		k.checks++
		for _, thing := range things {
			k.violated("left on %s: %s", node, thing)
		}
	}
	if k.over() {
		return
	}
	k.checks++
	for _, volume := range append(k.others, k.volume) {
		never := volume.With(map[string]string{"retainPolicy": "never"})
		result, err := k.control.Run(ctx, binary, "delete", never.Request())
		if k.err = err; err == nil && result.Exit != 0 {
			k.violated("delete: %s", result.Stderr)
		}
	}
	if left := k.shell(ctx, k.control, "ls -d /sys/kernel/config/target/iscsi/iqn* 2>/dev/null || :"); left != "" {
		k.violated("left on the array: %s", left)
	}
}

// isHalfMade tells whether a message says that mkfs was interrupted: by design that is for people to judge.
func isHalfMade(message string) bool {
	return slices.ContainsFunc([]string{"is not blank", "holds a damaged"}, func(words string) bool { return strings.Contains(message, words) })
}
