// Package lab is a small data centre of virtual machines: an array, which is the simulator
// with a real iSCSI target, and nodes with the driver where kubelet looks for it.
package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"datera-flexvolume/driver"
	"datera-flexvolume/testdata/vm"
)

const (
	// ArrayAddress is the array's management address; the machines know its name.
	ArrayAddress = arrayName + ":7717"
	// ArrayPort is its port, which the host reaches at Array.Forwarded(ArrayPort).
	ArrayPort = 7717
	arrayName = "tlx170.tlx.daterainc.com"
	arrayIP   = "10.9.0.1"
	// User and Password are the array's.
	User, Password = "admin", "password"
	// PluginDir is where kubelet looks for the driver.
	PluginDir = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/datera~iscsi"

	// arrayMemoryMiB holds what is written to the volumes, too.
	arrayMemoryMiB = 3072

	simulator = "/usr/local/bin/datera-sim"
	stateDir  = "/srv/datera"
)

// Options say what to start.
type Options struct {
	Bin    string   // folder of iscsi and datera-sim
	Nodes  []string // names
	Target string   // of the simulator: lio or tgt
	Log    io.Writer

	// Machine, if not nil, changes what a node's machine is like.
	Machine func(*vm.Options)
}

// Lab is a running one.
type Lab struct {
	Array *Machine // also stands for the control plane
	Nodes map[string]*Machine

	options   Options
	network   *vm.Network
	simulator *vm.Process
}

