package main

import (
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// podManifest is a pod with a claim at /data. The node may be empty; security is YAML for its security context; a claim
// may be given as "NAME, readOnly: true".
func podManifest(name, node, security, claim string) string {
	selector := ""
	if node != "" {
		selector = "kubernetes.io/hostname: " + node
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata:
  name: %s
spec:
  nodeSelector: {%s}
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  securityContext: {%s}
  containers:
  - name: main
    image: localhost/busybox:1
    imagePullPolicy: Never
    volumeMounts:
    - {name: data, mountPath: /data}
  volumes:
  - name: data
    persistentVolumeClaim: {claimName: %s}
`, name, selector, security, claim)
}

// removePodWithClaim deletes a pod, its claim and the PersistentVolume of that name, and wants the node to forget it.
func (s *story) removePodWithClaim(p pod, volume string) {
	s.deletePods(p.name)
	s.forgotten(volume, p.node)
	s.kubectl("delete", "pvc,pv", volume, "--wait=true", "--timeout=120s")
	s.heldBy(volume)
}

// share lets two pods on one node use one volume, then a pod read it only, then a group own it.
func (s *story) share(*web) {
	const name, node = "shared", "node-a"
	s.step("two pods on %s share a volume", node)
	s.apply(persistentVolume(name, 1, ""), claim(name, 1, ""))
	s.apply(podManifest("first", node, "", name), podManifest("second", node, "", name))
	first, second := s.running("first"), s.running("second")
	sum := s.writeData(first)
	s.readsData(second, sum)
	s.sessions(name, node, 2)
	s.deletePods("first")
	s.readsData(second, sum)
	s.untouched(second)
	s.deletePods("second")
	s.forgotten(name, node)

	s.step("a pod reads it by a claim with readOnly")
	s.apply(podManifest("reader", other(node), "", name+", readOnly: true"))
	reader := s.running("reader")
	s.readsData(reader, sum)
	said := s.refusedInPod(reader, "touch /data/file")
	s.check(strings.Contains(said, "Read-only file system"), "the reader was refused, but not as read-only: %s", said)
	s.say("reader# touch /data/file\n" + said)
	s.same("1", s.onNode(reader.node, "cat /sys/block/"+disk(s.mountOf(reader))+"/ro"), "read-only flag of the disk")
	s.deletePods("reader")
	s.forgotten(name, reader.node)

	s.step("a pod of user 1000 with fsGroup 1234")
	s.apply(podManifest("grouped", node, "runAsUser: 1000, fsGroup: 1234", name))
	grouped := s.running("grouped")
	s.inPod(grouped, "echo mine >/data/mine")
	s.same("1000:1234 2775", s.inPod(grouped, "echo $(stat -c %u:%g /data/mine) $(stat -c %a /data)"), "owner of the file and mode of /data")
	s.say("grouped# ls -ln /data\n" + s.inPod(grouped, "ls -ln /data"))
	s.removePodWithClaim(grouped, name)
}

// disk is the name of the disk in a line of the mount table.
func disk(line string) string {
	device, _, _ := strings.Cut(line, " ")
	return strings.TrimPrefix(device, "/dev/")
}

//go:embed manifests/expandable.yaml
var expandableClass string

// grow grows a claim while a pod uses it.
func (s *story) grow(*web) {
	const name = "growing"
	s.step("a claim grows from 1Gi to 3Gi while a pod uses it")
	s.apply(expandableClass, persistentVolume(name, 1, "expandable"), claim(name, 1, "expandable"), podManifest(name, "", "", name))
	p := s.running(name)
	sum := s.writeData(p)
	small := s.blocks(p)
	s.kubectl("patch", "pvc", name, "-p", `{"spec":{"resources":{"requests":{"storage":"3Gi"}}}}`)
	s.until(podLimit, "the claim says that it has 3Gi", func() error {
		size, err := s.cluster.Control.Kubectl(s.ctx, "", "get", "pvc", name, "-o", "jsonpath={.status.capacity.storage}")
		if err == nil && size != "3Gi" {
			err = errors.New("it says " + size)
		}
		return err
	})
	s.provisioned(name, 3, 3)
	large := s.blocks(p)
	s.check(large > 5*small/2, "the file system in the pod has %d blocks, it had %d", large, small)
	s.untouched(p)
	s.readsData(p, sum)
	s.say(p.name + "# df -h /data\n" + s.inPod(p, "df -h /data"))
	s.removePodWithClaim(p, name)
}

// blocks is the size of a pod's file system in KiB.
func (s *story) blocks(p pod) int {
	line := lastLine(s.inPod(p, "df -k /data"))
	fields := strings.Fields(line)
	if s.err != nil || len(fields) < 2 {
		s.fail("df in pod %s says %q", p.name, line)
		return 0
	}
	size, err := strconv.Atoi(fields[1])
	s.check(err == nil, "df in pod %s says %q", p.name, line)
	return size
}
