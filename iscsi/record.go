package iscsi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// recordLimit is for iscsiadm's work on node records. It waits 30 s for the lock of the records, and when it is killed
// meanwhile it may leave the lock, or an empty record, behind.
const recordLimit = 40 * time.Second

// lockFile exists, below /run, while an iscsiadm works on node records (open-iscsi, usr/idbm.c).
const lockFile = "lock/iscsi/lock.write"

// recordDirs is where the node records are: it depends on the distribution.
func (i *Initiator) recordDirs() []string {
	return []string{
		filepath.Join(i.opt.EtcRoot, "iscsi", "nodes"),
		filepath.Join(i.opt.VarRoot, "lib", "iscsi", "nodes"),
	}
}

// records are the node records of a target: paths of files, or of directories that hold one per interface. They are
// named address,port or address,port,tag.
func (i *Initiator) records(iqn string) []string {
	var paths []string
	for _, dir := range i.recordDirs() {
		entries, _ := os.ReadDir(filepath.Join(dir, iqn))
		for _, entry := range entries {
			paths = append(paths, filepath.Join(dir, iqn, entry.Name()))
		}
	}
	return paths
}

// recordsAt are those for one portal in canonical spelling, or for all if it is "".
func (i *Initiator) recordsAt(iqn string, portal Portal) []string {
	if portal == "" {
		return i.records(iqn)
	}
	var paths []string
	for _, path := range i.records(iqn) {
		if recordPortal(filepath.Base(path)) == portal {
			paths = append(paths, path)
		}
	}
	return paths
}

// recordPortal is the portal that a record's file name tells; "" when it is no such name.
func recordPortal(name string) Portal {
	parts := strings.Split(name, ",")
	if len(parts) != 2 && len(parts) != 3 {
		return ""
	}
	portal, err := canonical(net.JoinHostPort(parts[0], parts[1]))
	if err != nil {
		return ""
	}
	return portal
}

// createRecord makes a fresh record of one portal, with all that a login needs. It resets one that exists, so there
// must be no session.
func (i *Initiator) createRecord(ctx context.Context, iqn string, portal Portal, chap CHAP) error {
	i.removeEmptyRecords(iqn, portal)
	if err := i.record(ctx, iqn, portal, "create the node record of "+portal, "-o", "new", "-T", iqn, "-p", portal); err != nil {
		return err
	}
	update := []string{"-o", "update", "-T", iqn, "-p", portal}
	for _, setting := range i.settings(chap) {
		if setting.name == reopenMax && !i.recorded(iqn, portal, reopenMax) {
			continue
		}
		update = append(update, "-n", setting.name, "-v", setting.value)
	}
	err := i.record(ctx, iqn, portal, "configure the node record of "+portal, update...)
	if failure, ok := errors.AsType[*ProgramError](err); ok {
		failure.Output = chap.redact(failure.Output)
	}
	return err
}

type setting struct{ name, value string }

// reopenMax is a setting that open-iscsi knows from 2.0.877 on. One unknown name makes it refuse the whole update.
const reopenMax = "node.session.reopen_max"

// recorded tells whether a portal's record has a setting: iscsiadm writes all that it knows into a new one.
func (i *Initiator) recorded(iqn string, portal Portal, name string) bool {
	for _, path := range i.recordsAt(iqn, portal) {
		for _, file := range recordFiles(path) {
			content, err := os.ReadFile(file)
			if _, known := recordSettings(string(content))[name]; err == nil && known {
				return true
			}
		}
	}
	return false
}

// settings are all that must not be left to the distribution's iscsid.conf.
func (i *Initiator) settings(chap CHAP) []setting {
	method := "None"
	if chap != (CHAP{}) {
		method = "CHAP"
	}
	return []setting{
		{"node.startup", "manual"},        // else a rebooted node logs in to volumes that moved on
		{"node.session.nr_sessions", "1"}, // else one login makes several, which a logout by record ends together
		{reopenMax, "0"},                  // else iscsid gives up a session that is lost for long
		{"node.session.scan", "manual"},
		{"node.session.initial_login_retry_max", strconv.Itoa(i.opt.LoginRetries)},
		{"node.conn[0].timeo.login_timeout", seconds(i.opt.LoginTimeout)},
		{"node.session.timeo.replacement_timeout", seconds(i.opt.ReplacementTimeout)},
		{"node.conn[0].timeo.noop_out_interval", "5"},
		{"node.conn[0].timeo.noop_out_timeout", "5"},
		{"node.session.auth.authmethod", method},
		{"node.session.auth.username", chap.Username},
		{"node.session.auth.password", chap.Password},
		{"node.session.auth.username_in", chap.UsernameIn},
		{"node.session.auth.password_in", chap.PasswordIn},
	}
}

func seconds(d time.Duration) string {
	return strconv.Itoa(int(max(d.Round(time.Second), time.Second) / time.Second))
}

