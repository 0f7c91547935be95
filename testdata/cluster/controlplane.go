package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"datera-flexvolume/testdata/vm"
)

// ControlPlane is etcd, kube-apiserver, kube-controller-manager and kube-scheduler on loopback of this host.
type ControlPlane struct {
	folder    string // certificates, logs, etcd's data
	binary    string // testdata/cluster/kubernetes, built
	plugins   string // where kube-controller-manager looks for FlexVolume drivers
	address   string // of the API server
	ports     map[string]string
	authority *authority
	processes []*process
	manager   *process // kube-controller-manager, which can be restarted
}

// startControlPlane starts one with an empty etcd and returns when all its parts say that they are healthy.
func startControlPlane(ctx context.Context, folder, binary, plugins string) (_ *ControlPlane, err error) {
	c := &ControlPlane{folder: folder, binary: binary, plugins: plugins, ports: map[string]string{}}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	if err := c.choosePorts("api", "etcd", "peer", "manager", "scheduler"); err != nil {
		return nil, err
	}
	c.address = "127.0.0.1:" + c.ports["api"]
	if err := c.certify(); err != nil {
		return nil, fmt.Errorf("make certificates: %w", err)
	}
	for _, start := range []func(context.Context) error{c.startEtcd, c.startAPIServer, c.startManager, c.startScheduler} {
		if err := start(ctx); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *ControlPlane) choosePorts(names ...string) error {
	for _, name := range names {
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer listener.Close() // after all are chosen, so that none is chosen twice
		_, c.ports[name], _ = net.SplitHostPort(listener.Addr().String())
	}
	return nil
}

func (c *ControlPlane) certify() (err error) {
	if c.authority, err = newAuthority(filepath.Join(c.folder, "pki")); err != nil {
		return err
	}
	if err := c.authority.server("kube-apiserver", "127.0.0.1", vm.HostAddress, "10.96.0.1"); err != nil {
		return err
	}
	if err := c.authority.client("admin", "admin", "system:masters"); err != nil {
		return err
	}
	for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
		if err := c.authority.client(name, "system:"+name); err != nil {
			return err
		}
	}
	for _, name := range []string{"admin", "kube-controller-manager", "kube-scheduler"} {
		config, err := c.authority.kubeconfig(name, "https://"+c.address)
		if err != nil {
			return err
		}
		if err := os.WriteFile(c.config(name), config, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// config is the kubeconfig of a user.
func (c *ControlPlane) config(name string) string {
	return filepath.Join(c.folder, name+".kubeconfig")
}

func (c *ControlPlane) pki(file string) string { return filepath.Join(c.folder, "pki", file) }

func (c *ControlPlane) startEtcd(ctx context.Context) error {
	client, peer := "http://127.0.0.1:"+c.ports["etcd"], "http://127.0.0.1:"+c.ports["peer"]
	_, err := c.start(ctx, "etcd", client+"/health", "--name=etcd", "--data-dir="+filepath.Join(c.folder, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls="+client, "--advertise-client-urls="+client, "--listen-peer-urls="+peer,
		"--initial-advertise-peer-urls="+peer, "--initial-cluster=etcd="+peer, "--log-level=warn")
	return err
}

func (c *ControlPlane) startAPIServer(ctx context.Context) error {
	_, err := c.start(ctx, "kube-apiserver", "https://"+c.address+"/readyz", "--etcd-servers=http://127.0.0.1:"+c.ports["etcd"],
		"--bind-address=127.0.0.1", "--secure-port="+c.ports["api"], "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
		"--tls-cert-file="+c.pki("kube-apiserver.crt"), "--tls-private-key-file="+c.pki("kube-apiserver.key"),
		"--client-ca-file="+c.pki("ca.crt"), "--authorization-mode=Node,RBAC", "--service-cluster-ip-range=10.96.0.0/16",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-signing-key-file="+c.pki("ca.key"),
		"--service-account-key-file="+c.pki("ca.crt"), "--allow-privileged=true", "--profiling=false")
	return err
}

func (c *ControlPlane) startManager(ctx context.Context) (err error) {
	c.manager, err = c.start(ctx, "kube-controller-manager", "https://127.0.0.1:"+c.ports["manager"]+"/healthz",
		"--kubeconfig="+c.config("kube-controller-manager"), "--leader-elect=false",
		"--bind-address=127.0.0.1", "--secure-port="+c.ports["manager"], "--service-account-private-key-file="+c.pki("ca.key"),
		"--root-ca-file="+c.pki("ca.crt"), "--use-service-account-credentials=true", "--flex-volume-plugin-dir="+c.plugins,
		// Quicker than the defaults: nobody wants to wait for a node to be found dead.
		"--node-monitor-grace-period=20s", "--pvclaimbinder-sync-period=2s", "--kube-api-qps=100", "--kube-api-burst=200",
		"--profiling=false", "-v=2")
	return err
}

func (c *ControlPlane) startScheduler(ctx context.Context) error {
	_, err := c.start(ctx, "kube-scheduler", "https://127.0.0.1:"+c.ports["scheduler"]+"/healthz",
		"--kubeconfig="+c.config("kube-scheduler"), "--leader-elect=false",
		"--bind-address=127.0.0.1", "--secure-port="+c.ports["scheduler"], "--profiling=false")
	return err
}

// start starts a program of the control plane and waits until its health URL answers with 200.
func (c *ControlPlane) start(ctx context.Context, name, health string, flags ...string) (*process, error) {
	p, err := launch(c.folder, name, append([]string{c.binary, name}, flags...)...)
	if err != nil {
		return nil, err
	}
	c.processes = append(c.processes, p)
	client := http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, // health on our own loopback
	}}
	return p, p.await(ctx, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, health, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", health, response.Status)
		}
		return nil
	})
}

// KillManager ends kube-controller-manager as a crash would; StartManager starts it again.
func (c *ControlPlane) KillManager() { c.manager.kill() }

// ManagerRuns tells whether kube-controller-manager runs a call of the driver right now.
func (c *ControlPlane) ManagerRuns(verb string) (bool, error) {
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	want := filepath.Join(c.plugins, pluginName, "iscsi") + "\x00" + verb + "\x00"
	for _, file := range commands {
		command, _ := os.ReadFile(file) // of a process that may have ended
		if strings.HasPrefix(string(command), want) {
			return true, nil
		}
	}
	return false, err
}

// StartManager starts kube-controller-manager after KillManager and returns when it is healthy.
func (c *ControlPlane) StartManager(ctx context.Context) error { return c.startManager(ctx) }

// stop ends all parts, last first.
func (c *ControlPlane) stop() {
	for i := len(c.processes) - 1; i >= 0; i-- {
		c.processes[i].stop()
	}
}

// Kubectl runs kubectl as the cluster's administrator and returns what it printed. A non-empty input is its standard input.
func (c *ControlPlane) Kubectl(ctx context.Context, input string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.binary, append([]string{"kubectl", "--kubeconfig=" + c.config("admin")}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}