// Start boots the machines and starts the array.
func Start(ctx context.Context, options Options) (_ *Lab, err error) {
	if options.Target == "" {
		options.Target = "lio"
	}
	l := &Lab{Nodes: map[string]*Machine{}, options: options, network: vm.NewNetwork()}
	defer func() {
		if err != nil {
			l.Stop()
		}
	}()
	names := append([]string{"array"}, options.Nodes...)
	machines := make([]*Machine, len(names))
	errs := make([]error, len(names))
	var group sync.WaitGroup
	for i, name := range names {
		group.Go(func() {
			machines[i], errs[i] = l.boot(ctx, name, i+1)
		})
	}
	group.Wait()
	for i, machine := range machines {
		if machine == nil {
			continue
		}
		if i == 0 {
			l.Array = machine
		} else {
			l.Nodes[machine.Name] = machine
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return l, l.StartArray(ctx)
}

// Boot boots a node again after its machine was killed.
func (l *Lab) Boot(ctx context.Context, node string) (*Machine, error) {
	machine, err := l.boot(ctx, node, 2+slices.Index(l.options.Nodes, node))
	if err != nil {
		return nil, err
	}
	l.Nodes[node] = machine
	return machine, nil
}

// boot boots the machine that has a number on the network; the array is number 1.
func (l *Lab) boot(ctx context.Context, name string, index int) (*Machine, error) {
	machine := vm.Options{Name: name, Network: l.network, Index: index, Log: io.Discard}
	switch {
	case index == 1:
		machine.MemoryMiB, machine.Ports = arrayMemoryMiB, []int{ArrayPort}
	case l.options.Machine != nil:
		l.options.Machine(&machine)
	}
	booted, err := vm.Start(ctx, machine)
	if err != nil {
		return nil, err
	}
	m := &Machine{Machine: booted, Name: machine.Name}
	if err := m.Put(ctx, filepath.Join(l.options.Bin, "iscsi"), PluginDir+"/iscsi", 0o755); err != nil {
		return m, err
	}
	hosts := fmt.Sprintf("127.0.0.1 localhost %s\n%s %s\n", machine.Name, arrayIP, arrayName)
	if err := m.Write(ctx, "/etc/hosts", strings.NewReader(hosts), 0o644); err != nil {
		return m, err
	}
	return m, m.Configure(ctx, nil)
}

// StartArray starts the simulator, with further flags, and waits until it answers.
func (l *Lab) StartArray(ctx context.Context, flags ...string) error {
	if err := l.Array.Put(ctx, filepath.Join(l.options.Bin, "datera-sim"), simulator, 0o755); err != nil {
		return err
	}
	args := append([]string{simulator, "--listen", "0.0.0.0:7717", "--target", l.options.Target, "--state", stateDir,
		"--user", User, "--password", Password, "--portal", "10.9.0.1", "--portal", "10.9.1.1"}, flags...)
	var output bytes.Buffer
	process, err := l.Array.Spawn(context.WithoutCancel(ctx), vm.Command{Args: args, Stdout: &output, Stderr: &output})
	if err != nil {
		return err
	}
	l.simulator = process
	result, err := l.Array.Shell(ctx, `for i in {1..300}; do (exec 3<>/dev/tcp/10.9.0.1/7717) 2>/dev/null && exit 0; sleep 0.1; done; exit 1`)
	if err != nil {
		return err
	}
	if result.Exit != 0 {
		return fmt.Errorf("the simulator does not answer: %s", output.String())
	}
	return nil
}

// Stop switches everything off.
func (l *Lab) Stop() {
	for _, machine := range l.machines() {
		machine.Kill()
	}
}

func (l *Lab) machines() []*Machine {
	var all []*Machine
	if l.Array != nil {
		all = append(all, l.Array)
	}
	for _, node := range l.Nodes {
		all = append(all, node)
	}
	return all
}

// Machine is one of the lab's machines.
type Machine struct {
	*vm.Machine
	Name string
}

// Configure writes the driver's configuration, changed as told.
func (m *Machine) Configure(ctx context.Context, change func(*driver.Config)) error {
	config := driver.Config{
		ManagementIP: ArrayAddress, Username: User, Password: Password,
		Attach: driver.AttachController, Cluster: "kubernetes", ClusterID: "lab",
		Tenant: "/root", APIVersion: "2.2", StateDir: "/var/lib/datera-iscsi", RunDir: "/run/datera-iscsi",
		Log: driver.LogConfig{Path: logPath, Level: "debug", MaxSizeMiB: 10, MaxBackups: 5},
	}
	if change != nil {
		change(&config)
	}
	document, err := json.Marshal(config)
	if err != nil {
		return err
	}
	return m.Write(ctx, PluginDir+"/.datera-config", bytes.NewReader(document), 0o600)
}

const logPath = "/var/log/datera-iscsi/iscsi.log"

// A Call is one run of the driver, as kubelet sees it.
type Call struct {
	Args     []string
	Reply    driver.Reply
	Line     string // the reply as it was printed
	Took     time.Duration
	Programs int // external programs started
	Requests int // REST calls made
}

// Call runs the driver as kubelet does, and holds it to the protocol: exit status 0, one
// line of JSON on stdout, nothing on stderr.
func (m *Machine) Call(ctx context.Context, args ...string) (Call, error) {
	begin := time.Now()
	result, err := m.Run(ctx, append([]string{PluginDir + "/iscsi"}, args...)...)
	call := Call{Args: args, Line: strings.TrimSuffix(string(result.Stdout), "\n"), Took: time.Since(begin)}
	if err != nil {
		return call, err
	}
	if result.Exit != 0 || len(result.Stderr) > 0 || strings.Contains(call.Line, "\n") {
		return call, fmt.Errorf("%s on %s: exit status %d, stdout %q, stderr %q", args[0], m.Name, result.Exit, result.Stdout, result.Stderr)
	}
	if err := json.Unmarshal([]byte(call.Line), &call.Reply); err != nil {
		return call, fmt.Errorf("%s on %s: %q: %w", args[0], m.Name, call.Line, err)
	}
	if args[0] == "init" {
		return call, nil // does nothing else, and is not in the log
	}
	return call, m.count(ctx, &call)
}

// count reads from the driver's log what the last call did.
func (m *Machine) count(ctx context.Context, call *Call) error {
	result, err := m.Run(ctx, "tail", "-n", "1", logPath)
	if err != nil {
		return err
	}
	var line struct{ Programs, Requests int }
	if err := json.Unmarshal(result.Stdout, &line); err != nil {
		return fmt.Errorf("the driver's log on %s ends with %q: %w", m.Name, result.Stdout, err)
	}
	call.Programs, call.Requests = line.Programs, line.Requests
	return nil
}
