package iscsi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"
)

// Login logs in to the target's portals and brings no disk: no LUN is scanned until Scan does. Afterwards the target shows
// this machine's session. It starts three programs for each portal without a session.
//
// One session is enough; portals that are dead or late are left to the next call. Errors and what is taken back are those
// of Attach. A live session that is there already, whoever made it, is left as it is, with its disks.
func (i *Initiator) Login(ctx context.Context, t Target, chap CHAP) error {
	if err := t.validateLogin(chap); err != nil {
		return err
	}
	return i.onPortals(ctx, "log in to", t, func(patient context.Context, w *way) error {
		_, err := i.connect(ctx, patient, t.IQN, chap, w)
		return err
	}, func() error { return nil })
}

// LoggedIn tells whether a session with one of the target's portals is live. It starts no program and waits for nothing.
func (i *Initiator) LoggedIn(t Target) (bool, error) {
	if err := t.validate(); err != nil {
		return false, err
	}
	sessions, err := i.sessions(t.IQN)
	return slices.ContainsFunc(sessions, func(s session) bool {
		return s.live() && slices.ContainsFunc(t.canonicalPortals(), s.at)
	}), err
}

// connect is the live session with a portal: the one that is there, or a new one.
func (i *Initiator) connect(ctx, patient context.Context, iqn string, chap CHAP, w *way) (session, error) {
	s, found, err := i.sessionAt(iqn, w.portal)
	if err != nil {
		return session{}, err
	}
	if found && !s.live() {
		if s, found, err = i.revive(patient, s); err != nil {
			return session{}, err
		}
	}
	if found {
		i.restoreRecovery(s)
		return s, nil
	}
	return i.newSession(ctx, patient, iqn, chap, w)
}

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

// restoreRecovery takes back what a detach that failed half-way has set. For the paths of its maps multipathd knows better.
func (i *Initiator) restoreRecovery(s session) {
	if !slices.ContainsFunc(s.disks(), func(d disk) bool { return d.name != "" && i.mapOf(d.name) != "" }) {
		i.setRecovery(s, i.opt.ReplacementTimeout)
	}
}

// setRecovery sets how long the kernel waits for a session to come back before it fails its I/O.
func (i *Initiator) setRecovery(s session, wait time.Duration) {
	if attribute(s.class, "recovery_tmo") == seconds(wait) {
		return
	}
	if err := writeFile(filepath.Join(s.class, "recovery_tmo"), seconds(wait)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		i.log.Warn("recovery time not set", "session", s.id, "error", err)
	}
}
