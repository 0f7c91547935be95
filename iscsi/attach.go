package iscsi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// undoLimit is for taking back what a failed call made. It may be on its way out by a signal, after which a caller has
// seldom more than some seconds.
const undoLimit = 4 * time.Second

// Attach logs in to the target's portals and gives its LUN's device. It finds out first what is there already, and
// starts programs only for the rest: three for each portal without a session.
//
// One portal that gives the right disk is enough; others that are dead are left to the next call. When none does, the
// error tells each portal's reason (errors.Is: ErrRefused, ErrUnreachable, ErrWrongSerial, ErrInUse, ErrNoDaemon), and
// sessions and records that the call made are taken back.
func (i *Initiator) Attach(ctx context.Context, t Target, chap CHAP) (Device, error) {
	if err := t.validate(); err != nil {
		return Device{}, err
	}
	if err := chap.validate(); err != nil {
		return Device{}, fmt.Errorf("target %s: %w", t.IQN, err)
	}
	if len(t.Portals) == 0 {
		return Device{}, fmt.Errorf("target %s has no portal to log in to", t.IQN)
	}
	if device, done, err := i.attached(t); err != nil {
		return Device{}, fmt.Errorf("attach %s: %w", t, err)
	} else if done {
		return device, nil
	}
	release, err := i.lock(ctx, t.IQN)
	if err != nil {
		return Device{}, err
	}
	defer release()
	ways, err := i.joinAll(ctx, t, chap)
	if err == nil {
		var device Device
		if device, err = i.settle(ctx, t); err == nil {
			return device, nil
		}
	}
	return Device{}, fmt.Errorf("attach %s: %w", t, i.undo(ctx, t, ways, err))
}

// attached tells whether no program is to be started: each portal has its session and its disk, and no map is to come.
func (i *Initiator) attached(t Target) (Device, bool, error) {
	v, err := i.look(t)
	if err != nil {
		return Device{}, false, err
	}
	disks := i.usable(v)
	for _, portal := range t.canonicalPortals() {
		if !slices.ContainsFunc(disks, func(d disk) bool { return d.session.at(portal) }) {
			return Device{}, false, nil
		}
	}
	if due, expected, err := i.mapExpected(v); err != nil || expected && (time.Now().Before(due) || i.claimedByMultipath(v.disks[0].name)) {
		return Device{}, false, err
	}
	for _, d := range disks {
		i.setRecovery(d.session, i.opt.ReplacementTimeout) // a detach that failed half-way has left it short
	}
	return i.find(t, v)
}

// way is the work on one portal.
type way struct {
	portal Portal
	made   bool // this call made its record, and perhaps its session
	err    error
}

// joinAll works on all portals at the same time, until each has given the disk or failed, or is late after one has.
// It is an error when none has.
func (i *Initiator) joinAll(ctx context.Context, t Target, chap CHAP) ([]*way, error) {
	patient, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	ended := make(chan *way)
	var ways []*way
	for _, portal := range t.canonicalPortals() {
		w := &way{portal: portal}
		ways = append(ways, w)
		go func() {
			w.err = guarded(func() error { return i.join(ctx, patient, t, chap, w) })
			ended <- w
		}()
	}
	var joined int
	var failures several
	var graceOver <-chan time.Time
	for pending := len(ways); pending > 0; {
		select {
		case w := <-ended:
			pending--
			if w.err != nil {
				failures = append(failures, fmt.Errorf("portal %s: %w", w.portal, w.err))
			} else if joined++; joined == 1 {
				graceOver = time.After(i.opt.JoinGrace)
			}
		case <-graceOver:
			giveUp(errLate)
		}
	}
	if err := ctx.Err(); err != nil && len(failures) == 0 {
		return ways, err
	}
	if joined == 0 || ctx.Err() != nil {
		return ways, failures
	}
	if len(failures) > 0 {
		i.log.WarnContext(ctx, "portals not joined", "target", t.IQN, "error", failures)
	}
	return ways, nil
}

var errLate = errors.New("late; the disk is there by another portal")

// join makes one portal give the disk. It waits for the target as long as patient, and works on records as long as
// ctx: those must not be interrupted just because of another portal's success.
func (i *Initiator) join(ctx, patient context.Context, t Target, chap CHAP, w *way) error {
	s, found, err := i.sessionAt(t.IQN, w.portal)
	if err != nil {
		return err
	}
	if found && !s.live() {
		if s, found, err = i.revive(patient, s); err != nil {
			return err
		}
	}
	if found {
		i.setRecovery(s, i.opt.ReplacementTimeout) // as in attached
	} else if s, err = i.newSession(ctx, patient, t.IQN, chap, w); err != nil {
		return err
	}
	return i.bringDisk(patient, t, s)
}

// newSession logs in to a portal that has no session.
func (i *Initiator) newSession(ctx, patient context.Context, iqn string, chap CHAP, w *way) (session, error) {
	// Two of the three programs are spared on a dead portal, and the half minute that iscsid tries it.
	if err := i.checkPortal(patient, w.portal); err != nil {
		return session{}, err
	}
	if err := i.CheckDaemon(); err != nil {
		return session{}, err
	}
	w.made = true
	if err := i.createRecord(ctx, iqn, w.portal, chap); err != nil {
		return session{}, err
	}
	if err := patient.Err(); err != nil {
		return session{}, context.Cause(patient)
	}
	return i.login(patient, iqn, w.portal)
}

// checkPortal finds out whether anybody listens there.
func (i *Initiator) checkPortal(ctx context.Context, portal Portal) error {
	limit, cancel := context.WithTimeout(ctx, i.opt.LoginTimeout)
	defer cancel()
	connection, err := i.dial(limit, "tcp", portal)
	switch {
	case err == nil:
		_ = connection.Close()
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case limit.Err() != nil:
		return fmt.Errorf("%w: nothing came back within %s; check the address and the network", ErrUnreachable, i.opt.LoginTimeout)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// bringDisk makes a live session show the LUN's disk. A stale one, which the LUN had before, is removed once.
func (i *Initiator) bringDisk(ctx context.Context, t Target, s session) error {
	err := i.waitForDisk(ctx, t, s)
	stale, ok := errors.AsType[*staleError](err)
	if !ok {
		return err
	}
	i.log.WarnContext(ctx, "stale SCSI device", "target", t.IQN, "device", stale.disk.name, "error", err)
	if err := i.removeStale(ctx, stale.disk); err != nil {
		return several{stale, err}
	}
	return i.waitForDisk(ctx, t, s)
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

// undo takes back what this call made, and gives the error to return for cause.
func (i *Initiator) undo(ctx context.Context, t Target, ways []*way, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	for _, w := range ways {
		if !w.made {
			continue
		}
		if err := i.withdraw(ctx, t.IQN, w.portal); err != nil {
			cause = several{cause, fmt.Errorf("and portal %s is not cleaned up, which the next attach or detach will do: %w", w.portal, err)}
		}
	}
	i.removeEmptyRecords(t.IQN, "") // nobody writes any more
	return cause
}

func (i *Initiator) withdraw(ctx context.Context, iqn string, portal Portal) error {
	s, found, err := i.sessionAt(iqn, portal)
	if err != nil {
		return err
	}
	if found {
		for _, d := range s.disks() {
			if d.name != "" {
				if err := i.checkUnused(ctx, d.name); err != nil {
					return err
				}
			}
		}
		if err := i.logout(ctx, s); err != nil {
			return err
		}
	}
	return i.deleteRecords(ctx, iqn, portal)
}
