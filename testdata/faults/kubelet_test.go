package faults

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"datera-flexvolume/driver"
	"datera-flexvolume/testdata/faults/trace"
	"datera-flexvolume/testdata/lab"
)

const (
	podUID   = "6b99bd2a-628e-11e6-8463-0cc47ab41442"
	otherPod = "7c88cd3b-628e-11e6-8463-0cc47ab41442"
	// patience is how long a call is repeated, patiencePause how long kubelet waits in between (it begins with 500 ms).
	patience      = 45 * time.Second
	patiencePause = 300 * time.Millisecond
)

// kubelet plays kubelet on both nodes and kube-controller-manager, for one volume.
type kubelet struct {
	*place
	mode         driver.AttachMode
	volume       lab.Volume
	others       []lab.Volume // that had its name, too
	otherFormats int          // of theirs
	device, disk string
	sum          string // of the data on the volume
	rebooted     bool
	lost         bool // files of the first node, by a reboot
	halfMade     bool // mkfs was interrupted by a reboot
	trail        []string
	longest      time.Duration
	calls        int
	checks       int
	violations   []string
	err          error // of the machines; nothing goes on after it
}

func (k *kubelet) violated(format string, args ...any) {
	k.violations = append(k.violations, fmt.Sprintf(format, args...))
}

func (k *kubelet) note(format string, args ...any) {
	k.trail = append(k.trail, fmt.Sprintf(format, args...))
}

// over tells whether there is no sense in going on.
func (k *kubelet) over() bool { return k.err != nil || len(k.violations) > 0 }

func (k *kubelet) shell(ctx context.Context, m *lab.Machine, script string) string {
	if k.err != nil {
		return ""
	}
	said, err := shell(ctx, m, script)
	k.err = err
	return said
}

// call makes one call on behalf of the pod on a node. Attach and detach run where the mode says.
func (k *kubelet) call(ctx context.Context, node, verb string, f trace.Fault, meanwhile func()) outcome {
	m := k.nodes[node]
	if k.mode == driver.AttachController && (verb == "attach" || verb == "detach") {
		m = k.control
	}
	if k.over() {
		return outcome{}
	}
	o, err := call(ctx, m, f, meanwhile, append([]string{verb}, k.arguments(ctx, node, verb)...)...)
	k.err = err
	k.calls++
	if f.Do != trace.Hold {
		k.longest = max(k.longest, o.took)
	}
	k.describe(node, verb, f, o)
	switch {
	case o.wrong != "":
		k.violated("%s on %s breaks the protocol: %s", verb, node, o.wrong)
	case o.took > driver.CallDeadline+longestHold:
		k.violated("%s on %s took %s", verb, node, o.took)
	case o.reply.Status != driver.Success:
	case verb == "attach":
		k.device = o.reply.Device
	case verb == "waitforattach":
		k.disk = o.reply.Device
	}
	return o
}

func (k *kubelet) arguments(ctx context.Context, node, verb string) []string {
	options := k.volume.Request()
	switch verb {
	case "attach":
		return []string{options, node}
	case "waitforattach":
		return []string{k.device, options}
	case "mountdevice":
		return []string{k.volume.GlobalPath(), k.disk, options}
	case "mount":
		return []string{k.podPath(), options}
	case "expandfs":
		global := k.volume.GlobalPath()
		if k.mode == driver.AttachNone { // where the driver mounts it is its own affair; the pod's directory shows the same
			global = k.podPath()
		}
		return []string{options, k.disk, global, fmt.Sprint(2 * gib), fmt.Sprint(1 * gib)}
	case "unmount":
		return []string{k.podPath()}
	case "unmountdevice":
		return []string{k.volume.GlobalPath()}
	}
	return []string{k.volume.Name, node}
}

func (k *kubelet) podPath() string { return k.volume.PodPath(podUID) }

