package main

import (
	_ "embed"
	"fmt"
	"strings"
)

//go:embed manifests/web.yaml
var statefulSet string

const seedVolumes = 4

func seedVolume(i int) string { return fmt.Sprintf("pv-datera-%d", i) }

// web is the StatefulSet's pods, with the checksums of what they wrote.
type web struct {
	pods    []pod
	volumes []string
	sums    []string
}

// createStatefulSet is the seed's story: four volumes, two pods.
func (s *story) createStatefulSet(w *web) {
	s.step("four PersistentVolumes as in the seed, and a StatefulSet of two pods")
	for i := range seedVolumes {
		s.apply(persistentVolume(seedVolume(i), 100, ""))
	}
	s.ask("wait", "--for=jsonpath={.status.phase}=Available", "--timeout=60s", "pv", "--all")
	s.say(s.kubectl("get", "pv"))
	for i := range seedVolumes {
		s.notOnArray(seedVolume(i))
	}
	s.apply(statefulSet)
	for i := range 2 {
		s.addPod(w, i)
	}
	s.say(s.kubectl("get", "pods", "-o", "wide"))

	s.step("each pod has an xfs on a disk of the array at /data")
	for i, p := range w.pods {
		s.onDatera(p)
		s.provisioned(w.volumes[i], 100, 3)
		s.heldBy(w.volumes[i], p.node)
	}
}

// addPod waits for the StatefulSet's next pod and lets it write.
func (s *story) addPod(w *web, i int) {
	p := s.running(fmt.Sprintf("web-%d", i))
	w.pods = append(w.pods, p)
	w.volumes = append(w.volumes, s.volumeOf("data-"+p.name))
	w.sums = append(w.sums, s.writeData(p))
}

// onDatera wants a pod's /data to be an xfs on a disk that says it is the array's.
func (s *story) onDatera(p pod) {
	line := s.mountOf(p)
	fields := strings.Fields(line)
	if len(fields) < 4 {
		s.fail("/data of pod %s is no mount: %q", p.name, line)
		return
	}
	s.same("xfs", fields[2], "the file system at /data of pod "+p.name)
	vendor := s.inPod(p, "cat /sys/block/"+strings.TrimPrefix(fields[0], "/dev/")+"/device/vendor")
	s.same("DATERA", strings.TrimSpace(vendor), "the vendor of "+fields[0])
	s.say(fmt.Sprintf("%s# grep /data /proc/mounts; cat /sys/block/*/device/vendor\n%s\n%s", p.name, line, vendor))
}

// scaleStatefulSet adds a third pod.
func (s *story) scaleStatefulSet(w *web) {
	s.step("scaled to three: the third volume is made when it is first used, older pods run on")
	bound := map[string]bool{w.volumes[0]: true, w.volumes[1]: true}
	for i := range seedVolumes {
		if !bound[seedVolume(i)] {
			s.notOnArray(seedVolume(i))
		}
	}
	s.kubectl("scale", "statefulset", "web", "--replicas=3")
	s.addPod(w, 2)
	s.provisioned(w.volumes[2], 100, 3)
	for _, p := range w.pods[:2] {
		s.untouched(p)
	}
	s.say(s.kubectl("get", "pods,pvc", "-o", "wide"))
}

// replace deletes a pod that comes back on its node at once, before its volume is detached.
func (s *story) replace(w *web) {
	before := w.pods[0]
	s.step("%s is deleted and comes back on %s", before.name, before.node)
	s.kubectl("cordon", other(before.node))
	for range 3 {
		old := w.pods[0]
		s.deletePods(old.name)
		w.pods[0] = s.running(old.name, old)
		s.readsData(w.pods[0], w.sums[0])
	}
	s.same(before.node, w.pods[0].node, "the node of "+before.name)
	s.sessions(w.volumes[0], before.node, 2)
	s.kubectl("uncordon", other(before.node))
}

// move deletes a pod while its node takes no new ones: it comes back on the other, with its data.
func (s *story) move(w *web) {
	const i = 0
	before := w.pods[i]
	s.step("%s moves from %s to %s", before.name, before.node, other(before.node))
	s.kubectl("cordon", before.node)
	s.deletePods(before.name)
	w.pods[i] = s.running(before.name, before)
	s.check(w.pods[i].node == other(before.node), "pod %s came back on %s", before.name, w.pods[i].node)
	s.readsData(w.pods[i], w.sums[i])
	s.forgotten(w.volumes[i], before.node)
	s.heldBy(w.volumes[i], other(before.node))
	s.kubectl("uncordon", before.node)
}

// nodes are all there are.
var nodes = []string{"node-a", "node-b"}

func other(node string) string {
	if node == nodes[0] {
		return nodes[1]
	}
	return nodes[0]
}

// deleteEverything takes the StatefulSet and its claims away. The volumes are retained, with their data.
func (s *story) deleteEverything(w *web) {
	s.step("everything is deleted: the nodes are clean, the array keeps what reclaim policy Retain says")
	if s.err != nil {
		return
	}
	s.kubectl("delete", "statefulset", "web", "--wait=true", "--timeout=180s")
	s.ask("wait", "--for=delete", "--timeout=180s", "pod", "-l", "app=web")
	s.kubectl("delete", "pvc", "--all", "--wait=true", "--timeout=120s")
	for _, node := range nodes {
		s.clean(node)
	}
	for _, volume := range w.volumes {
		s.heldBy(volume)
		s.provisioned(volume, 100, 3)
		s.ask("wait", "--for=jsonpath={.status.phase}=Released", "--timeout=60s", "pv/"+volume)
	}
	s.say(s.kubectl("get", "pv"))
	s.kubectl("delete", "pv", "--all", "--wait=true", "--timeout=120s")
	for _, volume := range w.volumes {
		s.provisioned(volume, 100, 3)
	}
}
