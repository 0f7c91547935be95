package iscsi

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// logoutLimit covers what iscsid waits for an answer to its logout, twice.
const logoutLimit = 40 * time.Second

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
