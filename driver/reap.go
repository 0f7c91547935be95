package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// Leftover is something that a crash left behind, or looks like it.
type Leftover struct {
	Kind string `json:"kind"`
	What string `json:"what"`
	Why  string `json:"why"` // it is one
	// Keep is why it is left alone; empty for what Reap removes.
	Keep    string `json:"keep,omitempty"`
	Removed bool   `json:"removed,omitempty"`
	Error   string `json:"error,omitempty"` // why it could not be removed

	remove func(ctx context.Context) error
}

// The kinds of leftovers.
const (
	kindVolume    = "volume"
	kindSession   = "session"
	kindRecord    = "node record"
	kindLock      = "record lock"
	kindDirectory = "directory"
	kindFile      = "file"
)

// removeTime bounds the removal of one leftover.
const removeTime = CallDeadline

// CheckAge refuses an age that would take a volume away from a pod that is being started.
func CheckAge(older time.Duration) error {
	if older < retryTime {
		return fmt.Errorf("the age is %s: accepted is %s or more, because kubelet takes up to 2m2s between two tries to mount a volume, and a try some more", older, retryTime)
	}
	return nil
}

// Leftovers lists what is left behind and nobody has asked for since that long ago. It takes no lock and changes nothing.
func (o *Operator) Leftovers(ctx context.Context, older time.Duration) ([]Leftover, error) {
	if err := CheckAge(older); err != nil {
		return nil, err
	}
	s, err := o.look()
	if err != nil {
		return nil, err
	}
	records, err := o.Node.Records()
	if err != nil {
		return nil, err
	}
	found := []Leftover{}
	found = append(found, o.leftRecordLock()...) // first, because it holds up all that works on records
	found = append(found, o.leftVolumes(ctx, s, older)...)
	found = append(found, o.leftSessions(s)...)
	found = append(found, o.leftRecords(s, records, older)...)
	found = append(found, o.leftDirectories(s, older)...)
	return append(found, o.leftFiles(older)...), ctx.Err()
}

// Reap removes what Leftovers lists and does not keep, each after one more look under its lock. It returns what
// Leftovers did, with what came of it.
func (o *Operator) Reap(ctx context.Context, older time.Duration) ([]Leftover, error) {
	found, err := o.Leftovers(ctx, older)
	if err != nil {
		return nil, err
	}
	for i := range found {
		if found[i].Keep != "" {
			continue
		}
		limit, cancel := context.WithTimeout(ctx, removeTime)
		err := o.guarded(ctx, func() error { return found[i].remove(limit) })
		cancel()
		found[i].Removed = err == nil
		if err != nil {
			found[i].Error = err.Error()
		}
	}
	return found, ctx.Err()
}

// Left counts what is still there and is not kept.
func Left(leftovers []Leftover) int {
	left := 0
	for _, l := range leftovers {
		if l.Keep == "" && !l.Removed {
			left++
		}
	}
	return left
}

