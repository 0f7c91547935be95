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

// Attach is Login and Scan in one: it gives the device of the target's LUN. It finds out first what is there already, and
// starts programs only for the rest: three for each portal without a session.
//
// One portal that gives the right disk is enough; others that are dead are left to the next call. When none does, the
// error tells each portal's reason (errors.Is: ErrRefused, ErrUnreachable, ErrWrongSerial, ErrInUse, ErrNoDaemon), and
// sessions and records that the call made are taken back.
func (i *Initiator) Attach(ctx context.Context, t Target, chap CHAP) (Device, error) {
	if err := t.validateLogin(chap); err != nil {
		return Device{}, err
	}
	if device, done, err := i.attached(t); err != nil {
		return Device{}, fmt.Errorf("attach %s: %w", t, err)
	} else if done {
		return device, nil
	}
	var device Device
	err := i.onPortals(ctx, "attach", t, func(patient context.Context, w *way) error {
		s, err := i.connect(ctx, patient, t.IQN, chap, w)
		if err != nil {
			return err
		}
		return i.bringDisk(patient, t, s)
	}, func() (err error) {
		device, err = i.settle(ctx, t)
		return err
	})
	return device, err
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
		i.restoreRecovery(d.session)
	}
	return i.find(t, v)
}

// way is the work on one portal.
type way struct {
	portal Portal
	made   bool // this call made its record, and perhaps its session
	err    error
}

// onPortals does a call's work: join on each portal, and finish when one has joined, all under the target's lock. What a
// call made that fails is taken back.
//
// Join waits for the target as long as patient, but works on records as long as the call has time: those must not be
// interrupted just because of another portal's success.
func (i *Initiator) onPortals(ctx context.Context, doing string, t Target, join func(patient context.Context, w *way) error, finish func() error) error {
	release, err := i.lock(ctx, t.IQN)
	if err != nil {
		return err
	}
	defer release()
	ways, err := i.joinAll(ctx, t, join)
	if err == nil {
		err = finish()
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", doing, t, i.undo(ctx, t, ways, err))
	}
	return nil
}

// joinAll works on all portals at the same time, until each has joined or failed, or is late after one has joined. It is an
// error when none has.
func (i *Initiator) joinAll(ctx context.Context, t Target, join func(patient context.Context, w *way) error) ([]*way, error) {
	patient, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	ended := make(chan *way)
	var ways []*way
	for _, portal := range t.canonicalPortals() {
		w := &way{portal: portal}
		ways = append(ways, w)
		go func() {
			w.err = guarded(func() error { return join(patient, w) })
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

var errLate = errors.New("late; another portal has joined")

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
