package iscsi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// logoutLimit covers what iscsid waits for an answer to its logout, twice.
const logoutLimit = 40 * time.Second

// sessionAt is the session to a portal: a live one if there is.
func (i *Initiator) sessionAt(iqn string, portal Portal) (session, bool, error) {
	sessions, err := i.sessions(iqn)
	if err != nil {
		return session{}, false, err
	}
	var found session
	for _, s := range sessions {
		if s.at(portal) && (found.class == "" || s.live() && !found.live()) {
			found = s
		}
	}
	return found, found.class != "", nil
}

// login logs in by the node record and waits for the session.
func (i *Initiator) login(ctx context.Context, iqn string, portal Portal) (session, error) {
	limit := i.opt.LoginTimeout*time.Duration(i.opt.LoginRetries) + 10*time.Second
	err := i.program(ctx, limit, "log in to "+portal, "iscsiadm", "-m", "node", "-T", iqn, "-p", portal, "--login")
	wait := i.opt.DiskTimeout
	switch {
	case ctx.Err() != nil:
		return session{}, fmt.Errorf("log in to %s: %w", portal, context.Cause(ctx))
	case err == nil:
	case exitCode(err) == exitExists: // it is there, or iscsid is still trying for a caller that was killed
		wait = limit
	case errors.Is(err, context.DeadlineExceeded): // open-iscsi 2.1.10 logs in and, without node.session.scan = auto, never says so
	default:
		return session{}, err
	}
	patient, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	s, pollErr := poll(patient, func() (session, bool, error) {
		s, found, err := i.sessionAt(iqn, portal)
		return s, found && s.live(), err
	})
	switch {
	case pollErr == nil:
		i.log.InfoContext(ctx, "logged in", "target", iqn, "portal", portal, "session", s.id)
		return s, nil
	case ctx.Err() != nil:
		return session{}, fmt.Errorf("log in to %s: %w", portal, context.Cause(ctx))
	case err != nil:
		return session{}, err
	case errors.Is(pollErr, context.DeadlineExceeded):
		return session{}, fmt.Errorf("log in to %s: iscsiadm says it did, but the kernel has no such session; look at dmesg and `iscsi status`", portal)
	}
	return session{}, pollErr
}

// revive waits for a lost session to come back. When it does not and nobody uses it, it is logged out, so that a new
// login with today's record can replace it: iscsid may try for ever with yesterday's.
func (i *Initiator) revive(ctx context.Context, s session) (session, bool, error) {
	if err := i.checkPortal(ctx, s.persistent); err != nil {
		return session{}, false, fmt.Errorf("%s is lost: %w", s, err)
	}
	limit, cancel := context.WithTimeout(ctx, i.opt.LoginTimeout)
	defer cancel()
	now, err := poll(limit, func() (session, bool, error) {
		now, there := s.alive()
		return now, !there || now.live(), nil
	})
	switch {
	case err == nil:
		return now, now.live(), nil
	case ctx.Err() != nil:
		return session{}, false, context.Cause(ctx)
	}
	lost := fmt.Errorf("%s has not come back within %s; look at dmesg, the target and the network to it", s, i.opt.LoginTimeout)
	for _, d := range s.disks() {
		if d.name == "" {
			continue
		}
		if err := i.checkUnused(ctx, d.name); err != nil {
			return session{}, false, several{lost, err}
		}
	}
	i.log.WarnContext(ctx, "lost session is replaced", "target", s.iqn, "portal", s.persistent, "session", s.id)
	if err := i.logout(ctx, s); err != nil {
		return session{}, false, several{lost, err}
	}
	return session{}, false, nil
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

// logout ends a session, which nobody uses any more. That it is gone already is fine.
func (i *Initiator) logout(ctx context.Context, s session) error {
	limit, cancel := context.WithTimeout(ctx, logoutLimit)
	defer cancel()
	byRecord := s.persistent != "" && len(i.recordsAt(s.iqn, s.persistent)) > 0 && i.alone(s)
	var last error
	_, err := backoff.Retry(limit, func() (bool, error) {
		err := i.logoutOnce(limit, s, byRecord)
		last = err
		if _, there := s.alive(); !there {
			return true, nil
		}
		switch code := exitCode(err); {
		case err == nil:
			return true, nil
		case code == exitInternal: // disks or a login under way on it
			return false, err
		case code == exitNotFound && byRecord:
			byRecord = false
			return false, err
		}
		return false, backoff.Permanent(err)
	}, backoff.WithBackOff(growing(50*time.Millisecond, time.Second)), backoff.WithMaxTries(8), backoff.WithMaxElapsedTime(0))
	if err != nil {
		return last
	}
	_, err = poll(limit, func() (bool, bool, error) {
		_, there := s.alive()
		return true, !there, nil
	})
	if err != nil {
		return fmt.Errorf("log out of %s: iscsiadm says it did, but the session is there: %w", s, err)
	}
	i.log.InfoContext(ctx, "logged out", "target", s.iqn, "portal", s.persistent, "session", s.id)
	return nil
}

// alone tells whether a session is its target's only one by its portal. A logout by record ends them all.
func (i *Initiator) alone(s session) bool {
	sessions, err := i.sessions(s.iqn)
	return err == nil && !slices.ContainsFunc(sessions, func(other session) bool { return other.id != s.id && other.at(s.persistent) })
}

func (i *Initiator) logoutOnce(ctx context.Context, s session, byRecord bool) error {
	doing := "log out of " + s.String()
	if byRecord {
		return i.program(ctx, logoutLimit, doing, "iscsiadm", "-m", "node", "-T", s.iqn, "-p", s.persistent, "--logout")
	}
	return i.program(ctx, logoutLimit, doing, "iscsiadm", "-m", "session", "-r", strconv.Itoa(s.id), "--logout")
}

// hasOtherDevices tells whether a session serves anything but the disks given.
func (s session) hasOtherDevices(but []disk) bool {
	for _, d := range s.disks() {
		mine := false
		for _, b := range but {
			mine = mine || b.hctl == d.hctl
		}
		if !mine && !d.isPlaceholder() {
			return true
		}
	}
	return false
}

// setRecovery sets how long the kernel waits for a session to come back before it fails its I/O. For the paths of its maps
// multipathd knows better.
func (i *Initiator) setRecovery(s session, wait time.Duration) {
	mapped := func(d disk) bool { return d.name != "" && i.mapOf(d.name) != "" }
	if attribute(s.class, "recovery_tmo") == seconds(wait) || slices.ContainsFunc(s.disks(), mapped) {
		return
	}
	if err := writeFile(filepath.Join(s.class, "recovery_tmo"), seconds(wait)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		i.log.Warn("recovery time not set", "session", s.id, "error", err)
	}
}
