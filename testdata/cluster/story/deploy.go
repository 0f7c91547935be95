package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"datera-flexvolume/datera"
	"datera-flexvolume/testdata/lab"
)

const (
	system       = "datera-system"
	image        = "docker.io/library/datera-flexvolume"
	installerDir = lab.PluginDir
	rolloutLimit = "300s"
	builtImage   = "build/image.tar"
	builtNext    = "build/next" // image.tar and iscsi of the next version
	overlay      = "deploy/overlays/controller"
	builtRedis   = "build/cluster/redis"
)

// deploy is the story of the deployment: its beginning, and the acts that are named, or all.
func (s *story) deploy(acts string) {
	d := new(deployment)
	s.bringImages()
	s.install()
	s.firstClaim(d)
	for _, act := range []struct {
		name string
		play func(*deployment)
	}{
		{"seed", s.seed}, {"growth", s.growth}, {"clone", s.clone}, {"delete-retain", s.deleteAndRetain},
		{"wait-for-first-consumer", s.waitForConsumer}, {"refused", s.refused}, {"upgrade", s.upgrade}, {"kill", s.killWorkers},
		{"secret", s.changeSecret}, {"control-plane", s.controlPlaneNode}, {"uninstall", s.uninstall},
	} {
		if s.err == nil && (acts == "" || slices.Contains(strings.Split(acts, ","), act.name)) {
			act.play(d)
		}
	}
}

// bringImages puts on the nodes what they would pull from registries.
func (s *story) bringImages() {
	s.step("a cluster without the driver; no registry is at hand, so the images are brought to the nodes")
	for _, node := range nodes {
		s.importImage(node, builtImage)
		s.do("image of Redis", func(ctx context.Context) error {
			return s.cluster.Nodes[node].LoadImage(ctx, builtRedis, "docker.io/library/redis:7")
		})
		s.do("stand-in for nginx", func(ctx context.Context) error {
			return s.cluster.Nodes[node].LoadImage(ctx, "", "docker.io/library/nginx:1.29")
		})
		s.same("", s.onNode(node, "ls -A "+filepath.Dir(installerDir)), "FlexVolume drivers on "+node)
	}
	s.say("$ make image\nnode# ctr -n k8s.io images import image.tar\n(redis:7 is Debian's Redis, nginx:1.29 a program that sleeps)")
	s.same("", s.ask("get", "pv,sc", "-o", "name"), "PersistentVolumes and StorageClasses")
}

func (s *story) importImage(node, archive string) {
	s.do("import "+archive, func(ctx context.Context) error {
		file, err := os.Open(archive)
		if err != nil {
			return err
		}
		defer file.Close()
		return s.cluster.Nodes[node].ImportImage(ctx, file)
	})
}

// install is what the administrator does.
func (s *story) install() {
	began := time.Now()
	s.step("the administrator fills deploy/secret.yaml in and applies the overlay")
	s.kubectl("apply", "-f", "deploy/base/namespace.yaml")
	s.applySecret("")
	s.say(s.kubectl("apply", "-k", overlay))

	s.step("this control plane is no node, so no DaemonSet reaches it: there the installer is run by hand")
	s.installOnControlPlane("bin/iscsi")

	s.step("every node can attach volumes when the rollout is done")
	s.rolledOut()
	s.say(fmt.Sprintf("%.0f s after the first command", time.Since(began).Seconds()))
	s.say(s.kubectl("-n", system, "get", "pods", "-o", "wide"))
	for _, node := range nodes {
		s.installed(node, "bin/iscsi")
		s.say("installer on " + node + ":\n" + s.installerLog(node))
	}
}

// applySecret applies deploy/secret.yaml, filled in for this array, with further lines for the configuration.
func (s *story) applySecret(further string) {
	s.do("fill in deploy/secret.yaml", func(context.Context) error {
		text, err := os.ReadFile("deploy/secret.yaml")
		if err != nil {
			return err
		}
		filled := strings.NewReplacer(
			"REPLACE_ME_WITH_REAL_IP_OR_HOSTNAME", fmt.Sprintf("%s:%d", s.cluster.Lab.Array.Address(0), lab.ArrayPort),
			"username: REPLACE_ME", "username: "+lab.User,
			"password: REPLACE_ME", "password: "+lab.Password+"\n    aliases: ["+lab.ArrayAddress+"]"+further,
		).Replace(string(text))
		if strings.Contains(filled, "REPLACE_ME") {
			return errors.New("there is more to replace than this story knows")
		}
		s.say("$ kubectl apply -f secret.yaml")
		s.apply(filled)
		return nil
	})
}

