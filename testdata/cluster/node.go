package cluster

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"datera-flexvolume/testdata/lab"
	"datera-flexvolume/testdata/vm"
)

var (
	//go:embed node/prepare.sh
	prepareScript string
	//go:embed node/containerd.toml
	containerdConfig []byte
	//go:embed node/cni.conflist
	networkConfig []byte
	//go:embed node/kubelet.yaml
	kubeletConfig []byte
)

const (
	// Image is on the nodes from the beginning: busybox, which sleeps if it is told nothing else.
	Image = "localhost/busybox:1"

	nodeMemoryMiB = 1536
	nodeDiskBytes = 4 << 30 // sparse
)

// Node is a virtual machine with containerd and kubelet.
type Node struct {
	*lab.Machine
	cluster    *Cluster
	service    *vm.Process
	containerd *vm.Process
	kubelet    *vm.Process
}

// machineOptions make a lab's machine one that can become a Node: with a disk of its own and the programs.
func (c *Cluster) machineOptions(options *vm.Options) {
	options.MemoryMiB = nodeMemoryMiB
	options.Disks = []string{c.diskFile(options.Name)}
	options.Shared = []string{c.programs}
}

func (c *Cluster) diskFile(node string) string { return filepath.Join(c.folder, node+".disk") }

// makeDisk gives a node an empty disk.
func (c *Cluster) makeDisk(node string) error {
	file, err := os.Create(c.diskFile(node))
	if err != nil {
		return err
	}
	return errors.Join(file.Truncate(nodeDiskBytes), file.Close())
}

// startNode makes a booted machine a node of the cluster, up to a kubelet that runs.
func (c *Cluster) startNode(ctx context.Context, machine *lab.Machine) (*Node, error) {
	n := &Node{Machine: machine, cluster: c}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"prepare its disk", n.prepare},
		{"write its configuration", n.configure},
		{"lead pods to the API server and the array", n.join},
		{"install the driver", func(ctx context.Context) error {
			if c.options.Bare {
				return nil
			}
			return c.installDriver(ctx, n)
		}},
		{"start containerd", n.startContainerd},
		{"load the image", func(ctx context.Context) error { return n.LoadImage(ctx, "", Image) }},
		{"start kubelet", n.StartKubelet},
	} {
		if err := step.do(ctx); err != nil {
			return nil, fmt.Errorf("node %s: %s: %w", machine.Name, step.name, err)
		}
	}
	return n, nil
}

func (n *Node) prepare(ctx context.Context) error {
	_, err := n.Script(ctx, prepareScript)
	return err
}

