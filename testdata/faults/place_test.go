package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"datera-flexvolume/driver"
	"datera-flexvolume/testdata/faults/trace"
	"datera-flexvolume/testdata/lab"
	"datera-flexvolume/testdata/vm"
)

const (
	tracer = "/usr/local/bin/tracer"
	binary = lab.PluginDir + "/iscsi"
	logDir = "/var/log/datera-iscsi"
	// mkfsLog has a line for each mkfs that made a file system.
	mkfsLog = "/run/mkfs.log"
	gib     = 1 << 30
)

// place is an array, which also stands for the control plane, and two nodes.
type place struct {
	lab     *lab.Lab
	control *lab.Machine
	nodes   map[string]*lab.Machine
	mode    driver.AttachMode // that they are configured for
}

const nodeA, nodeB = "node-a", "node-b"

// newPlace boots the machines.
func newPlace(ctx context.Context, bin, tracerBinary string) (_ *place, err error) {
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	l, err := lab.Start(ctx, lab.Options{Bin: bin, Nodes: []string{nodeA, nodeB}})
	if err != nil {
		return nil, fmt.Errorf("start the machines: %w", err)
	}
	p := &place{lab: l, control: l.Array, nodes: l.Nodes}
	if err := p.prepare(ctx, tracerBinary); err != nil {
		p.stop()
		return nil, fmt.Errorf("prepare the machines: %w", err)
	}
	return p, nil
}

const bootTime = 5 * time.Minute

func (p *place) stop() {
	if p != nil {
		p.lab.Stop()
	}
}

func (p *place) prepare(ctx context.Context, tracerBinary string) error {
	for _, m := range p.machines() {
		if err := m.Put(ctx, tracerBinary, tracer, 0o755); err != nil {
			return err
		}
	}
	for name, m := range p.nodes {
		// Comes before the real one in $PATH.
		script := "#!/bin/bash\n/sbin/mkfs.xfs \"$@\"\ncode=$?\n[ $code = 0 ] && echo \"$*\" >>" + mkfsLog + "\nexit $code\n"
		if err := m.Write(ctx, "/usr/local/sbin/mkfs.xfs", strings.NewReader(script), 0o755); err != nil {
			return err
		}
		if _, err := shell(ctx, m, binary+" register "+name); err != nil {
			return err
		}
	}
	return nil
}

// buildTracer builds the tracer for the machines.
func buildTracer(dir string) (string, error) {
	path := filepath.Join(dir, "tracer")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "./tracer")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the tracer: %w: %s", err, output)
	}
	return path, nil
}

func (p *place) machines() []*lab.Machine {
	return []*lab.Machine{p.control, p.nodes[nodeA], p.nodes[nodeB]}
}

func (p *place) configure(ctx context.Context, mode driver.AttachMode) error {
	if p.mode == mode {
		return nil
	}
	for _, m := range p.machines() {
		// A fenced node's I/O is to fail soon: the walk waits for it often.
		if err := m.Configure(ctx, func(c *driver.Config) { c.Attach, c.ReplacementTimeout = mode, 2 }); err != nil {
			return err
		}
	}
	p.mode = mode
	return nil
}

// shell runs a script that must succeed.
func shell(ctx context.Context, m *lab.Machine, script string) (string, error) {
	result, err := m.Shell(ctx, script)
	if err != nil {
		return "", err
	}
	if result.Exit != 0 {
		return "", fmt.Errorf("%s: exit status %d of %s: %s%s", m.Name, result.Exit, script, result.Stdout, result.Stderr)
	}
	return strings.TrimSpace(string(result.Stdout)), nil
}

// outcome is what became of a call.
type outcome struct {
	reply  driver.Reply
	report trace.Report
	took   time.Duration
	wrong  string // how it broke the protocol
}

// call runs the driver, traced if there is a fault. While a step is held, meanwhile runs.
func call(ctx context.Context, m *lab.Machine, f trace.Fault, meanwhile func(), args ...string) (outcome, error) {
	begin := time.Now()
	report, err := run(ctx, m, f, meanwhile, append([]string{binary}, args...))
	o := outcome{report: report, took: time.Since(begin)}
	if err != nil || report.Killed {
		return o, err
	}
	line, isLine := strings.CutSuffix(report.Stdout, "\n")
	switch err := json.Unmarshal([]byte(line), &o.reply); {
	case report.Exit != 0 || report.Stderr != "" || !isLine || strings.Contains(line, "\n"):
		o.wrong = fmt.Sprintf("exit status %d, stdout %q, stderr %q", report.Exit, report.Stdout, report.Stderr)
	case err != nil:
		o.wrong = fmt.Sprintf("%q: %v", line, err)
	}
	return o, nil
}

// longestHold ends a hold that nobody releases: a rival may wait for the lock of the very call that is held.
const longestHold = 20 * time.Second

func run(ctx context.Context, m *lab.Machine, f trace.Fault, meanwhile func(), args []string) (trace.Report, error) {
	if f.At == 0 {
		result, err := m.Run(ctx, args...)
		return trace.Report{Exit: result.Exit, Stdout: string(result.Stdout), Stderr: string(result.Stderr)}, err
	}
	command := append([]string{tracer, "-at", fmt.Sprint(f.At), "-do", string(f.Do), "-for", longestHold.String(), "-ignore", logDir, "--"}, args...)
	stdout, stderr := &heldWriter{held: make(chan struct{})}, &bytes.Buffer{}
	process, err := m.Spawn(ctx, vm.Command{Args: command, Stdout: stdout, Stderr: stderr})
	if err != nil {
		return trace.Report{}, err
	}
	ended := make(chan struct{})
	var exit int
	go func() {
		exit, err = process.Wait()
		close(ended)
	}()
	select {
	case <-stdout.held:
		meanwhile()
		_ = process.Signal(syscall.SIGUSR1)
	case <-ended:
	}
	<-ended
	if err != nil {
		return trace.Report{}, err
	}
	var report trace.Report
	line := strings.TrimPrefix(stdout.text(), "held\n")
	if err := json.Unmarshal([]byte(line), &report); err != nil || exit != 0 {
		return report, fmt.Errorf("tracer on %s: exit status %d, %q, %s: %w", m.Name, exit, line, stderr, errors.Join(err))
	}
	return report, nil
}

// heldWriter collects what the tracer says, and notices when it holds a step.
type heldWriter struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
	held   chan struct{}
	known  bool
}

func (w *heldWriter) Write(p []byte) (int, error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.buffer.Write(p)
	if !w.known && bytes.HasPrefix(w.buffer.Bytes(), []byte("held\n")) {
		w.known = true
		close(w.held)
	}
	return len(p), nil
}

func (w *heldWriter) text() string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.buffer.String()
}