// WriteLeftovers prints one line for each.
func WriteLeftovers(w io.Writer, leftovers []Leftover) error {
	if len(leftovers) == 0 {
		_, err := fmt.Fprintln(w, "nothing is left behind")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, l := range leftovers {
		state, text := leftover, l.Why
		switch {
		case l.Keep != "":
			state, text = "kept", l.Why+"; it stays: "+l.Keep
		case l.Removed:
			state = "removed"
		case l.Error != "":
			state, text = "failed", l.Why+"; it is still there: "+l.Error
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", state, l.Kind, l.What, oneLine(text))
	}
	return table.Flush()
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func (o *Operator) leftRecordLock() []Leftover {
	path, stale := o.Node.StaleLock()
	if !stale {
		return nil
	}
	return []Leftover{{
		Kind: kindLock, What: path, Why: "no iscsiadm lives that could hold it, and each waits for it for 30 s",
		remove: o.Node.BreakStaleLock,
	}}
}

// leftVolumes are volumes of the journal that nothing on this node wants any more.
func (o *Operator) leftVolumes(ctx context.Context, s scene, older time.Duration) []Leftover {
	var found []Leftover
	for _, e := range o.entries(s) {
		why, over := isOver(e, older)
		switch {
		case e.err != nil && time.Since(e.asked) > older:
			found = append(found, o.unreadable(e))
		case e.err == nil && over:
			left := Leftover{Kind: kindVolume, What: e.what(), Why: why}
			if err := o.unused(ctx, e); err != nil {
				left.Keep = err.Error()
			}
			left.remove = func(ctx context.Context) error {
				return o.whileFree(e.key, func() error { return o.removeVolume(ctx, e, older) })
			}
			found = append(found, left)
		}
	}
	return found
}

// what names a volume for people.
func (e entry) what() string {
	what := e.record.Name + " (" + e.record.AppInstance
	if device, _ := deviceOf(e.disks, e.mounts); device != "" {
		what += ", " + device
	}
	return what + ")"
}

func (o *Operator) unreadable(e entry) Leftover {
	path := o.journal().inUse(e.key)
	if e.leaving {
		path = o.journal().leaving(e.key)
	}
	return Leftover{
		Kind: kindFile, What: path, Why: "the journal cannot be read there: " + e.err.Error(),
		remove: func(context.Context) error {
			return o.whileFree(e.key, func() error { return ignoreMissing(os.Remove(path)) })
		},
	}
}

// whileFree works on a volume under its lock, and fails when somebody else works on it.
func (o *Operator) whileFree(key string, work func() error) error {
	free := false
	err := o.ifFree(key, func() error {
		free = true
		return work()
	})
	if err == nil && !free {
		return errors.New("another call works on it right now")
	}
	return err
}

// removeVolume takes a volume off this node as a removal that began and did not end. It looks at everything anew, since
// only now nobody else can work on it.
func (o *Operator) removeVolume(ctx context.Context, listed entry, older time.Duration) error {
	s, err := o.look()
	if err != nil {
		return err
	}
	e := o.entry(s, listed.key, listed.leaving)
	if e.err != nil {
		return fmt.Errorf("it has changed meanwhile: %w", e.err)
	}
	if _, over := isOver(e, older); !over {
		return errors.New("it is wanted again")
	}
	if err := o.unused(ctx, e); err != nil {
		return err
	}
	if err := o.journal().leave(e.key); err != nil {
		return err
	}
	err = o.finishRemoval(ctx, e.key)
	if !e.leaving && (errors.Is(err, iscsi.ErrInUse) || errors.Is(err, mount.ErrInUse)) {
		err = errors.Join(err, o.journal().write(e.key, e.record)) // or each call would try again
	}
	return err
}

// leftSessions are sessions with the array that the journal does not know. Without it nothing proves whose they are.
func (o *Operator) leftSessions(s scene) []Leftover {
	known := map[lun]bool{}
	for _, e := range o.entries(s) {
		known[lunOf(e.target)] = true
	}
	var found []Leftover
	for _, e := range strangers(s, known) {
		if len(e.mounts) > 0 {
			continue
		}
		device, _ := deviceOf(e.disks, nil)
		found = append(found, Leftover{
			Kind: kindSession, What: e.target.IQN + " (" + cmp.Or(device, "no disk") + ")", Why: "nothing of it is mounted",
			Keep: "the journal does not know it, so nothing proves that it is this driver's; if it is nobody's, end it with `iscsiadm -m node -T " + e.target.IQN + " --logout`",
		})
	}
	return found
}

// leftRecords are node records of the array's targets without a session.
func (o *Operator) leftRecords(s scene, records []iscsi.Record, older time.Duration) []Leftover {
	journalled := map[string]bool{}
	for _, e := range o.entries(s) {
		journalled[e.target.IQN] = true // they go with their volume
	}
	var found []Leftover
	listed := map[string]int{}
	for _, r := range records {
		if !OfTheArray(r.IQN) || journalled[r.IQN] || len(s.sessionsOf(r.IQN)) > 0 {
			continue
		}
		left := Leftover{
			Kind: kindRecord, What: r.IQN, Why: "it has no session, and the journal does not know it",
			remove: func(ctx context.Context) error { return o.Node.DeleteRecords(ctx, r.IQN) },
		}
		switch age := time.Since(r.Changed).Round(time.Second); {
		case age < older:
			left.Keep = fmt.Sprintf("it was written %s ago", age)
		case !r.Own && !r.Empty:
			left.Keep = r.Path + " was not written by this driver"
		}
		// All records of a target go together, so one that is kept keeps them all.
		if i, already := listed[r.IQN]; already {
			found[i].Keep = cmp.Or(found[i].Keep, left.Keep)
			continue
		}
		listed[r.IQN] = len(found)
		found = append(found, left)
	}
	return found
}
