package access_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The state of the array, as far as callers can see it.

func (w *world) seenVolume() string {
	ai, found := w.volume()
	if !found {
		return "no volume"
	}
	return fmt.Sprint(w.lives[ai.ID], ai.AdminState, ai.Initiators, w.readable(fmt.Sprint(ai.Groups)), w.shown)
}

func (w *world) seenGroup(name string) string {
	members, exists := w.server.InitiatorGroup("/root", name)
	return fmt.Sprint(w.readable(name), exists, members)
}

func (w *world) seenGroups() string {
	var all []string
	for name := range w.groups {
		all = append(all, w.seenGroup(name))
	}
	slices.Sort(all)
	return strings.Join(all, ";")
}

// readable puts short names in the place of UUIDs, which differ each time.
func (w *world) readable(text string) string {
	for id, short := range w.lives {
		text = strings.ReplaceAll(text, id, short)
	}
	return text
}

// answer is what a request can have learnt.
func (w *world) answer(r *http.Request, status int) string {
	path := pathOf(r)
	name, isGroup := strings.CutPrefix(path, "/initiator_groups/")
	name, _, _ = strings.Cut(name, "/")
	switch {
	case path == "/app_instances/"+volumeName: // by its name: sessions are looked for by its UUID
		ai, _ := w.volume()
		return w.readable(fmt.Sprint(status, ai.ID, ai.AdminState, ai.Groups))
	case strings.HasPrefix(path, "/app_instances"):
		return fmt.Sprint(status, w.seenVolume())
	case isGroup:
		return fmt.Sprint(status, w.seenGroup(name))
	}
	return fmt.Sprint(status, w.seenGroups())
}

// fingerprint is the whole state: that of the array, of the hosts, and what each caller knows. What a caller does next depends
// on nothing else, so from two states with one fingerprint the same can follow.
func (w *world) fingerprint() [32]byte {
	hash := sha256.New()
	_, _ = io.WriteString(hash, w.seenVolume()+w.seenGroups())
	fmt.Fprint(hash, w.used, slices.Sorted(maps.Keys(w.sessions)), slices.Sorted(maps.Keys(w.broken)))
	if w.late != nil {
		fmt.Fprint(hash, w.readable(w.late.label))
	}
	for _, c := range w.callers {
		fmt.Fprint(hash, c.history, c.kernel, c.told != "", c.waits != nil, c.ended)
	}
	for _, file := range w.files() {
		_, _ = io.WriteString(hash, w.readable(strings.TrimPrefix(file, w.dir)))
	}
	return [32]byte(hash.Sum(nil))
}

// files are those of the hosts that outlive a call, but the locks.
func (w *world) files() []string {
	var files []string
	for _, folder := range []string{"run/intents", "run/deleted", "state/volumes", "state/leaving"} {
		for _, c := range w.callers {
			dir := filepath.Join(w.dir, w.host(c), folder)
			entries, _ := os.ReadDir(dir)
			for _, entry := range entries {
				if path := filepath.Join(dir, entry.Name()); !slices.Contains(files, path) {
					files = append(files, path)
				}
			}
		}
	}
	return files
}

func (w *world) host(c *caller) string {
	if w.oneHost {
		return "host"
	}
	if name := strings.ReplaceAll(c.name, "/", "-"); !w.moves || c.calledBefore == 0 {
		return name
	}
	return "another"
}

func pathOf(r *http.Request) string {
	_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v"), "/")
	return "/" + path
}
