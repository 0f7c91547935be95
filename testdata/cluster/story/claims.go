package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// deployment is what the story has put up: the pods of the example's Redis and their volumes.
type deployment struct {
	redis   []pod
	volumes []string
}

// firstClaim applies the examples of a class and a StatefulSet as they stand.
func (s *story) firstClaim(d *deployment) {
	began := time.Now()
	s.step("a StorageClass, and Redis with a claim of it: nothing else is needed")
	s.kubectl("apply", "-f", "deploy/examples/storageclass-plain.yaml", "-f", "deploy/examples/redis.yaml")
	s.addRedis(d)
	s.say(fmt.Sprintf("running %.0f s after the command", time.Since(began).Seconds()))
	s.say(s.kubectl("get", "pods,pvc", "-o", "wide"))
	s.say(s.events("data-redis-0"))
	s.onDatera(d.redis[0])
	s.provisioned(d.volumes[0], 10, 3)
	s.heldBy(d.volumes[0], d.redis[0].node)

	s.step("a second Redis, with a volume of its own")
	s.kubectl("scale", "statefulset", "redis", "--replicas=2")
	s.addRedis(d)
	s.untouched(d.redis[0])
	for i, p := range d.redis {
		s.same("OK", s.inPod(p, "redis-cli config set appendfsync always"), "Redis' answer") // what it answers is on the disk
		s.same("OK", s.inPod(p, "redis-cli set name "+p.name), "Redis' answer")
		s.heldBy(d.volumes[i], p.node)
	}
	s.journalEmpty()
}

func (s *story) addRedis(d *deployment) {
	name := fmt.Sprintf("redis-%d", len(d.redis))
	p := s.running(name)
	d.redis = append(d.redis, p)
	d.volumes = append(d.volumes, s.volumeOf("data-"+name))
}

// journalEmpty waits until the provisioner has nothing under way.
func (s *story) journalEmpty() {
	s.eventually(podLimit, "the provisioner's journal is empty", "", "-n", system, "get", "configmap", "-l", "datera.io/provisioning=true", "-o", "name")
}

// events are what was said of a claim or pod.
func (s *story) events(object string) string {
	return s.ask("get", "events", "--field-selector=involvedObject.name="+object, "--sort-by=.lastTimestamp",
		"-o", `jsonpath={range .items[*]}{.type}{"\t"}{.reason}{"\t"}{.message}{"\n"}{end}`)
}

// seed plays the seed documents' examples as they stand: volumes that an administrator named.
func (s *story) seed(*deployment) {
	s.step("the examples of the seed: PersistentVolumes by hand, a pod and a StatefulSet")
	s.kubectl("apply", "-f", "deploy/examples/persistentvolumes.yaml", "-f", "deploy/examples/pod.yaml", "-f", "deploy/examples/statefulset.yaml")
	pods := []pod{s.running("kube-pv-demo"), s.running("test-set-0"), s.running("test-set-1")}
	s.say(s.kubectl("get", "pods,pvc,pv"))
	var volumes []string
	for i, claim := range []string{"pv-claim-demo", "pv-claim-test-set-0", "pv-claim-test-set-1"} {
		volume := s.volumeOf(claim)
		volumes = append(volumes, volume)
		s.check(strings.HasPrefix(volume, "pv-datera-"), "claim %s got volume %s", claim, volume)
		s.onDatera(pods[i])
		s.provisioned(volume, 100, 3)
	}
	s.kubectl("delete", "-f", "deploy/examples/statefulset.yaml", "-f", "deploy/examples/pod.yaml", "--wait=true", "--timeout=180s")
	s.ask("wait", "--for=delete", "--timeout=180s", "pod", "-l", "app=nginx")
	s.ask("delete", "pvc", "-l", "app=nginx", "--wait=true")
	for i, volume := range volumes {
		s.forgotten(volume, pods[i].node)
		s.provisioned(volume, 100, 3)
	}
	s.kubectl("delete", "-f", "deploy/examples/persistentvolumes.yaml")
}

// growth patches a claim while its pod runs.
func (s *story) growth(d *deployment) {
	p, volume := d.redis[0], d.volumes[0]
	s.step("the claim of %s grows while it runs", p.name)
	before := s.blocks(p)
	began := time.Now()
	s.kubectl("patch", "pvc", "data-"+p.name, "-p", `{"spec":{"resources":{"requests":{"storage":"12Gi"}}}}`)
	s.eventually(5*time.Minute, "the claim says 12Gi", "12Gi", "get", "pvc", "data-"+p.name, "-o", "jsonpath={.status.capacity.storage}")
	after := s.blocks(p)
	s.check(after-before > 1800<<10, "the file system has %d KiB after %d", after, before)
	s.provisioned(volume, 12, 3)
	s.untouched(p)
	s.say(fmt.Sprintf("%s# df -k /data: %d KiB, before %d; %.0f s after the patch", p.name, after, before, time.Since(began).Seconds()))
}

