package driver

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"time"
)

// A hint is what the last attach of a volume learned. It spares a call that is repeated
// at once all requests but one, which asks the array whether the grant still stands.
type hint struct {
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

// remember stores a hint; that it cannot is no failure.
func (h hints) remember(new hint) {
	new.Expires = time.Now().Add(hintLife)
	new.Volume.Secret = nil
	if document, err := json.Marshal(new); err == nil {
		_ = writeDurably(h.path(new.Volume.Name), document)
	}
}

func (h hints) recall(name string) (hint, bool) {
	document, err := os.ReadFile(h.path(name))
	if err != nil {
		return hint{}, false
	}
	var found hint
	err = json.Unmarshal(document, &found)
	return found, err == nil && time.Now().Before(found.Expires)
}

func (h hints) forget(name string) { _ = os.Remove(h.path(name)) }