// installOnControlPlane runs an installer on this host, whose root directory the cluster's folder stands for.
func (s *story) installOnControlPlane(program string) {
	s.onControlPlane(program, "install", "--control-plane", "--plugin-dir=/plugins", "--node=control-plane",
		"--cluster-id="+s.ask("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"))
}

func (s *story) onControlPlane(program string, args ...string) {
	s.do(program, func(ctx context.Context) error {
		root := s.cluster.ControlPlaneRoot()
		document, err := yaml.Marshal(s.cluster.ControlPlaneConfig())
		if err != nil {
			return err
		}
		config := filepath.Join(root, "datera-config")
		if err := os.WriteFile(config, document, 0o600); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, program, append(args, "--host-root="+root)...)
		cmd.Env = append(os.Environ(), "DATERA_CONFIG="+config)
		var output bytes.Buffer
		cmd.Stdout, cmd.Stderr = &output, &output
		err = cmd.Run()
		s.say("control-plane# iscsi " + strings.Join(args, " ") + "\n" + output.String())
		return err
	})
}

// rolledOut waits for the workloads of the overlay.
func (s *story) rolledOut() {
	for _, workload := range []string{"daemonset/datera-iscsi", "daemonset/datera-iscsi-control-plane", "deployment/datera-provisioner"} {
		s.say(lastLine(s.kubectl("-n", system, "rollout", "status", workload, "--timeout="+rolloutLimit)))
		s.checks++
	}
	s.same(installers(len(nodes), 0), s.ask(readyInstallers...), "installers that are ready")
}

// readyInstallers are kubectl's words for what installers answers.
var readyInstallers = []string{"-n", system, "get", "daemonset", "datera-iscsi", "datera-iscsi-control-plane",
	"-o", "jsonpath={range .items[*]}{.metadata.name} {.status.numberReady}/{.status.desiredNumberScheduled};{end}"}

// installers is what the two DaemonSets say when all their pods are ready.
func installers(workers, controlPlane int) string {
	return fmt.Sprintf("datera-iscsi %[1]d/%[1]d;datera-iscsi-control-plane %[2]d/%[2]d;", workers, controlPlane)
}

// installed wants a node to have an executable, a configuration that root alone can read and nothing else, and the array to
// know the node.
func (s *story) installed(node, program string) {
	content, err := os.ReadFile(program)
	s.check(err == nil, "read %s: %v", program, err)
	s.same(".datera-config 600 root\n.datera-initiators 600 root\niscsi 755 root", s.onNode(node, "cd "+installerDir+" && stat -c '%n %a %U' $(ls -A)"), "the driver's folder on "+node)
	s.same(fmt.Sprintf("%x", sha256.Sum256(content)), s.onNode(node, "sha256sum <"+installerDir+"/iscsi | cut -d ' ' -f 1"), "the executable on "+node)
	s.registered(node, true)
}

// registered wants the array to know a node, or not to.
func (s *story) registered(node string, want bool) {
	if s.err != nil {
		return
	}
	initiator, err := s.array.InitiatorByName(s.ctx, "k8s_kubernetes_"+node)
	if !want {
		s.check(datera.IsNotFound(err), "the array still has an initiator for %s (%v)", node, err)
		return
	}
	s.check(err == nil && initiator.ID == s.cluster.Nodes[node].InitiatorName(), "the array has node %s as %v (%v)", node, initiator, err)
}

// installerLog is what the installers on a node printed, without the container runtime's words.
func (s *story) installerLog(node string) string {
	return s.onNode(node, "cat $(ls -tr /var/log/pods/"+system+"_datera-iscsi-*/installer/*.log) | cut -d ' ' -f 4-")
}

// eventually waits until kubectl prints something.
func (s *story) eventually(limit time.Duration, what, want string, args ...string) {
	s.until(limit, what, func() error {
		got, err := s.cluster.Control.Kubectl(s.ctx, "", args...)
		if err == nil && got != want {
			err = fmt.Errorf("it is %q, not %q", got, want)
		}
		return err
	})
}

// killOn ends, as a crash would, the processes on a node whose words begin with some.
func (s *story) killOn(node, words string) { s.onNode(node, killScript(words)) }

// killScript fails when there is nothing to kill.
func killScript(words string) string {
	return fmt.Sprintf(`
		killed=
		for file in /proc/[0-9]*/cmdline; do
			mapfile -d '' -t words <"$file" || continue
			case "${words[*]}" in
			'%s'*) pid=${file#/proc/}; kill -9 "${pid%%/cmdline}"; killed=1 ;;
			esac
		done 2>/dev/null
		[ "$killed" ]`, words)
}
