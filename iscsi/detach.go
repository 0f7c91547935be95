package iscsi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Detach removes a target's LUN from this machine: multipath map, SCSI disks, then the sessions that serve nothing
// else, and with the last session the node records. The caller has unmounted it. All of it gone already is fine.
//
// It needs IQN, LUN and serial number, not the portals: those have moved, perhaps. Only disks of that LUN with that
// serial number are touched, and SCSI devices of that LUN that have no disk. It refuses with ErrInUse what is still mounted
// or held.
func (i *Initiator) Detach(ctx context.Context, t Target) error {
	if err := t.validate(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if sessions, err := i.sessions(t.IQN); err != nil || len(sessions) == 0 && len(i.records(t.IQN)) == 0 {
		return err
	}
	release, err := i.lock(ctx, t.IQN)
	if err != nil {
		return err
	}
	defer release()
	if err := i.removeLUN(ctx, t); err != nil {
		return fmt.Errorf("detach %s: %w", t, err)
	}
	if err := i.leave(ctx, t); err != nil {
		return fmt.Errorf("detach %s: %w", t, err)
	}
	return nil
}

// removeLUN removes the LUN's map and disks.
func (i *Initiator) removeLUN(ctx context.Context, t Target) error {
	v, err := i.look(t)
	if err != nil {
		return err
	}
	for _, d := range v.foreign {
		i.log.WarnContext(ctx, "another volume's disk is left alone", "target", t.IQN, "device", d.name, "serial", t.Serial)
	}
	for _, d := range v.unserved {
		if err := i.remove(ctx, d); err != nil {
			return err
		}
	}
	if len(v.disks) == 0 {
		return nil
	}
	mapped, err := i.mapOver(v.disks)
	if err != nil {
		return err
	}
	if err := i.checkLUNUnused(ctx, v.disks, mapped); err != nil {
		return err
	}
	for _, s := range v.sessions {
		if !s.hasOtherDevices(v.disks) {
			i.setRecovery(s, hurriedRecovery)
		}
	}
	if err := i.flushLUN(ctx, v, mapped); err != nil {
		return err
	}
	for _, d := range v.disks {
		if err := i.remove(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// hurriedRecovery is the recovery time of a session that is about to end. Removing a disk, and whoever still reads it, waits
// so long for a target that does not answer, and nothing is left that is worth two minutes.
const hurriedRecovery = 5 * time.Second

func (i *Initiator) checkLUNUnused(ctx context.Context, disks []disk, mapped string) error {
	var allowed []string
	if mapped != "" {
		if err := i.checkUnused(ctx, mapped); err != nil {
			return err
		}
		allowed = []string{mapped}
	}
	for _, d := range disks {
		if err := i.checkUnused(ctx, d.name, allowed...); err != nil {
			return err
		}
	}
	return nil
}

// flushLUN writes what the page cache still has, where there is a way for it, and takes the map away.
func (i *Initiator) flushLUN(ctx context.Context, v view, mapped string) error {
	tops := i.usable(v)
	if mapped != "" && len(tops) > 0 {
		tops = []disk{{name: mapped}}
	}
	for _, top := range tops {
		err := bounded(ctx, func() error { return i.flush(i.node(top.name)) })
		if ctx.Err() != nil {
			return fmt.Errorf("flush %s: the target does not answer: %w", i.node(top.name), ctx.Err())
		}
		if err != nil {
			i.log.WarnContext(ctx, "device not flushed", "device", top.name, "error", err)
		}
	}
	if mapped == "" {
		return nil
	}
	return i.flushMap(ctx, mapped)
}

// leave logs out of the sessions that serve nothing any more, all at the same time, and deletes the records with the
// last one.
func (i *Initiator) leave(ctx context.Context, t Target) error {
	sessions, err := i.sessions(t.IQN)
	if err != nil {
		return err
	}
	unused := slices.DeleteFunc(slices.Clone(sessions), func(s session) bool { return s.hasOtherDevices(nil) })
	results := make(chan error, len(unused))
	for _, s := range unused {
		go func() { results <- guarded(func() error { return i.logout(ctx, s) }) }()
	}
	var failures several
	for range unused {
		if err := <-results; err != nil {
			failures = append(failures, err)
		}
	}
	switch {
	case len(failures) > 0:
		return failures
	case len(unused) < len(sessions):
		i.log.InfoContext(ctx, "sessions serve other LUNs and stay", "target", t.IQN, "sessions", len(sessions)-len(unused))
		return nil
	}
	err = i.deleteRecords(ctx, t.IQN, "")
	if exitCode(err) != exitExists {
		return err
	}
	// The login of a call that was killed came to its end meanwhile.
	if late, lookErr := i.sessions(t.IQN); lookErr != nil || len(late) == 0 {
		return errors.Join(err, lookErr)
	}
	return i.leave(ctx, t)
}
