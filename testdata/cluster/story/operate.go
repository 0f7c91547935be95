package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// upgrade rolls the next version out while pods write.
func (s *story) upgrade(d *deployment) {
	s.step("the next version is rolled out while both Redis write")
	for _, node := range nodes {
		s.importImage(node, filepath.Join(builtNext, "image.tar"))
	}
	for _, p := range d.redis {
		s.inPod(p, "touch /data/go; (while [ -e /data/go ]; do redis-cli incr beat >>/data/answered; sleep 0.1; done; touch /data/done) >/dev/null 2>&1 &")
	}
	s.applyOverlay(overlay, "next")
	s.rolledOut()
	s.installOnControlPlane(filepath.Join(builtNext, "iscsi"))
	for _, node := range nodes {
		s.installed(node, filepath.Join(builtNext, "iscsi"))
		log := s.installerLog(node)
		s.same("1", strconv.Itoa(strings.Count(log, "driver         changed")), "times that the new installer replaced the executable on "+node)
		s.say(node + "# iscsi version\n" + s.onNode(node, installerDir+"/iscsi version"))
	}
	for i, p := range d.redis {
		s.noWriteLost(p)
		s.untouched(p)
		s.heldBy(d.volumes[i], p.node)
	}

	s.step("the new version takes the volume of redis-1 off its node and brings it back")
	old := d.redis[1]
	s.deletePods(old.name)
	d.redis[1] = s.running(old.name, old)
	s.same(old.name, s.inPod(d.redis[1], "redis-cli get name"), "the name in Redis")
}

// applyOverlay applies a user's own overlay: one of deploy/overlays, with another tag of the image. It returns the folder.
func (s *story) applyOverlay(base, tag string) string {
	dir := filepath.Join(s.cluster.ControlPlaneRoot(), filepath.Base(base)+"-"+tag)
	s.do("write an overlay on "+base, func(context.Context) error {
		base, err := filepath.Abs(base)
		if err != nil {
			return err
		}
		if base, err = filepath.Rel(dir, base); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		overlay := fmt.Sprintf("resources: [%s]\nimages: [{name: %s, newTag: %s}]\n", base, image, tag)
		s.say("$ cat kustomization.yaml\n" + overlay + "$ kubectl apply -k .")
		return os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(overlay), 0o600)
	})
	s.ask("apply", "-k", dir)
	return dir
}

// noWriteLost ends what increments a counter in a pod, and wants each answer to be the one before plus one.
func (s *story) noWriteLost(p pod) {
	s.inPod(p, "rm /data/go")
	s.until(podLimit, "the writer in "+p.name+" ends", func() error {
		_, err := s.tryInPod(p, "cat /data/done")
		return err
	})
	answers := strings.Fields(s.inPod(p, "cat /data/answered"))
	for i, answer := range answers {
		if answer != strconv.Itoa(i+1) {
			s.fail("answer %d of Redis in %s was %q", i+1, p.name, answer)
			return
		}
	}
	s.check(len(answers) > 10, "Redis in %s answered %d times only", p.name, len(answers))
	s.same(strconv.Itoa(len(answers)), s.inPod(p, "redis-cli get beat"), "the counter in "+p.name)
	s.say(fmt.Sprintf("%s: %d writes answered meanwhile, none lost, container and mount untouched", p.name, len(answers)))
}

// killWorkers ends installers and provisioner in the middle of their work.
func (s *story) killWorkers(d *deployment) {
	s.killInstallers(d)
	s.killProvisioner()
}

func (s *story) killInstallers(d *deployment) {
	const node = "node-a"
	s.step("the driver's folder is damaged and the installer killed: it heals, and no pod notices")
	want := s.onNode(node, "sha256sum <"+installerDir+"/iscsi | cut -d ' ' -f 1")
	s.onNode(node, "rm "+installerDir+"/iscsi && : >"+installerDir+"/.datera-config && : >"+installerDir+"/.iscsi.new-1")
	s.killOn(node, "/usr/bin/iscsi install")
	s.kubectl("-n", system, "delete", "pod", "-l", "app.kubernetes.io/component=installer", "--force", "--grace-period=0", "--wait=false")
	s.eventuallyOnNode(node, want, "sha256sum <"+installerDir+"/iscsi | cut -d ' ' -f 1")
	s.rolledOut()
	s.same(".datera-config\n.datera-initiators\niscsi", s.onNode(node, "ls -A "+installerDir), "the driver's folder on "+node)
	for _, p := range d.redis {
		s.untouched(p)
	}
}

