package access_test

import (
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
)

// A choice is what happens next: to a caller's step, or by itself.
type choice struct {
	caller *caller
	what   string // what becomes of its step, with what follows a killed call; or of the world
}

const (
	carriesOut = "the array carries out what was given up"
	lineBreaks = "the line breaks"
	lineMends  = "the line is mended"
	nodeDies   = "the node dies"
	endSession = "the array ends the session"
	replaces   = "an administrator takes all groups out of the policy"
	showThem   = "the array shows the sessions that there are"
)

// key names a choice for a repetition of the order.
func (c choice) key() string {
	if c.caller == nil {
		return c.what
	}
	return c.caller.name + " " + c.what
}

// run carries out an order: choose says which of the possible choices is taken, or -1 when enough was seen.
func run(t *testing.T, a *array, s scenario, choose func(w *world, choices []choice) int, check func(w *world)) *world {
	t.Helper()
	var w *world
	synctest.Test(t, func(t *testing.T) {
		w = newWorld(t, a, s)
		defer w.close(t)
		var running atomic.Int32
		for _, c := range w.callers {
			running.Add(1)
			go func() {
				defer func() {
					w.mutex.Lock()
					c.ended = true
					w.mutex.Unlock()
					running.Add(-1)
					w.stir()
				}()
				c.acts()
			}()
		}
		for w.rest(&running); running.Load() > 0; w.rest(&running) {
			choices := w.choices()
			next := -1
			if w.wrong == "" {
				next = choose(w, choices)
			}
			if next < 0 {
				w.abandon()
				continue
			}
			w.take(choices[next])
		}
		if !w.over && check != nil {
			check(w)
		}
	})
	return w
}

// right wants nothing to have been violated.
func (w *world) right(t *testing.T) *world {
	t.Helper()
	require.Empty(t, w.wrong, "%+v: the order was\n%s", w.scenario, strings.Join(w.trace, "\n"))
	return w
}

// rest waits until each caller waits for its turn, or has ended. Only who waits for the lock of a volume may go on waiting.
func (w *world) rest(running *atomic.Int32) {
	for {
		synctest.Wait()
		w.mutex.Lock()
		for _, c := range w.callers {
			if c.dying {
				c.dying = false
				c.outcome <- outcome{killed: true}
			}
		}
		w.mutex.Unlock()
		synctest.Wait()
		w.mutex.Lock()
		waiting, working := 0, 0
		for _, c := range w.callers {
			if c.waits != nil {
				waiting++
				if c.calls {
					working++
				}
			}
		}
		w.mutex.Unlock()
		if waiting == int(running.Load()) || w.oneHost && working > 0 {
			return
		}
		if w.late != nil && !w.scenario.late { // before time passes
			w.take(choice{nil, carriesOut})
			continue
		}
		<-w.wake
	}
}

// choices are all that can happen next, in an order of their own.
func (w *world) choices() []choice {
	var all []choice
	for _, c := range w.callers {
		if c.waits == nil {
			continue
		}
		all = append(all, choice{c, goes})
		changes := c.waits.request != nil && !c.waits.reads
		var deaths []string
		if w.used.kills < w.budget.kills && c.calls && c.waits.kills {
			deaths = append(deaths, diesBefore)
			if !c.waits.reads {
				deaths = append(deaths, diesAfter)
			}
		}
		for _, death := range deaths {
			after := []string{calledAgain}
			if w.anyAfter && c.gets { // who takes a volume away insists
				after = append(after, calledOff, forgotten)
			}
			for _, follows := range after {
				all = append(all, choice{c, death + follows})
			}
		}
		if changes && w.used.losses < w.budget.losses {
			all = append(all, choice{c, loses})
		}
		if changes && w.used.lates < w.budget.lates && w.late == nil {
			all = append(all, choice{c, givesUp})
		}
	}
	return append(all, w.events()...)
}

// events are what happens by itself.
func (w *world) events() []choice {
	var all []choice
	if w.late != nil {
		all = append(all, choice{nil, carriesOut})
	}
	ai, _ := w.volume()
	if w.replaced && len(ai.Groups) > 0 {
		all = append(all, choice{nil, replaces})
	}
	if w.unseen && !slices.Equal(w.shown, slices.Sorted(maps.Keys(w.sessions))) {
		all = append(all, choice{nil, showThem})
	}
	for _, c := range w.callers {
		if w.sessions[c.iqn] != "" && w.used.breaks < w.budget.breaks {
			all = append(all, choice{c, lineBreaks})
		}
		if w.broken[c.iqn] {
			all = append(all, choice{c, lineMends})
		}
		if c.kernel.in != "" && w.used.crashes < w.budget.crashes {
			all = append(all, choice{c, nodeDies})
		}
		if w.lazy && w.sessions[c.iqn] != "" && !slices.Contains(ai.Allowed, c.iqn) {
			all = append(all, choice{c, endSession})
		}
	}
	return all
}