func (k *kubelet) describe(node, verb string, f trace.Fault, o outcome) {
	said := string(o.reply.Status) + " " + o.reply.Message
	if o.report.Killed {
		said = "killed"
	}
	if f.At > 0 && o.report.Hit {
		said += fmt.Sprintf(" <- %s at %s", f.Do, o.report.Points[f.At-1])
	} else if f.At > 0 {
		said += fmt.Sprintf(" <- has only %d points", len(o.report.Points))
	}
	k.note("%s on %s, %d ms: %s", verb, node, o.took.Milliseconds(), said)
}

// once makes a call without a fault, if kubelet would.
func (k *kubelet) once(ctx context.Context, node, verb string) bool {
	if !k.needed(ctx, node, verb) {
		k.tidy(ctx, node, verb)
		return true
	}
	reply := k.call(ctx, node, verb, trace.Fault{}, nil).reply
	k.tidy(ctx, node, verb)
	k.halfMade = k.halfMade || k.rebooted && isHalfMade(reply.Message)
	return reply.Status == driver.Success
}

// insist repeats a call until it succeeds, as kubelet does.
func (k *kubelet) insist(ctx context.Context, node, verb string) bool {
	for begin := time.Now(); ; {
		if k.once(ctx, node, verb) {
			return true
		}
		if k.over() || k.halfMade {
			return false
		}
		if time.Since(begin) > patience {
			k.violated("%s on %s never succeeds", verb, node)
			return false
		}
		select {
		case <-time.After(patiencePause):
		case <-ctx.Done():
			k.err = ctx.Err()
		}
	}
}

// needed tells whether kubelet makes a call: not for a path that is, or is not, a mount point already.
func (k *kubelet) needed(ctx context.Context, node, verb string) bool {
	switch verb {
	case "mountdevice":
		return !k.mounted(ctx, node, k.volume.GlobalPath())
	case "mount":
		return !k.mounted(ctx, node, k.podPath())
	case "unmount":
		return k.mounted(ctx, node, k.podPath())
	case "unmountdevice":
		return k.mounted(ctx, node, k.volume.GlobalPath())
	}
	return true
}

func (k *kubelet) mounted(ctx context.Context, node, path string) bool {
	if k.over() {
		return false
	}
	var table bytes.Buffer
	k.err = k.nodes[node].Read(ctx, "/proc/mounts", &table)
	return bytes.Contains(table.Bytes(), []byte(" "+path+" "))
}

// tidy removes the directory of what is unmounted, as kubelet does. It has made it, too.
func (k *kubelet) tidy(ctx context.Context, node, verb string) {
	if directory := map[string]string{"unmount": k.podPath(), "unmountdevice": k.volume.GlobalPath()}[verb]; directory != "" {
		k.shell(ctx, k.nodes[node], "rmdir "+directory+" 2>/dev/null || :")
	}
}

// through makes those of some calls that are needed.
func (k *kubelet) through(ctx context.Context, node string, verbs []string) bool {
	return !slices.ContainsFunc(verbs, func(verb string) bool { return !k.insist(ctx, node, verb) })
}

func takesAway(verb string) bool { return strings.HasPrefix(verb, "unmount") || verb == "detach" }

// up brings the volume to a pod on a node.
func (k *kubelet) up(ctx context.Context, node string) bool {
	return k.through(ctx, node, slices.DeleteFunc(verbs(k.mode), func(verb string) bool { return verb == "expandfs" || takesAway(verb) }))
}

// down takes it away, when the programs of a killed call are done: one may still mount, which decides what is called, and
// Kubernetes fences no node that may still format, but after minutes.
func (k *kubelet) down(ctx context.Context, node string) bool {
	k.shell(ctx, k.nodes[node], awaitPrograms)
	return k.through(ctx, node, slices.DeleteFunc(verbs(k.mode), func(verb string) bool { return !takesAway(verb) }))
}

// giveUp is for a volume that nobody can use, because mkfs was interrupted: its pods are deleted, and an administrator
// clears away what no call of kubelet is for.
func (k *kubelet) giveUp(ctx context.Context) {
	for _, node := range []string{nodeA, nodeB} {
		k.down(ctx, node)
		k.note("reap on %s: %s", node, k.shell(ctx, k.nodes[node],
			"touch -c -d '-1 hour' /var/lib/datera-iscsi/volumes/* 2>/dev/null; "+binary+" reap --yes 2>&1 || :"))
	}
}