func (n *Node) configure(ctx context.Context) error {
	control := n.cluster.Control
	user := "system:node:" + n.Name
	if err := control.authority.client(n.Name, user, "system:nodes"); err != nil {
		return err
	}
	kubeconfig, err := control.authority.kubeconfig(n.Name, "https://"+vm.HostAddress+":"+control.ports["api"])
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(control.pki("ca.crt"))
	if err != nil {
		return err
	}
	for file, content := range map[string][]byte{
		"/etc/containerd/config.toml": containerdConfig,
		"/etc/cni/net.d/10.conflist":  bytes.ReplaceAll(networkConfig, []byte("10.244.0.0/24"), []byte(n.podNetwork())),
		"/etc/kubernetes/kubelet":     kubeletConfig,
		"/etc/kubernetes/kubeconfig":  kubeconfig,
		"/etc/kubernetes/ca.crt":      ca,
	} {
		if err := n.Write(ctx, file, bytes.NewReader(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// join stands in for what kube-proxy and a pod network do: pods reach the Service of the API server, and the array knows the
// way back to them.
func (n *Node) join(ctx context.Context) (err error) {
	const service = "10.96.0.1"
	if _, err := n.Script(ctx, "ip address add "+service+"/32 dev lo"); err != nil {
		return err
	}
	if n.service, err = n.daemon(ctx, "service", "service "+service+":443 "+vm.HostAddress+":"+n.cluster.Control.ports["api"]); err != nil {
		return err
	}
	result, err := n.cluster.Lab.Array.Run(ctx, "ip", "route", "replace", n.podNetwork(), "via", n.Address(0))
	if err == nil && result.Exit != 0 {
		err = fmt.Errorf("route on the array to the pods of %s: %s", n.Name, result.Stderr)
	}
	return err
}

func (n *Node) podNetwork() string { return "10.244." + lastByte(n.Address(0)) + ".0/24" }

func (n *Node) startContainerd(ctx context.Context) (err error) {
	if n.containerd, err = n.daemon(ctx, "containerd", "containerd"); err != nil {
		return err
	}
	return Poll(ctx, func() error {
		_, err := n.Script(ctx, "ctr version")
		return err
	})
}

// LoadImage makes an image of busybox and, unless it is "", the files of a folder, and gives it names.
func (n *Node) LoadImage(ctx context.Context, folder string, names ...string) error {
	var busybox bytes.Buffer
	if err := n.Read(ctx, "/bin/busybox", &busybox); err != nil {
		return err
	}
	archive, err := imageArchive(names, busybox.Bytes(), folder)
	if err != nil {
		return err
	}
	return n.ImportImage(ctx, bytes.NewReader(archive))
}

// ImportImage takes an image as `docker save` writes it: what a node without a registry does.
func (n *Node) ImportImage(ctx context.Context, archive io.Reader) error {
	if err := n.Write(ctx, "/run/image.tar", archive, 0o600); err != nil {
		return err
	}
	_, err := n.Script(ctx, "ctr -n k8s.io images import /run/image.tar && rm /run/image.tar")
	return err
}

// StartKubelet starts kubelet, as at boot and after StopKubelet or KillKubelet.
func (n *Node) StartKubelet(ctx context.Context) (err error) {
	n.kubelet, err = n.daemon(ctx, "kubelet", "kubernetes kubelet --config=/etc/kubernetes/kubelet --kubeconfig=/etc/kubernetes/kubeconfig"+
		" --hostname-override="+n.Name+" --node-ip="+n.Address(0)+" -v=3")
	return err
}

// KillKubelet ends kubelet as a crash would.
func (n *Node) KillKubelet() error {
	if err := n.kubelet.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	return n.KubeletEnded()
}

// KubeletEnded waits until a kubelet that was killed on the node has ended.
func (n *Node) KubeletEnded() error {
	_, err := n.kubelet.Wait()
	return err
}

// daemon starts a program that runs until the machine ends; its output goes to /var/log/NAME.log
// there, that of the one before is in NAME.old.log, its process number in /run/NAME.pid.
func (n *Node) daemon(ctx context.Context, name, command string) (*vm.Process, error) {
	return n.Spawn(context.WithoutCancel(ctx), vm.Command{
		Args: []string{"bash", "-c", `cd /var/log && touch $1.log && mv $1.log $1.old.log && echo $$ >/run/$1.pid && exec $2 >$1.log 2>&1`, "-", name, command},
		Env:  []string{path},
	})
}

const path = "PATH=/opt/cluster:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/busybox"

// Script runs a bash script on the node and returns what it printed; it ends at the first command that fails.
func (n *Node) Script(ctx context.Context, script string) (string, error) {
	var stdout, stderr bytes.Buffer
	exit, err := n.Exec(ctx, vm.Command{
		Args: []string{"bash", "-c", "set -e -o pipefail\n" + script}, Env: []string{path}, Stdout: &stdout, Stderr: &stderr,
	})
	if err == nil && exit != 0 {
		err = &ScriptError{Node: n.Name, Script: script, Exit: exit, Output: strings.TrimSpace(stdout.String() + stderr.String())}
	}
	return strings.TrimSpace(stdout.String()), err
}

// ScriptError is a script that failed on a node.
type ScriptError struct {
	Node, Script string
	Exit         int
	Output       string
}

func (e *ScriptError) Error() string {
	return fmt.Sprintf("%q on %s: exit status %d: %s", e.Script, e.Node, e.Exit, e.Output)
}

// lastByte is the number of the machine on its networks.
func lastByte(address string) string { return address[strings.LastIndexByte(address, '.')+1:] }