// take lets a choice happen.
func (w *world) take(next choice) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	c := next.caller
	if next.what == replaces {
		w.note("%s", next.what)
		_, err := w.server.Do("/root", http.MethodPut, "/app_instances/"+volumeName+"/storage_instances/storage-1/acl_policy", map[string]any{"initiator_groups": []any{}})
		w.expect(err == nil, "the policy cannot be changed: %v", err)
		w.settle()
		return
	}
	if next.what == showThem {
		w.note("%s", next.what)
		w.shown = slices.Sorted(maps.Keys(w.sessions))
		w.settle()
		return
	}
	if c == nil {
		w.note("%s: %s", next.what, w.late.label)
		request := w.late.request
		w.late = nil
		w.mutex.Unlock()
		_, _ = w.carryOut(request)
		w.mutex.Lock()
		return
	}
	switch next.what {
	case lineBreaks:
		w.used.breaks++
		w.broken[c.iqn] = true
	case lineMends:
		delete(w.broken, c.iqn)
	case nodeDies:
		w.used.crashes++
		c.kernel.stop()
		c.told = ""
	case endSession:
		delete(w.sessions, c.iqn)
	default:
		s := c.waits
		c.waits = nil
		chosen, after, killed := strings.Cut(next.what, ", ")
		switch {
		case killed:
			w.used.kills++
			c.after = ", " + after
		case chosen == loses:
			w.used.losses++
		case next.what == givesUp:
			w.used.lates++
			chosen = givesUp
		}
		if next.what == givesUp {
			chosen = givesUp
		}
		w.note("%s %s: %s", c.name, next.what, w.readable(s.label))
		s.choice <- chosen
		return
	}
	w.note("%s: %s", c.name, next.what)
	w.settle()
}

// abandon ends all calls.
func (w *world) abandon() {
	w.mutex.Lock()
	w.over = true
	for _, c := range w.callers {
		if c.waits != nil {
			s := c.waits
			c.waits, c.after = nil, forgotten
			s.choice <- diesBefore
		}
		c.after = forgotten
	}
	w.mutex.Unlock()
}

// settled wants nothing to be left when all are gone, and the volume to be open to everybody.
func settled(w *world) {
	w.mutex.Lock()
	w.free, w.budget, w.unseen, w.lazy = true, budget{}, false, false
	clear(w.broken)
	w.settle()
	w.mutex.Unlock()
	if w.holds {
		ai, found := w.volume()
		for _, c := range w.callers {
			w.expect(c.told == "" || found && ai.AdminState == datera.AdminOnline, "%s was told that it has the volume, which stays offline", c.name)
		}
		return
	}
	for _, c := range w.callers {
		if !c.deletes { // whoever was killed makes some other call
			for _, first := range []int{0, 1} { // on each of its hosts
				c.calledBefore = first
				o := c.idle()
				w.expect(o.success, "%s: %s", c.name, o)
			}
		}
	}
	if !w.none {
		w.empty()
	}
	for _, word := range []string{"1X"} { // by another name: that is refused by whatever is left
		c := newCaller(w, word)
		w.callers = append(w.callers, c)
		get, leave := c.attach, c.detach
		if c.world.none {
			get, leave = c.mount, c.unmount
		}
		o := get()
		w.expect(o.success, "when all are gone, %s is refused: %s", c.name, o)
		o = leave()
		w.expect(o.success, "%s, alone: %s", c.name, o)
	}
	w.empty()
}

// idle is a call that has nothing to do with the volume; it finds what a killed one left on its host.
func (c *caller) idle() outcome {
	if c.world.none {
		return c.serve("unmount", filepath.Join(filepath.Dir(c.podPath()), "another"))
	}
	return c.serve("detach", "another", nodeName(c.node))
}

// empty wants no claim, no session and no note to be left.
func (w *world) empty() {
	for name := range w.groups {
		members, _ := w.server.InitiatorGroup("/root", name)
		w.expect(len(members) == 0, "%s is left in %s", members, name)
	}
	w.expect(len(w.sessions) == 0, "sessions are left: %v", w.sessions)
	w.expect(len(w.files()) == 0, "files are left: %v", w.files())
}
