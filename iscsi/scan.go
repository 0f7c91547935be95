package iscsi

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
)

// Scan gives the device of the target's LUN by the sessions that are live. It never logs in: a session that ended since
// Login is ErrNoSession. It starts no program, but where multipathd's map of a stale disk must go.
//
// One portal that gives the right disk is enough. When none does, the error tells each portal's reason (errors.Is:
// ErrNoSession, ErrWrongSerial, ErrInUse); the sessions stay, for Detach.
func (i *Initiator) Scan(ctx context.Context, t Target) (Device, error) {
	if err := t.validateLogin(CHAP{}); err != nil {
		return Device{}, err
	}
	var device Device
	err := i.onPortals(ctx, "scan", t, func(patient context.Context, w *way) error {
		switch s, found, err := i.sessionAt(t.IQN, w.portal); {
		case err != nil:
			return err
		case !found:
			return ErrNoSession
		case !s.live():
			return fmt.Errorf("%w: %s", ErrNoSession, s)
		default:
			return i.bringDisk(patient, t, s)
		}
	}, func() (err error) {
		device, err = i.settle(ctx, t)
		return err
	})
	return device, err
}

// bringDisk makes a live session show the LUN's disk. A stale one, which the LUN had before, is removed once. What the scan
// brings instead does not stay either: no Detach would take it for the volume's, and log out.
func (i *Initiator) bringDisk(ctx context.Context, t Target, s session) error {
	for last := false; ; last = true {
		err := i.waitForDisk(ctx, t, s)
		stale, ok := errors.AsType[*staleError](err)
		if !ok {
			return err
		}
		i.log.WarnContext(ctx, "stale SCSI device", "target", t.IQN, "device", stale.disk.name, "error", err)
		if err := i.removeStale(ctx, stale.disk); err != nil {
			return several{stale, err}
		}
		if last {
			return stale
		}
	}
}

// staleError is a disk that is not, or not any more, what its LUN should be.
type staleError struct {
	disk disk
	err  error
}

func (e *staleError) Error() string { return e.disk.String() + " is " + e.err.Error() }
func (e *staleError) Unwrap() error { return e.err }

// waitForDisk scans for the LUN where it is not there yet, and waits until its disk takes I/O.
func (i *Initiator) waitForDisk(ctx context.Context, t Target, s session) error {
	limit, cancel := context.WithTimeout(ctx, i.opt.DiskTimeout)
	defer cancel()
	missing := fmt.Errorf("the target did not answer the scan for the LUN within %s; look at the array and the network", i.opt.DiskTimeout)
	_, err := poll(limit, func() (bool, bool, error) {
		d, found := s.diskAt(t)
		if !found {
			if err := i.scanLUN(limit, t, s); err != nil {
				return false, false, err
			}
			missing = errors.New("the target shows no such LUN; is the volume online and mapped to this node?")
			return false, false, nil
		}
		err := d.check(t.Serial)
		if stale, ok := errors.AsType[*staleError](err); ok {
			return false, false, stale
		}
		missing = err
		return true, err == nil, nil
	})
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return err
	}
	if d, found := s.diskAt(t); found && d.isUnserved() {
		if err := i.remove(ctx, d); err != nil { // so that the next call's scan asks the target anew
			return several{missing, err}
		}
	}
	return missing
}

// check tells whether a SCSI device is a disk with that serial number and takes I/O: a *staleError when it never will.
func (d disk) check(serial string) error {
	if d.name == "" {
		return fmt.Errorf("SCSI device %s has no disk: the target knows the LUN and does not serve it; is the volume online and mapped to this node?", d)
	}
	switch found, err := d.serial(); {
	case err != nil:
		return &staleError{d, fmt.Errorf("without a serial number: %w", err)}
	case found != serial:
		return &staleError{d, fmt.Errorf("%w: serial number %q, expected %q", ErrWrongSerial, found, serial)}
	}
	switch state := d.state(); state {
	case "running":
		return nil
	case "offline":
		return &staleError{d, errors.New("offline: the kernel gave it up")}
	default:
		return fmt.Errorf("%s is %s and takes no I/O: look at dmesg and the network to the portal", d, state)
	}
}

// removeStale removes a disk that is not what its LUN is now, unless it is somebody's.
func (i *Initiator) removeStale(ctx context.Context, d disk) error {
	mapped := i.mapOf(d.name)
	if err := i.checkLUNUnused(ctx, []disk{d}, mapped); err != nil {
		return err
	}
	if mapped != "" {
		if err := i.flushMap(ctx, mapped); err != nil {
			return err
		}
	}
	return i.remove(ctx, d)
}

// diskAt is the session's SCSI device at the target's LUN.
func (s session) diskAt(t Target) (disk, bool) {
	for _, d := range s.disks() {
		if slices.Contains(t.kernelLUNs(), d.lun) && !d.isPlaceholder() {
			return d, true
		}
	}
	return disk{}, false
}

// scanLUN asks the target for this one LUN (Documentation/scsi/scsi_transport: "channel target lun").
func (i *Initiator) scanLUN(ctx context.Context, t Target, s session) error {
	path := filepath.Join(i.opt.SysRoot, "class", "scsi_host", "host"+strconv.Itoa(s.host), "scan")
	for _, lun := range t.kernelLUNs() {
		address := fmt.Sprintf("0 %d %d", s.targetID, lun)
		if err := bounded(ctx, func() error { return i.scan(path, address) }); err != nil {
			return fmt.Errorf("scan LUN %d by %s: %w", t.LUN, s, err)
		}
	}
	return nil
}
