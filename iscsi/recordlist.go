package iscsi

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Record is a node record: how this machine logs in to a target by one portal.
type Record struct {
	IQN     string
	Portal  Portal
	Path    string // of its file
	Startup string // node.startup: with "automatic" the machine logs in when it starts
	Empty   bool   // of no bytes, as a killed iscsiadm leaves it: no iscsiadm can read, replace or delete it any more
	Own     bool   // has all the settings that Attach writes, which nobody's defaults are
	Changed time.Time
}

// Records lists all node records. It starts no program.
func (i *Initiator) Records() ([]Record, error) {
	var records []Record
	for _, dir := range i.recordDirs() {
		targets, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			return nil, fmt.Errorf("list node records: %w", err)
		}
		for _, target := range targets {
			if validateName(target.Name()) != nil {
				continue
			}
			portals, _ := os.ReadDir(filepath.Join(dir, target.Name()))
			for _, portal := range portals {
				records = append(records, i.recordsIn(filepath.Join(dir, target.Name(), portal.Name()))...)
			}
		}
	}
	return records, nil
}

// recordsIn reads one record, or those of a directory that holds one per interface.
func (i *Initiator) recordsIn(path string) []Record {
	portal, iqn := recordPortal(filepath.Base(path)), filepath.Base(filepath.Dir(path))
	var records []Record
	for _, file := range recordFiles(path) {
		info, err := os.Lstat(file)
		if portal == "" || err != nil || !info.Mode().IsRegular() {
			continue
		}
		content, err := os.ReadFile(file)
		if err != nil {
			continue // deleted meanwhile
		}
		settings := recordSettings(string(content))
		records = append(records, Record{
			IQN: iqn, Portal: portal, Path: file, Startup: settings["node.startup"],
			Empty: info.Size() == 0, Own: i.wrote(settings), Changed: info.ModTime(),
		})
	}
	return records
}

func recordFiles(path string) []string {
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		files, _ := filepath.Glob(filepath.Join(path, "*"))
		return files
	}
	return []string{path}
}

func recordSettings(content string) map[string]string {
	settings := map[string]string{}
	for line := range strings.Lines(content) {
		if name, value, found := strings.Cut(line, "="); found {
			settings[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return settings
}

// wrote tells whether a record holds what createRecord writes, but for what a configuration may change.
func (i *Initiator) wrote(settings map[string]string) bool {
	return !slices.ContainsFunc(i.settings(CHAP{}), func(s setting) bool {
		configurable := strings.Contains(s.name, ".auth.") || strings.HasSuffix(s.name, ".replacement_timeout")
		value, known := settings[s.name]
		return !configurable && value != s.value && (known || s.name != reopenMax)
	})
}

// DeleteRecords deletes the node records of a target that has no session; ErrInUse when it has one. An empty record is
// deleted as well. None there is success.
func (i *Initiator) DeleteRecords(ctx context.Context, iqn string) error {
	if err := validateName(iqn); err != nil {
		return err
	}
	release, err := i.lock(ctx, iqn)
	if err != nil {
		return err
	}
	defer release()
	sessions, err := i.sessions(iqn)
	if err != nil {
		return err
	}
	if len(sessions) > 0 {
		return fmt.Errorf("node records of %s: %w, by %s", iqn, ErrInUse, sessions[0])
	}
	return i.deleteRecords(ctx, iqn, "")
}

// StaleLock tells where the lock of the node records is, and whether it is there without an iscsiadm that could have it:
// then each iscsiadm waits for it for half a minute and fails.
func (i *Initiator) StaleLock() (path string, stale bool) {
	path = filepath.Join(i.opt.RunRoot, lockFile)
	return path, i.isStale(path)
}

// BreakStaleLock removes that lock if it is stale, as every call does that works on records.
func (i *Initiator) BreakStaleLock(ctx context.Context) error { return i.breakStaleLock(ctx) }
