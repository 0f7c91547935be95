package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"datera-flexvolume/datera"
	"datera-flexvolume/driver/access"
)

// An intent is a note, kept on this host beside its locks, of a claim that may be on the array and of which no caller was
// told. It is written before the claim is added and erased before the caller is told, so it leads to what killed calls left,
// and to nothing else. That a node has no session would prove nothing: it may have been told, and be about to log in.
type intent struct {
	PV       string `json:"pv"`
	Tenant   string `json:"tenant,omitempty"`
	Node     string `json:"node"`
	VolumeID string `json:"volumeID"`
	Group    string `json:"group"`
	IQN      string `json:"iqn"`
}

func (d *Driver) intentDir() string { return filepath.Join(d.Config.RunDir, "intents") }

// intentPath begins with the key of the lock under which the note is written.
func (d *Driver) intentPath(i intent) string {
	return filepath.Join(d.intentDir(), fileNameFor(i.PV)+"@"+fileNameFor(i.Group)+".json")
}

func (d *Driver) noteIntent(i intent) error {
	document, err := json.Marshal(i)
	if err != nil {
		return err
	}
	return writeDurably(d.intentPath(i), document)
}

func (d *Driver) eraseIntent(i intent) error { return ignoreMissing(os.Remove(d.intentPath(i))) }

// withdrawUntold takes back the claims of attaches on this host that were killed, of which no caller was told: no controller
// detaches them. Volumes on which another call works are passed over, and what fails is left to the next call.
func (d *Driver) withdrawUntold(ctx context.Context) error {
	entries, err := os.ReadDir(d.intentDir())
	if err := ignoreMissing(err); err != nil {
		return fmt.Errorf("look for attaches that were killed: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	for _, entry := range entries {
		key, _, _ := strings.Cut(strings.TrimPrefix(entry.Name(), "."), "@")
		path := filepath.Join(d.intentDir(), entry.Name())
		if err := d.ifFree(key, func() error { return d.withdraw(ctx, path) }); err != nil {
			d.Log.WarnContext(ctx, "the claim of an attach that was killed is still on the array", "volume", key, "error", err)
		}
	}
	return nil
}

// withdraw takes one claim back, unless its node has a session: then an attach on another host has told it since.
func (d *Driver) withdraw(ctx context.Context, path string) error {
	document, err := os.ReadFile(path)
	if err != nil {
		return ignoreMissing(err) // its call has ended meanwhile
	}
	if !strings.HasSuffix(path, ".json") {
		return os.Remove(path) // cut off while it was written: the claim was not added
	}
	var left intent
	if err := json.Unmarshal(document, &left); err != nil {
		return fmt.Errorf("note %s: %w", path, err)
	}
	array, err := d.configuredArray(left.Tenant)
	if err != nil {
		return err
	}
	seen, err := access.Survey(ctx, array, left.VolumeID)
	if err != nil && !errors.Is(err, datera.ErrNotFound) {
		return err
	}
	var used, otherwise bool
	if err == nil {
		for _, h := range seen.Holders(nil, nil) {
			mine := h.Session && datera.SameIQN(h.IQN, left.IQN)
			used, otherwise = used || mine && h.Group == left.Group, otherwise || mine && h.Group != left.Group
		}
	}
	switch {
	case used && otherwise: // the session may be by the other claim: the note waits until that has gone
		return nil
	case !used: // a volume that is gone may have left its groups
		if _, err := array.RemoveMember(ctx, left.Group, left.IQN); err != nil {
			return err
		}
	}
	return os.Remove(path)
}
