package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// restartKubelet ends kubelet while pods run: they and their mounts stay.
func (s *story) restartKubelet(w *web) {
	node := w.pods[0].node
	s.step("kubelet on %s crashes and starts again while pods run", node)
	before := s.kernelState(node)
	s.do("kill kubelet", func(context.Context) error { return s.cluster.Nodes[node].KillKubelet() })
	s.do("start kubelet", s.cluster.Nodes[node].StartKubelet)
	s.reconstructed(node)
	s.same(before, s.kernelState(node), "sessions and mounts on "+node)
	for i, p := range w.pods {
		s.untouched(p)
		s.readsData(p, w.sums[i])
	}
	s.say("sessions, mounts and containers are the same as before")
}

// kernelState lists the sessions and mounts of a node.
func (s *story) kernelState(node string) string {
	return s.onNode(node, `
		cat /sys/class/iscsi_session/session*/targetname 2>/dev/null | sort || :
		grep 'datera~iscsi\|flexvolume' /proc/mounts | cut -d ' ' -f 1-4 | sort || :`)
}

// reconstructed waits until kubelet has looked at what its predecessor left and says that its node is ready.
func (s *story) reconstructed(node string) {
	s.until(podLimit, "kubelet on "+node+" has synchronised its volumes", func() error {
		_, err := s.cluster.Nodes[node].Script(s.ctx, "grep -q 'DevicePaths of reconstructed volumes updated' /var/log/kubelet.log")
		return err
	})
	s.ask("wait", "--for=condition=Ready", "--timeout=120s", "node/"+node)
}

// deleteWhileKubeletIsDown deletes a pod whose kubelet does not run. It must clean up when it starts, knowing only the mounts.
func (s *story) deleteWhileKubeletIsDown(w *web) {
	p, volume := w.pods[2], w.volumes[2]
	s.step("%s is deleted while kubelet on %s is down", p.name, p.node)
	s.do("kill kubelet", func(context.Context) error { return s.cluster.Nodes[p.node].KillKubelet() })
	s.kubectl("scale", "statefulset", "web", "--replicas=2")
	s.ask("wait", "--for=jsonpath={.metadata.deletionTimestamp}", "--timeout=60s", "pod/"+p.name)
	s.do("start kubelet", s.cluster.Nodes[p.node].StartKubelet)
	s.ask("wait", "--for=delete", "--timeout=180s", "pod/"+p.name)
	s.forgotten(volume, p.node)
	s.heldBy(volume)
	s.kubectl("scale", "statefulset", "web", "--replicas=3")
	w.pods[2] = s.running(p.name, p)
	s.readsData(w.pods[2], w.sums[2])
}

// crashKubeletInMount ends kubelet while the driver logs in, and while it mounts.
func (s *story) crashKubeletInMount(w *web) {
	for _, verb := range []string{"waitforattach", "mountdevice"} {
		old := w.pods[2]
		s.step("kubelet on %s crashes while the driver runs %s", old.node, verb)
		s.kubectl("scale", "statefulset", "web", "--replicas=2")
		s.ask("wait", "--for=delete", "--timeout=180s", "pod/"+old.name)
		s.forgotten(w.volumes[2], old.node)
		s.kubectl("cordon", other(old.node))
		caught := s.trap(old.node, verb)
		s.kubectl("scale", "statefulset", "web", "--replicas=3")
		caught()
		s.do("start kubelet", s.cluster.Nodes[old.node].StartKubelet)
		w.pods[2] = s.running(old.name, old)
		s.same(old.node, w.pods[2].node, "the node of "+old.name)
		s.kubectl("uncordon", other(old.node))
		s.readsData(w.pods[2], w.sums[2])
		s.sessions(w.volumes[2], old.node, 2)
	}
}

// trap kills kubelet on a node at the moment when the driver begins a call; the returned function waits for that.
func (s *story) trap(node, verb string) func() {
	if s.err != nil {
		return func() {}
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.cluster.Nodes[node].Script(s.ctx, fmt.Sprintf(`
			end=$((SECONDS + 120))
			while [ $SECONDS -lt $end ]; do
				for file in /proc/[0-9]*/cmdline; do
					mapfile -d '' -t words <"$file" || continue
					case "${words[*]:0:2}" in
					*/datera~iscsi/iscsi\ %[1]s) kill -9 "$(cat /run/kubelet.pid)"; exit ;;
					esac
				done 2>/dev/null
			done
			echo "no call of %[1]s was seen within 120 s" >&2
			exit 1`, verb))
		done <- err
	}()
	return func() {
		if s.err != nil {
			return
		}
		if err := <-done; err != nil {
			s.fail("kill kubelet on %s during %s: %w", node, verb, err)
			return
		}
		s.do("wait for kubelet's end", func(context.Context) error { return s.cluster.Nodes[node].KubeletEnded() })
		s.say("kubelet was killed during " + verb)
	}
}

// sessions wants a node to have so many sessions to a volume, and its file system to be mounted once on the global path.
func (s *story) sessions(volume, node string, want int) {
	iqn := s.target(volume)
	got := s.onNode(node, fmt.Sprintf(`
		grep -l -x '%s' /sys/class/iscsi_session/session*/targetname | wc -l
		grep -c ' /var/lib/kubelet/.*/mounts/%s ' /proc/mounts`, iqn, volume))
	s.same(fmt.Sprintf("%d\n1", want), got, "sessions to and global mounts of "+volume+" on "+node)
}