// settle lets a call about something else come to a node: whatever it is, it finishes what is unfinished. It comes when
// the programs of a killed call are done: what they are busy with is left to a later call.
func (k *kubelet) settle(ctx context.Context, node string) {
	if k.over() {
		return
	}
	k.shell(ctx, k.nodes[node], awaitPrograms)
	o, err := call(ctx, k.nodes[node], trace.Fault{}, nil, "unmount", k.volume.PodPath(otherPod))
	k.err = err
	if o.reply.Status != driver.Success {
		k.violated("a call about something else fails on %s: %s", node, o.reply.Message)
	}
}

// move brings the pod to the other node while nobody can ask the first one, which comes back later. Where the first one
// detaches by itself, the other may be refused until then.
func (k *kubelet) move(ctx context.Context) {
	if k.mode == driver.AttachController {
		if k.insist(ctx, nodeA, "detach") && k.up(ctx, nodeB) {
			k.checkData(ctx, nodeB)
			k.through(ctx, nodeA, []string{"unmount", "unmountdevice"})
		}
		return
	}
	if !k.once(ctx, nodeB, verbs(k.mode)[0]) {
		k.down(ctx, nodeA)
		k.settle(ctx, nodeA)
	}
	k.checkAccess(ctx)
	k.up(ctx, nodeB)
}

// overtake brings the pod to the other node in the middle of a call on the first, as far as the array lets it.
func (k *kubelet) overtake(ctx context.Context) {
	if k.mode == driver.AttachController && !k.insist(ctx, nodeA, "detach") {
		return
	}
	for _, verb := range verbs(k.mode) {
		if takesAway(verb) {
			break
		}
		if verb != "expandfs" && !k.once(ctx, nodeB, verb) {
			return
		}
	}
	k.checkData(ctx, nodeB)
}

// checkFence lets the other node ask for the volume while the first one has it.
func (k *kubelet) checkFence(ctx context.Context) {
	k.checks++
	if k.once(ctx, nodeB, verbs(k.mode)[0]) && !k.over() {
		k.violated("%s gets the volume while %s has it", nodeB, nodeA)
	}
	k.checkAccess(ctx)
}

// reboot is a node's as the driver sees it: no process, no session, no mount, nothing in /run, files from before, and a
// file system that was not unmounted. What the driver and open-iscsi keep on disk may be lost, too.
func (k *kubelet) reboot(ctx context.Context, node string, loses bool) {
	k.note("%s reboots, loses its files: %v", node, loses)
	k.rebooted, k.lost = true, k.lost || loses
	script := `
		programs="` + programs + `"
		for i in {1..50}; do p=$(pidof $programs) || break; kill -9 $p; sleep 0.1; done
		grep -E ' /var/lib/kubelet/| /dev/sd' /proc/self/mounts | while read -r dev at rest; do xfs_io -x -c shutdown "$at"; umount -l "$at"; done
		for d in /sys/class/iscsi_session/session*/device/target*/*:*/delete; do [ -e "$d" ] && echo 1 >"$d"; done
		for i in {1..50}; do # a login that is under way ends first
			ls -d /sys/class/iscsi_session/session* >/dev/null 2>&1 || break
			iscsiadm -m session -u >/dev/null 2>&1 || sleep 0.2
		done
		iscsiadm -k 0 2>/dev/null; for i in {1..50}; do pidof iscsid >/dev/null || break; sleep 0.1; done
		rm -rf /run/datera-iscsi /run/lock/iscsi/*
		touch -c -d '2001-01-01' /var/lib/datera-iscsi/*/* # of an earlier start
		iscsid
		ls -d /sys/class/iscsi_session/session* 2>/dev/null`
	if loses {
		script += "\nrm -rf /var/lib/datera-iscsi /etc/iscsi/nodes/* /var/lib/iscsi/nodes/*"
	}
	if left := k.shell(ctx, k.nodes[node], script+"\n:"); left != "" && k.err == nil {
		k.err = fmt.Errorf("the reboot of %s leaves %s", node, path.Base(left))
	}
}