// deleteRecords deletes a target's records: of one portal, or of all when portal is "". There must be no session.
func (i *Initiator) deleteRecords(ctx context.Context, iqn string, portal Portal) error {
	left := func() []string { return i.recordsAt(iqn, portal) }
	i.removeEmptyRecords(iqn, portal)
	if len(left()) == 0 {
		return nil
	}
	args := []string{"-o", "delete", "-T", iqn}
	doing := "delete the node records of " + iqn
	if portal != "" {
		args, doing = append(args, "-p", portal), "delete the node record of "+portal
	}
	err := i.record(ctx, iqn, portal, doing, args...)
	i.removeEmptyRecords(iqn, portal)
	switch paths := left(); {
	case len(paths) == 0:
		return nil // whatever iscsiadm says: 21 is no proof, for it does not see an empty record
	case err != nil:
		return err
	default:
		return fmt.Errorf("%s: iscsiadm says it did, but %s is there", doing, strings.Join(paths, ", "))
	}
}

// record runs iscsiadm on node records, and once more when what stopped it could be repaired.
func (i *Initiator) record(ctx context.Context, iqn string, portal Portal, doing string, args ...string) error {
	args = append([]string{"-m", "node"}, args...)
	if err := i.breakStaleLock(ctx); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	err := i.program(ctx, recordLimit, doing, "iscsiadm", args...)
	killed := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
	if !killed && exitCode(err) != exitDatabase {
		return err
	}
	if brokeLock := i.breakStaleLock(context.WithoutCancel(ctx)); brokeLock != nil {
		return several{err, brokeLock}
	}
	i.removeEmptyRecords(iqn, portal)
	if ctx.Err() != nil {
		return err
	}
	i.log.WarnContext(ctx, "node records repaired, trying again", "target", iqn, "error", err)
	return i.program(ctx, recordLimit, doing, "iscsiadm", args...)
}

// removeEmptyRecords removes what a killed iscsiadm left: a record of no bytes, which no iscsiadm can read, replace or
// delete any more. It keeps to one portal, because another one's record is empty for a moment while it is written; ""
// stands for all, and for the target's folder with them.
func (i *Initiator) removeEmptyRecords(iqn string, portal Portal) {
	paths := i.recordsAt(iqn, portal)
	for _, path := range paths {
		inside, _ := filepath.Glob(filepath.Join(path, "*"))
		for _, file := range append(inside, path) {
			if info, err := os.Lstat(file); err == nil && info.Mode().IsRegular() && info.Size() == 0 {
				_ = os.Remove(file)
			}
		}
	}
	for _, path := range paths { // Remove takes directories only when they are empty
		if info, err := os.Lstat(path); err == nil && info.IsDir() {
			_ = os.Remove(path)
		}
	}
	if portal == "" {
		for _, dir := range i.recordDirs() {
			_ = os.Remove(filepath.Join(dir, iqn))
		}
	}
}

// breakStaleLock removes the lock of the node records when no iscsiadm lives that could have it. Every iscsiadm would
// wait 30 s for it.
func (i *Initiator) breakStaleLock(ctx context.Context) error {
	path := filepath.Join(i.opt.RunRoot, lockFile)
	if !exists(path) {
		return nil
	}
	release, err := i.lockFile(ctx, "node-records") // one breaker at a time, or the second breaks a fresh lock
	if err != nil {
		return err
	}
	defer release()
	if !i.isStale(path) {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the stale lock of the node records: %w", err)
	}
	i.log.WarnContext(ctx, "stale lock of the node records removed", "path", path)
	return nil
}

// isStale tells whether a lock of the node records is nobody's. The lock is a hard link, so each taking and leaving
// changes its inode's time: the same time before and after the look at the processes means that it was nobody's all the
// while. And while it is there, nobody can take it.
func (i *Initiator) isStale(path string) bool {
	before, taken := changed(path)
	if !taken || time.Since(before) < clockTick || i.processLives("iscsiadm") {
		return false
	}
	after, taken := changed(path)
	return taken && after.Equal(before)
}

// clockTick is longer than the grain of time stamps in a file system.
const clockTick = 20 * time.Millisecond

// changed is when a file's inode last changed; false when there is no file.
func changed(path string) (time.Time, bool) {
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		return time.Time{}, false
	}
	return time.Unix(stat.Ctim.Unix()), true
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// processLives tells whether a program of that name runs (zombies do not).
func (i *Initiator) processLives(name string) bool {
	_, lives := i.process(name)
	return lives
}

// process is the directory in /proc of a program that runs by that name.
func (i *Initiator) process(name string) (string, bool) {
	stats, _ := filepath.Glob(filepath.Join(i.opt.ProcRoot, "[0-9]*", "stat"))
	for _, stat := range stats {
		content, err := os.ReadFile(stat)
		if err == nil && strings.Contains(string(content), " ("+name+") ") && !strings.Contains(string(content), " ("+name+") Z") {
			return filepath.Dir(stat), true
		}
	}
	return "", false
}