// crashMidAttach ends kube-controller-manager and kubelet while a volume is being made.
func (s *story) crashMidAttach(*web) {
	const name = "midway"
	s.step("kube-controller-manager and kubelet crash in the middle of an attach")
	s.apply(persistentVolume(name, 1, ""), claim(name, 1, ""))
	s.volumeOf(name)
	s.do("slow the array down", func(ctx context.Context) error { return s.cluster.Lab.Fault(ctx, "slow", "1500ms") })
	s.apply(podManifest(name, "", "", name))
	s.until(time.Minute, "kube-controller-manager runs attach", func() error {
		running, err := s.cluster.Control.ManagerRuns("attach")
		if err == nil && !running {
			err = errors.New("it does not")
		}
		return err
	})
	s.cluster.Control.KillManager()
	var node string
	s.until(time.Minute, "the pod has a node", func() (err error) {
		node, err = s.cluster.Control.Kubectl(s.ctx, "", "get", "pod", name, "-o", "jsonpath={.spec.nodeName}")
		if err == nil && node == "" {
			err = errors.New("not yet")
		}
		return err
	})
	s.do("kill kubelet", func(context.Context) error { return s.cluster.Nodes[node].KillKubelet() })
	s.do("heal the array", s.cluster.Lab.Heal)
	s.do("start kube-controller-manager", s.cluster.Control.StartManager)
	s.do("start kubelet", s.cluster.Nodes[node].StartKubelet)
	p := s.running(name)
	s.onDatera(p)
	s.provisioned(name, 1, 3)
	s.heldBy(name, p.node)
	s.sessions(name, p.node, 2)
	s.removePodWithClaim(p, name)
}

// cutPower ends a node's machine. After the out-of-service taint its pod runs on the other node; when the node comes back
// it is clean.
func (s *story) cutPower(w *web) {
	const i = 0
	before := w.pods[i]
	s.step("the power of %s fails", before.node)
	s.do("crash", func(context.Context) error { s.cluster.Crash(before.node); return nil })
	s.evacuated(w, before.node)
	for _, volume := range w.volumes {
		s.heldBy(volume, other(before.node))
	}

	s.step("%s comes back", before.node)
	s.do("boot", func(ctx context.Context) error { return s.cluster.Boot(ctx, before.node) })
	s.clean(before.node)
	s.refusedBy(w.volumes[i], before.node)
	s.kubectl("taint", "node", before.node, outOfService+"-")
}

const outOfService = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"

// evacuated taints a dead node and waits until its pods run on the other one, with their data.
func (s *story) evacuated(w *web, node string) {
	s.until(podLimit, node+" is found dead", func() error {
		status, err := s.cluster.Control.Kubectl(s.ctx, "", "get", "node", node, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		if err == nil && status == "True" {
			err = errors.New("it is ready")
		}
		return err
	})
	s.kubectl("taint", "node", node, outOfService)
	for i, before := range w.pods {
		if before.node != node {
			s.untouched(before)
			continue
		}
		w.pods[i] = s.running(before.name, before)
		s.check(w.pods[i].node == other(node), "pod %s came back on %s", before.name, w.pods[i].node)
		s.readsData(w.pods[i], w.sums[i])
	}
}

// refusedBy wants the array to refuse a node's login to a volume that is another's by now.
func (s *story) refusedBy(volume, node string) {
	iqn := s.target(volume)
	said := s.onNode(node, fmt.Sprintf(`
		iscsiadm -m node -o new -T %[1]s -p 10.9.0.1:3260 >/dev/null
		iscsiadm -m node -T %[1]s -p 10.9.0.1:3260 -o update -n node.session.initial_login_retry_max -v 1
		iscsiadm -m node -T %[1]s -p 10.9.0.1:3260 --login 2>&1 || :
		iscsiadm -m node -T %[1]s -p 10.9.0.1:3260 -o delete`, iqn))
	s.check(strings.Contains(said, "authorization failure"), "%s was not refused by target %s: %s", node, iqn, said)
	s.say(node + "# iscsiadm -m node -T " + iqn + " --login\n" + said)
}

// partition ends kubelet of a node for good while a pod goes on writing there: the array must cut it off before another
// node gets the volume.
func (s *story) partition(w *web) {
	const i = 1
	before := w.pods[i]
	s.step("kubelet of %s dies, but its pod goes on writing", before.node)
	s.do("kill kubelet", func(context.Context) error { return s.cluster.Nodes[before.node].KillKubelet() })
	s.inPod(before, "(while date >>/data/beats && sync; do sleep 0.1; done) >/dev/null 2>&1 &")
	s.inPod(before, "touch /data/alive")
	s.evacuated(w, before.node)
	s.heldBy(w.volumes[i], other(before.node))
	beats := s.inPod(w.pods[i], "sha256sum </data/beats")
	const late = "dd if=/dev/zero of=/data/late bs=4k count=1 conv=fsync"
	said := s.refusedInPod(before, late)
	s.inPod(w.pods[i], "test ! -e /data/late; echo 3 >/data/new; sync")
	s.same(beats, s.inPod(w.pods[i], "sha256sum </data/beats"), "what the old pod wrote, seen by the new one")
	s.say(fmt.Sprintf("%s on %s# %s\n%s", before.name, before.node, late, lastLine(said)))

	s.step("kubelet of %s starts again and clears up", before.node)
	s.do("start kubelet", s.cluster.Nodes[before.node].StartKubelet)
	s.kubectl("taint", "node", before.node, outOfService+"-")
	s.clean(before.node)
	s.readsData(w.pods[i], w.sums[i])
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
