// Package iscsi is the initiator side of an iSCSI block volume: it logs in to a target, finds the SCSI disk by its
// serial number, follows its growth, and removes the disk and its sessions again.
//
// What there is, is read from sysfs, the kernel's own truth; programs (iscsiadm, multipath) are started only to change
// something. So a call that finds its work done starts none, and no call costs more programs on a busy machine.
package iscsi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Runner starts one program, waits for it to end and returns all it wrote (stdout and stderr together).
//
// The error of a program that ended badly unwraps to a value with ExitCode() int; that of one that was stopped because
// ctx was done unwraps to the context's error.
type Runner interface {
	Run(ctx context.Context, program string, args ...string) ([]byte, error)
}

// Options says where things are and how long they may take. The zero value is right for a usual Linux system.
type Options struct {
	SysRoot  string // "/sys"
	ProcRoot string // "/proc"
	DevRoot  string // "/dev"
	EtcRoot  string // "/etc"
	RunRoot  string // "/run"
	VarRoot  string // "/var"
	LockDir  string // RunRoot + "/lock/datera-iscsi": one lock file per target

	// ReplacementTimeout is how long the kernel holds the I/O of a lost session back before it fails it; whole
	// seconds, 120 s unless set. multipathd, where it runs, sets its own.
	ReplacementTimeout time.Duration
	LoginTimeout       time.Duration // of one try to log in; whole seconds, 10 s unless set
	LoginRetries       int           // tries that iscsid makes before it gives up; 2 unless set
	JoinGrace          time.Duration // how late other portals may be once one has brought the disk; 2 s unless set
	DiskTimeout        time.Duration // from the login until the LUN's disk is there; it takes the kernel milliseconds; 3 s unless set
	MapTimeout         time.Duration // how long multipathd has to make its map of a new disk; 5 s unless set

	Logger *slog.Logger // none unless set
}

// Initiator attaches and detaches targets on this machine. It has no state of its own: any number of them, in any
// number of processes, may work at the same time, on the same target, too. Only that nobody detaches a LUN which
// another has just attached is up to the callers.
type Initiator struct {
	run Runner
	opt Options
	log *slog.Logger
	kernel
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// New returns an Initiator that starts its programs by run.
func New(run Runner, opts Options) *Initiator {
	setDefault(&opts.SysRoot, "/sys")
	setDefault(&opts.ProcRoot, "/proc")
	setDefault(&opts.DevRoot, "/dev")
	setDefault(&opts.EtcRoot, "/etc")
	setDefault(&opts.RunRoot, "/run")
	setDefault(&opts.VarRoot, "/var")
	setDefault(&opts.LockDir, filepath.Join(opts.RunRoot, "lock", "datera-iscsi"))
	setDefault(&opts.ReplacementTimeout, 120*time.Second)
	setDefault(&opts.LoginTimeout, 10*time.Second)
	setDefault(&opts.LoginRetries, 2)
	setDefault(&opts.JoinGrace, 2*time.Second)
	setDefault(&opts.DiskTimeout, 3*time.Second)
	setDefault(&opts.MapTimeout, 5*time.Second)
	setDefault(&opts.Logger, slog.New(slog.DiscardHandler))
	return &Initiator{run: run, opt: opts, log: opts.Logger, kernel: realKernel(), dial: new(net.Dialer).DialContext}
}

func setDefault[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}

// Name returns this machine's initiator name, which is what a target's access list knows it by.
func (i *Initiator) Name() (string, error) {
	path := filepath.Join(i.opt.EtcRoot, "iscsi", "initiatorname.iscsi")
	content, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("this machine has no iSCSI initiator name: %s does not exist: install open-iscsi (iscsi-initiator-utils)", path)
	case err != nil:
		return "", fmt.Errorf("read this machine's initiator name: %w", err)
	}
	name, err := parseInitiatorName(string(content))
	if err != nil {
		return "", fmt.Errorf("initiator name in %s: %w", path, err)
	}
	return name, nil
}

// parseInitiatorName reads initiatorname.iscsi as iscsid does: one InitiatorName=… line; # starts a comment.
func parseInitiatorName(content string) (string, error) {
	var names []string
	generate := false
	for line := range strings.Lines(content) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		switch strings.TrimSpace(key) {
		case "InitiatorName":
			names = append(names, strings.TrimSpace(value))
		case "GenerateName":
			generate = strings.EqualFold(strings.TrimSpace(value), "yes")
		}
	}
	switch {
	case len(names) == 0 && generate:
		return "", errors.New("GenerateName=yes: the name is made when iscsid first starts; start it (systemctl start iscsid)")
	case len(names) == 0:
		return "", errors.New(`no InitiatorName= line; write one: echo "InitiatorName=$(iscsi-iname)"`)
	case len(names) > 1:
		return "", fmt.Errorf("%d InitiatorName= lines, %s; keep one", len(names), strings.Join(names, ", "))
	}
	if err := validateName(names[0]); err != nil {
		return "", err
	}
	return names[0], nil
}
