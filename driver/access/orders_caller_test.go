package access_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"

	"datera-flexvolume/driver"
)

// A caller is Kubernetes for one PersistentVolume on one node, the kubelet of a node in attach mode none, or somebody who
// deletes the volume. It makes one call at a time.
type caller struct {
	world         *world
	name          string // as in the scenario
	pv, node, iqn string
	cluster       string
	readOnly      bool
	deletes       bool
	kernel        *kernel

	waits        *step // at a gate
	ended        bool
	calls        bool // a call of it is under way
	gets         bool // it is one that gets the volume
	calledBefore int  // so many of its calls have ended
	dying        bool
	everTold     bool
	told         string   // the volume, by UUID, that it was told it has; until it calls detach
	history      [32]byte // what it knows
	changed      bool     // by its last step, or its call has just begun
	polls        string   // the last answer, to a read
	watches      bool     // between login and scan
	watched      int
	atLogin      [32]byte
	after        string // what follows its killed call
	cancel       context.CancelFunc
	outcome      chan outcome
}

// outcome is how a call ended.
type outcome struct {
	success, killed bool
	message         string
}

// A step is what a caller is about to do: a request, or something on its node.
type step struct {
	label   string
	reads   bool // it changes nothing, so two of them may change places
	kills   bool // a kill before it differs from one before the last step
	request *http.Request
	choice  chan string // what becomes of it
}

// What may become of a step.
const (
	goes       = "goes"
	diesBefore = "is killed before"
	diesAfter  = "is killed after"
	loses      = "gets no answer to"
	givesUp    = "gives up, on the way is"
)

// What may follow a killed call.
const (
	calledAgain = ", is called again"
	calledOff   = ", is called off" // detach or unmount follows
	forgotten   = ", is forgotten"  // nothing follows: the caller was killed, too
)

func newCaller(w *world, word string) *caller {
	c := &caller{world: w, name: word, cluster: "kubernetes"}
	who, cluster, other := strings.Cut(word, "/")
	if other {
		c.cluster = cluster
	}
	if c.deletes = strings.HasPrefix(who, "D"); c.deletes {
		c.pv, c.node = "0", "D"
	} else {
		c.pv, c.node, c.readOnly = who[:1], who[1:2], strings.HasSuffix(who, "r")
	}
	c.iqn = hostIQN(c.node, c.cluster)
	c.kernel = w.kernelOf(c.iqn)
	return c
}

// learns adds to what a caller knows.
func (c *caller) learns(what string) {
	c.history, c.polls = sha256.Sum256(fmt.Append(c.history[:], what)), ""
}

// looks forgets, when a look of attach mode none begins, what the looks since the login have seen: each goes by what it sees
// itself and by who was stale in the one before, of whom it leaves only those that are stale still.
func (c *caller) looks(s *step) {
	if c.watches && s.reads && strings.HasPrefix(s.label, "GET /app_instances/") {
		c.watched++
		c.history = sha256.Sum256(fmt.Append(c.atLogin[:], c.watched))
	}
}

type callerKey struct{}

