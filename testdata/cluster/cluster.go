// Package cluster runs a Kubernetes cluster whose nodes use the driver: etcd and the control plane on loopback of this host,
// built from their Go modules, and nodes that are virtual machines with containerd and kubelet. The array is the simulator
// with a real iSCSI target, in a machine of its own.
package cluster

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"datera-flexvolume/testdata/lab"
)

// Options say what to start.
type Options struct {
	Bin    string    // folder of iscsi and datera-sim
	Build  string    // folder into which build.sh has built
	Folder string    // empty; for certificates, logs, etcd's data and the nodes' disks
	Nodes  []string  // names
	Bare   bool      // without the driver: to install it is left to the caller
	Log    io.Writer // told what is being done
}

// Cluster is a running one.
type Cluster struct {
	Control *ControlPlane
	Lab     *lab.Lab // the machines
	Nodes   map[string]*Node

	options  Options
	folder   string
	programs string // disk image
}

// Start starts a cluster and returns when its nodes are ready.
func Start(ctx context.Context, options Options) (_ *Cluster, err error) {
	for _, folder := range []*string{&options.Bin, &options.Build, &options.Folder} {
		if *folder, err = filepath.Abs(*folder); err != nil { // programs run in folders of their own
			return nil, err
		}
	}
	c := &Cluster{options: options, folder: options.Folder, programs: filepath.Join(options.Build, "programs.img"), Nodes: map[string]*Node{}}
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	if err := os.MkdirAll(c.folder, 0o700); err != nil {
		return nil, err
	}
	for _, name := range options.Nodes {
		if err := c.makeDisk(name); err != nil {
			return nil, fmt.Errorf("make the disk of %s: %w", name, err)
		}
	}
	c.say("booting the array and %d nodes", len(options.Nodes))
	c.Lab, err = lab.Start(ctx, lab.Options{Bin: options.Bin, Nodes: options.Nodes, Machine: c.machineOptions})
	if err != nil {
		return nil, err
	}
	c.say("starting etcd, kube-apiserver, kube-controller-manager and kube-scheduler")
	if err := c.startControl(ctx); err != nil {
		return nil, err
	}
	c.say("starting containerd and kubelet on the nodes")
	if err := c.startNodes(ctx); err != nil {
		return nil, err
	}
	return c, c.ready(ctx, options.Nodes...)
}

func (c *Cluster) startControl(ctx context.Context) (err error) {
	plugins := filepath.Join(c.folder, "plugins")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		return err
	}
	if !c.options.Bare {
		if err := c.installOnControlPlane(filepath.Join(plugins, pluginName)); err != nil {
			return fmt.Errorf("install the driver for kube-controller-manager: %w", err)
		}
	}
	c.Control, err = startControlPlane(ctx, c.folder, filepath.Join(c.options.Build, "bin", "kubernetes"), plugins)
	return err
}

func (c *Cluster) startNodes(ctx context.Context) error {
	var group sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for name, machine := range c.Lab.Nodes {
		group.Go(func() {
			node, err := c.startNode(ctx, machine)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
				return
			}
			c.Nodes[name] = node
		})
	}
	group.Wait()
	return failed
}

// ready waits until kubelet says that its node is.
func (c *Cluster) ready(ctx context.Context, nodes ...string) error {
	for _, node := range nodes {
		_, err := c.Control.Kubectl(ctx, "", "wait", "--for=create", "--timeout=120s", "node/"+node)
		if err != nil {
			return err
		}
		if _, err := c.Control.Kubectl(ctx, "", "wait", "--for=condition=Ready", "--timeout=180s", "node/"+node); err != nil {
			return err
		}
		c.say("node %s is ready", node)
	}
	return nil
}

// Crash cuts a node's power. Its disk keeps what was written to it.
func (c *Cluster) Crash(node string) { c.Nodes[node].Kill() }

// Boot starts a node after Crash and returns when it is ready.
func (c *Cluster) Boot(ctx context.Context, name string) error {
	machine, err := c.Lab.Boot(ctx, name)
	if err != nil {
		return err
	}
	if c.Nodes[name], err = c.startNode(ctx, machine); err != nil {
		return err
	}
	return c.ready(ctx, name)
}

// Stop ends everything that was started. The folder stays, with the logs.
func (c *Cluster) Stop() {
	if c.Control != nil {
		c.Control.stop()
	}
	if c.Lab != nil {
		c.Lab.Stop()
	}
}

func (c *Cluster) say(format string, args ...any) {
	fmt.Fprintf(c.options.Log, format+"\n", args...)
}

// ControlPlaneRoot is the folder that stands for the root directory of the control plane's host; kube-controller-manager looks
// for drivers in "plugins" there.
func (c *Cluster) ControlPlaneRoot() string { return c.folder }

// Kubeconfig is the file by which kubectl reaches the cluster as its administrator.
func (c *Cluster) Kubeconfig() string { return c.Control.config("admin") }

// CollectLogs copies the nodes' logs beside those of the control plane and returns the folder. What cannot be had is left out.
func (c *Cluster) CollectLogs(ctx context.Context) string {
	for name, node := range c.Nodes {
		for _, log := range []string{"kubelet.log", "kubelet.old.log", "containerd.log", "datera-iscsi/iscsi.log"} {
			_ = node.Get(ctx, "/var/log/"+log, filepath.Join(c.folder, name+"-"+filepath.Base(log)))
		}
	}
	return c.folder
}
