package driver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// An intent is a note, kept on this host beside its locks, of a claim that may be on the array and of which no caller was
// told. It is written before the claim is added and erased before the caller is told, so only what a killed call left is
// found by it. That the node has no session would prove nothing: it may have been told, and be about to log in.
type intent struct {
	PV       string `json:"pv"`
	Tenant   string `json:"tenant,omitempty"`
	Node     string `json:"node"`
	VolumeID string `json:"volumeID"`
	Group    string `json:"group"`
	IQN      string `json:"iqn"`
}

type intents struct{ dir string }

func (d *Driver) intents() intents { return intents{filepath.Join(d.Config.RunDir, "intents")} }

func (s intents) path(pv string) string { return filepath.Join(s.dir, fileNameFor(pv)+".json") }

func (s intents) write(i intent) error {
	document, err := json.Marshal(i)
	if err != nil {
		return err
	}
	return writeDurably(s.path(i.PV), document)
}

func (s intents) erase(pv string) error { return ignoreMissing(os.Remove(s.path(pv))) }

// read is the note of a PersistentVolume; the zero intent where there is none.
func (s intents) read(pv string) (i intent, err error) {
	document, err := os.ReadFile(s.path(pv))
	if errors.Is(err, fs.ErrNotExist) {
		return i, nil
	}
	if err == nil {
		err = json.Unmarshal(document, &i)
	}
	if err != nil {
		return i, fmt.Errorf("read the note %s of an attach that did not end: %w", s.path(pv), err)
	}
	return i, nil
}

func (s intents) all() ([]intent, error) {
	paths, err := filepath.Glob(filepath.Join(s.dir, "*.json"))
	if err != nil {
		return nil, err
	}
	return nil, nil
}