// eventuallyOnNode waits until a script on a node prints something.
func (s *story) eventuallyOnNode(node, want, script string) {
	s.until(5*time.Minute, fmt.Sprintf("%q on %s", script, node), func() error {
		got, err := s.cluster.Nodes[node].Script(s.ctx, script)
		if err == nil && got != want {
			err = fmt.Errorf("it prints %q", got)
		}
		return err
	})
}

// killProvisioner ends both replicas while they make volumes, and while they delete them.
func (s *story) killProvisioner() {
	names := []string{"one", "two", "three"}
	s.step("the provisioner is killed while it makes three volumes: one for each claim in the end")
	before := s.onArrayNow()
	var claims []string
	for _, name := range names {
		claims = append(claims, classClaim(name, "datera", "1Gi"))
	}
	s.do("slow the array down", func(ctx context.Context) error { return s.cluster.Lab.Fault(ctx, "slow", "1s") })
	s.apply(claims...)
	s.until(podLimit, "a volume is being made", func() error {
		found, err := s.cluster.Control.Kubectl(s.ctx, "", "-n", system, "get", "configmap", "-l", "datera.io/provisioning=true", "-o", "name")
		if err == nil && found == "" {
			err = errors.New("the journal is empty")
		}
		return err
	})
	s.killReplicas()
	s.do("heal the array", s.cluster.Lab.Heal)
	var volumes []string
	for _, name := range names {
		volumes = append(volumes, s.volumeOf(name))
		s.provisioned(volumes[len(volumes)-1], 1, 3)
	}
	s.journalEmpty()
	s.same(strconv.Itoa(before+len(names)), strconv.Itoa(s.onArrayNow()), "volumes on the array")
	s.say(s.kubectl("get", "pvc", "one", "two", "three"))

	s.step("it is killed while it deletes them: nothing is left")
	s.do("slow the array down", func(ctx context.Context) error { return s.cluster.Lab.Fault(ctx, "slow", "1s") })
	s.kubectl("delete", "pvc", "one", "two", "three", "--wait=true", "--timeout=120s")
	left := s.ask("get", "pv", volumes[len(volumes)-1], "--ignore-not-found", "-o", "name")
	s.check(left != "", "all volumes were deleted before the provisioner could be killed")
	s.killReplicas()
	s.do("heal the array", s.cluster.Lab.Heal)
	for _, volume := range volumes {
		s.gone(volume)
	}
	s.same(strconv.Itoa(before), strconv.Itoa(s.onArrayNow()), "volumes on the array")
	s.rolledOut()
}

// killReplicas ends both replicas of the provisioner as a crash would.
func (s *story) killReplicas() {
	for _, replica := range strings.Fields(s.ask("-n", system, "get", "pods", "-l", "app.kubernetes.io/component=provisioner", "-o", "jsonpath={.items[*].spec.nodeName}")) {
		s.onNode(replica, killScript("/usr/bin/datera-provisioner")+" || :") // one script ends both if they share a node
	}
	s.say("datera-provisioner was killed on every node")
}

// onArrayNow counts the volumes that the array has.
func (s *story) onArrayNow() int {
	if s.err != nil {
		return 0
	}
	count, err := s.countVolumes()
	if err != nil {
		s.fail("count the volumes on the array: %w", err)
	}
	return count
}

// changeSecret wants a change of the Secret to reach the nodes without anything being restarted.
func (s *story) changeSecret(d *deployment) {
	began := time.Now()
	s.step("a changed Secret reaches the configuration of every node")
	restarts := s.ask("-n", system, "get", "pods", "-o", "jsonpath={.items[*].metadata.uid} {.items[*].status.containerStatuses[0].restartCount}")
	s.applySecret("\n    replacement_timeout: 77")
	for _, node := range nodes {
		s.eventuallyOnNode(node, "replacement_timeout: 77", "grep replacement_timeout "+installerDir+"/.datera-config || :")
	}
	s.say(fmt.Sprintf("on both nodes after %.0f s", time.Since(began).Seconds()))
	s.same(restarts, s.ask("-n", system, "get", "pods", "-o", "jsonpath={.items[*].metadata.uid} {.items[*].status.containerStatuses[0].restartCount}"), "pods and their restarts")
	for _, p := range d.redis {
		s.untouched(p)
	}
}