// call runs one call in a process of its own, and returns when that has ended.
func (c *caller) call(name string, run func(ctx context.Context, d *driver.Driver) outcome) outcome {
	w := c.world
	w.mutex.Lock()
	over := w.over
	w.mutex.Unlock()
	if over {
		runtime.Goexit()
	}
	if w.oneHost { // who is called first has the lock
		c.step(name+" is called", false, func() {})
	}
	ctx, cancel := context.WithCancel(context.WithValue(w.alive, callerKey{}, c))
	c.cancel, c.calls, c.changed = cancel, true, true
	before := c.history
	c.learns(name)
	ended := make(chan outcome, 2) // of a killed call, too, something is heard at last
	c.outcome = ended
	w.processes.Go(func() { ended <- run(ctx, w.driver(c)) })
	o := <-ended
	if !o.killed {
		cancel()
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	c.calls = false
	c.calledBefore++
	w.note("%s: %s: %s", c.name, name, o)
	c.history = before // what a process knew goes with it
	c.learns(fmt.Sprint(name, o.success, o.killed, c.after))
	return o
}

func (o outcome) String() string {
	switch {
	case o.killed:
		return "killed"
	case o.success:
		return "Success"
	}
	return "Failure: " + o.message
}

// serve makes a call as Kubernetes does.
func (c *caller) serve(args ...string) outcome {
	return c.call(args[0], func(ctx context.Context, d *driver.Driver) outcome {
		reply := d.Serve(ctx, args)
		return outcome{success: reply.Status == driver.Success, message: reply.Message}
	})
}

func (c *caller) pvName() string { return "pv-" + c.pv }

func (c *caller) options() string {
	access := "rw"
	if c.readOnly {
		access = "ro"
	}
	document, err := json.Marshal(map[string]string{
		"kubernetes.io/pvOrVolumeName": c.pvName(), "kubernetes.io/readwrite": access, "volumeID": volumeName, "size": "10", "retainPolicy": "never",
	})
	if err != nil {
		panic(err)
	}
	return string(document)
}

func (c *caller) podPath() string {
	return filepath.Join("/var/lib/kubelet/pods/11111111-2222-3333-4444-55555555555"+c.pv, "volumes", driver.FolderName, c.pvName())
}

// acts is the life of a caller.
func (c *caller) acts() {
	switch {
	case c.deletes:
		c.insist(c.delete)
	case c.world.none:
		c.come(c.mount, c.unmount)
	default:
		c.come(c.attach, c.detach)
	}
}

// come gets the volume, uses it, and lets it go.
func (c *caller) come(get, leave func() outcome) {
	for tried := 1; ; tried++ {
		c.gets = true
		o := get()
		c.gets = false
		switch {
		case o.success && c.world.repeats && tried == 1:
			continue
		case o.success && c.world.holds:
			return
		case o.success:
		case o.killed && c.after == calledAgain, !o.killed && tried < c.world.tries:
			continue
		case c.told == "" && (o.killed && c.after == forgotten || !o.killed):
			return
		}
		break
	}
	if c.world.returns {
		if leave(); get().success || c.kernel.in != "" {
			c.insist(leave)
		}
		return
	}
	c.insist(leave)
}

// insist repeats a call that was killed, or failed, as Kubernetes does.
func (c *caller) insist(call func() outcome) {
	for tried := 1; ; tried++ {
		if o := call(); o.success || c.deletes && !o.killed || tried == 4 {
			return
		}
	}
}

func (c *caller) attach() outcome {
	o := c.serve("attach", c.options(), nodeName(c.node))
	if o.success {
		c.wasTold()
		c.step("uses the volume", false, func() { c.kernel.use(c.readOnly) })
	}
	return o
}

func (c *caller) detach() outcome {
	if c.told != "" {
		c.step("is to detach", false, func() {
			if c.told = ""; !c.world.force && !c.world.returns {
				c.kernel.stop()
			}
		})
	}
	o := c.serve("detach", c.pvName(), nodeName(c.node))
	if o.success && c.kernel.in != "" && !(c.world.returns && c.calledBefore < 4) {
		c.step("stops using the volume", false, c.kernel.stop)
	}
	return o
}

func (c *caller) mount() outcome {
	o := c.serve("mount", c.podPath(), c.options())
	if o.success {
		c.wasTold()
	}
	return o
}

func (c *caller) unmount() outcome {
	c.step("is about to unmount", false, func() { c.told = "" })
	return c.serve("unmount", c.podPath())
}

func (c *caller) delete() outcome {
	return c.call("delete", func(ctx context.Context, d *driver.Driver) outcome {
		volume, err := driver.ParseVolume(c.options(), c.cluster)
		if err == nil {
			err = d.Delete(ctx, volume)
		}
		return outcome{success: err == nil, message: fmt.Sprint(err)}
	})
}

func (c *caller) wasTold() {
	c.world.mutex.Lock()
	defer c.world.mutex.Unlock()
	if ai, found := c.world.volume(); found {
		c.told, c.everTold = ai.ID, true
	} else {
		c.world.violated("%s was told that it has the volume, which is gone", c.name)
	}
	c.world.look()
}