// clone applies the example of a copy of Redis.
func (s *story) clone(d *deployment) {
	p := d.redis[0]
	s.step("a copy of Redis, cloned by the array while the original runs")
	s.same("OK", s.inPod(p, "redis-cli set before clone"), "Redis' answer")
	const manifest = "deploy/examples/clone.yaml"
	s.kubectl("apply", "-f", manifest)
	replica := s.running("redis-copy")
	volume := s.volumeOf("redis-copy")
	s.until(podLimit, "the copy has loaded its data", func() error {
		got, err := s.tryInPod(replica, "redis-cli get before")
		if err == nil && got != "clone" {
			err = fmt.Errorf("it says %q", got)
		}
		return err
	})
	s.same(p.name, s.inPod(replica, "redis-cli get name"), "the copy's name")
	s.same("OK", s.inPod(p, "redis-cli set before later"), "Redis' answer")
	s.same("clone", s.inPod(replica, "redis-cli get before"), "the copy after the original changed")
	s.say("redis-copy# redis-cli get name\n" + p.name)
	s.check(volume != d.volumes[0], "the copy has the original's volume")
	s.untouched(p)

	s.step("the copy and its claim are deleted: reclaim policy Delete leaves nothing on the array")
	s.kubectl("delete", "-f", manifest, "--wait=true", "--timeout=180s")
	s.gone(volume)
}

// gone waits until a volume of reclaim policy Delete is nowhere any more.
func (s *story) gone(volume string) {
	s.eventually(podLimit, "PersistentVolume "+volume+" is gone", "", "get", "pv", volume, "--ignore-not-found", "-o", "name")
	s.notOnArray(volume)
	if s.err != nil {
		return
	}
	groups, err := s.array.InitiatorGroupsContaining(s.ctx, "_"+volume[:min(len(volume), 31)])
	s.check(err == nil && len(groups) == 0, "the array still has initiator groups of %s: %v (%v)", volume, groups, err)
	s.say("array: no app instance and no initiator group of " + volume)
}

// deleteAndRetain lets a volume outlive its claim and its PersistentVolume.
func (s *story) deleteAndRetain(*deployment) {
	const name = "kept"
	s.step("a claim of a class with reclaim policy Retain is deleted: the volume stays")
	s.kubectl("apply", "-f", "deploy/examples/storageclass-retain.yaml")
	s.apply(classClaim(name, "datera-retain", "1Gi"), podManifest(name, "", "", name))
	p := s.running(name)
	volume := s.volumeOf(name)
	s.same("ext4", strings.Fields(s.mountOf(p) + " - - -")[2], "the file system of "+name)
	s.deletePods(name)
	s.kubectl("delete", "pvc", name, "--wait=true", "--timeout=120s")
	s.eventually(podLimit, "the PersistentVolume is released", "Released", "get", "pv", volume, "-o", "jsonpath={.status.phase}")
	s.provisioned(volume, 1, 3)
	s.kubectl("delete", "pv", volume, "--wait=true", "--timeout=120s")
	s.forgotten(volume, p.node)
	s.provisioned(volume, 1, 3)
}

// waitForConsumer wants a volume to be made only when a pod has found its node.
func (s *story) waitForConsumer(*deployment) {
	const name = "patient"
	s.step("with volumeBindingMode WaitForFirstConsumer the volume is made when a pod has found its node")
	s.kubectl("apply", "-f", "deploy/examples/storageclass-fast.yaml")
	s.apply(classClaim(name, "datera-fast", "1Gi"))
	s.until(podLimit, "the claim waits", func() error {
		said, err := s.cluster.Control.Kubectl(s.ctx, "", "get", "events", "--field-selector=involvedObject.name="+name+",reason=WaitForFirstConsumer", "-o", "name")
		if err == nil && said == "" {
			err = errors.New("nothing is said of it")
		}
		return err
	})
	s.same("", s.ask("get", "pvc", name, "-o", "jsonpath={.spec.volumeName}"), "the claim's volume")
	s.apply(podManifest(name, "node-b", "", name))
	p := s.running(name)
	volume := s.volumeOf(name)
	s.heldBy(volume, "node-b")
	s.check(strings.Contains(s.mountOf(p), "noatime"), "the mount options of the class are missing: %s", s.mountOf(p))
	s.deletePods(name)
	s.kubectl("delete", "pvc", name, "--wait=true", "--timeout=120s")
	s.gone(volume)
}

// refused wants a class that cannot be honoured to be named in an event, and its claim to go on when it is corrected.
func (s *story) refused(*deployment) {
	const name = "misspelt"
	s.step("a StorageClass with a parameter that does not exist: the claim's events say what is accepted")
	s.apply(badClass("replicas"), classClaim(name, name, "1Gi"))
	s.until(podLimit, "an event on the claim", func() error {
		said, err := s.cluster.Control.Kubectl(s.ctx, "", "get", "events", "--field-selector=involvedObject.name="+name+",type=Warning", "-o", "jsonpath={.items[*].message}")
		if err == nil && !(strings.Contains(said, "replicas") && strings.Contains(said, "template")) {
			err = fmt.Errorf("%q is said", said)
		}
		return err
	})
	s.say(s.events(name))
	s.ask("delete", "sc", name)
	s.apply(badClass("replica"))
	volume := s.volumeOf(name)
	s.provisioned(volume, 1, 2)
	s.say("the class is corrected: the claim is bound")
	s.kubectl("delete", "pvc,sc", name, "--wait=true", "--timeout=120s")
	s.gone(volume)
}

// badClass is a class with one parameter.
func badClass(parameter string) string {
	return "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: misspelt}\nprovisioner: datera.io/provisioner-datera\nparameters: {" +
		parameter + ": " + strconv.Quote("2") + "}\n"
}

// classClaim is a claim of a class.
func classClaim(name, class, size string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: %s
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: %s
  resources:
    requests:
      storage: %s
`, name, class, size)
}