// controlPlaneNode makes a control-plane node of a worker, and a worker of it again.
func (s *story) controlPlaneNode(d *deployment) {
	const node, label = "node-b", "node-role.kubernetes.io/control-plane"
	s.step("%s becomes a control-plane node, and loses open-iscsi's configuration: the other DaemonSet serves it", node)
	s.onNode(node, "mv /etc/iscsi/initiatorname.iscsi /run")
	s.kubectl("label", "node", node, label+"=")
	s.eventually(podLimit, "one installer of each DaemonSet is ready", installers(len(nodes)-1, 1), readyInstallers...)
	s.say(s.kubectl("-n", system, "get", "pods", "-l", "app.kubernetes.io/component=installer", "-o", "wide"))
	log := s.installerLog(node)
	s.check(strings.Contains(log, "control-plane node "+node+" has the driver; it has no open-iscsi"), "the installer on %s says %q", node, log)
	s.say("installer on " + node + ":\n" + log)

	s.step("it is a worker again; no pod noticed anything")
	s.onNode(node, "mv /run/initiatorname.iscsi /etc/iscsi")
	s.kubectl("label", "node", node, label+"-")
	s.eventually(podLimit, "every installer is a worker's", installers(len(nodes), 0), readyInstallers...)
	log = s.installerLog(node)
	s.check(strings.Contains(log, "node "+node+" can attach volumes"), "the installer on %s says %q", node, log)
	s.registered(node, true)
	for i, p := range d.redis {
		s.untouched(p)
		s.heldBy(d.volumes[i], p.node)
	}
}

// uninstall takes the driver off the cluster: not before its volumes are off the nodes.
func (s *story) uninstall(d *deployment) {
	s.step("uninstall is refused while volumes are on the nodes, and names them")
	tag := strings.TrimPrefix(s.ask("-n", system, "get", "daemonset", "datera-iscsi", "-o", "jsonpath={.spec.template.spec.containers[0].image}"), image+":")
	dir := s.applyOverlay("deploy/overlays/uninstall", tag)
	for i, p := range d.redis {
		s.until(podLimit, "the installer on "+p.node+" names "+d.volumes[i], func() error {
			log, err := s.cluster.Nodes[p.node].Script(s.ctx, "cat /var/log/pods/"+system+"_datera-iscsi-*/installer/*.log")
			if err == nil && !strings.Contains(log, "volumes are on this node: "+d.volumes[i]) && !strings.Contains(log, ", "+d.volumes[i]) {
				err = fmt.Errorf("it says %q", lastLine(log))
			}
			return err
		})
		s.say(p.node + ": " + lastLine(s.installerLog(p.node)))
		s.untouched(p)
		s.registered(p.node, true)
	}

	s.step("after the pods and claims the driver goes, too")
	s.kubectl("delete", "statefulset", "redis", "--wait=true", "--timeout=180s")
	s.ask("wait", "--for=delete", "--timeout=180s", "pod", "-l", "app=redis")
	s.kubectl("delete", "pvc", "-l", "app=redis", "--wait=true", "--timeout=120s")
	for _, volume := range d.volumes {
		s.gone(volume)
	}
	s.rolledOut()
	for _, node := range nodes {
		s.same("", s.onNode(node, "ls -A "+filepath.Dir(installerDir)), "FlexVolume drivers on "+node)
		s.registered(node, false)
		s.clean(node)
	}
	s.ask("delete", "-k", dir, "--wait=true", "--timeout=180s")
	s.say("$ kubectl delete -k .")
	s.same("", s.ask("get", "namespace", system, "--ignore-not-found", "-o", "name"), "the namespace")
	s.same("", s.ask("get", "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/part-of=datera-flexvolume", "-o", "name"), "roles")
	s.onControlPlane(filepath.Join("bin", "iscsi"), "uninstall", "--plugin-dir=/plugins", "--node=control-plane", "--control-plane")
}
