package driver

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"time"
)

// Hints spare calls that follow each other closely some requests. They are forgotten after
// a minute, and losing them costs nothing.

// A hint is what the last attach of a volume learned. A call that is repeated at once makes
// one request only: whether the grant still stands.
type hint struct {
	Server  string // of the array, as in its URL
	Volume  Volume
	Node    string
	IQN     string
	Device  string
	Expires time.Time
}

// hintLife is short: it bridges kubelet's repetitions, and no more.
const hintLife = time.Minute

func (h hint) sameOptions(volume Volume) bool {
	volume.Secret = nil
	return reflect.DeepEqual(h.Volume, volume)
}

type hints struct{ dir string }

func (d *Driver) hints() hints { return hints{filepath.Join(d.Config.RunDir, "hints")} }

func (h hints) path(name string) string { return filepath.Join(h.dir, fileNameFor(name)+".json") }

// initiatorHint is under which IQN a node was found.
type initiatorHint struct {
	IQN     string
	Expires time.Time
}

func (h hints) initiatorPath(node string) string {
	return filepath.Join(h.dir, "nodes", fileNameFor(node)+".json")
}

func (h hints) rememberInitiator(node, iqn string) {
	writeHint(h.initiatorPath(node), initiatorHint{IQN: iqn, Expires: time.Now().Add(hintLife)})
}

func (h hints) recallInitiator(node string) (iqn string, found bool) {
	hint, found := readHint[initiatorHint](h.initiatorPath(node))
	return hint.IQN, found && time.Now().Before(hint.Expires)
}

func (h hints) remember(new hint) {
	h.sweep()
	new.Expires = time.Now().Add(hintLife)
	new.Volume.Secret = nil
	writeHint(h.path(new.Volume.Name), new)
}

// sweep removes what has expired, so that the folder does not grow: what a killed call was writing, too.
func (h hints) sweep() {
	volumes, _ := filepath.Glob(filepath.Join(h.dir, "*.json*"))
	nodes, _ := filepath.Glob(filepath.Join(h.dir, "nodes", "*.json*"))
	for _, path := range append(volumes, nodes...) {
		if info, err := os.Lstat(path); err == nil && time.Since(info.ModTime()) > hintLife {
			_ = os.Remove(path)
		}
	}
}

func (h hints) recall(name string) (hint, bool) {
	found, readable := readHint[hint](h.path(name))
	return found, readable && time.Now().Before(found.Expires)
}

func (h hints) forget(name string) { _ = os.Remove(h.path(name)) }

// writeHint stores a hint; that it cannot is no failure.
func writeHint(path string, hint any) {
	if document, err := json.Marshal(hint); err == nil {
		_ = writeDurably(path, document)
	}
}

func readHint[T any](path string) (hint T, found bool) {
	document, err := os.ReadFile(path)
	if err != nil {
		return hint, false
	}
	return hint, json.Unmarshal(document, &hint) == nil
}
