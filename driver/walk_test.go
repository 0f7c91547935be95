package driver

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// The walk cuts each call of a volume's life at each of its steps in each way, plays what kubelet would do next in each
// way, and looks at what must never happen: mkfs twice, two writers, a call that never succeeds again, anything left.
// The same is done with real parts in testdata/faults.

// life is the order of the calls, by who makes them.
func life(mode AttachMode) []string {
	if mode == AttachNone {
		return []string{"mount", "expandfs", "unmount"}
	}
	return []string{"attach", "waitforattach", "mountdevice", "mount", "expandfs", "unmount", "unmountdevice", "detach"}
}

// continuation is what happens after a call was cut.
type continuation string

const (
	again       continuation = "the same call again"
	once        continuation = "the same call once more, whatever it says"
	podDeleted  continuation = "the pod is deleted"
	otherNode   continuation = "the pod moves"
	reboot      continuation = "the node reboots"
	rebootLost  continuation = "the node reboots and loses the journal"
	rebootAndGo continuation = "the node reboots, and the pod moves"
	lostAndGo   continuation = "the node reboots, loses the journal, and the pod moves"
)

// kubeletTries is how often a call may fail before it counts as one that never succeeds.
const kubeletTries = 3

func TestWalk(t *testing.T) {
	for _, mode := range []AttachMode{AttachController, AttachKubelet, AttachNone} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			for _, verb := range life(mode) {
				t.Run(verb, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { walkCall(t, mode, verb, false) }) })
				if verb == "attach" || verb == "mountdevice" || mode == AttachNone && verb == "mount" {
					t.Run(verb+" of a used volume", func(t *testing.T) { synctest.Test(t, func(t *testing.T) { walkCall(t, mode, verb, true) }) })
				}
			}
		})
	}
}

func walkCall(t *testing.T, mode AttachMode, verb string, used bool) {
	dir := memoryDir(t)
	walked, bad := 0, 0
	play := func(s scenario) *cut {
		k := &kubelet{world: newWorld(filepath.Join(dir, fmt.Sprint(walked)), mode)}
		walked++
		if used {
			require.True(t, k.up("node-b") && k.down("node-b"), k.trail)
		}
		c := k.play(s)
		k.end()
		if len(k.violations) > 0 {
			bad++
			t.Errorf("%+v:\n%s\n%s", s, strings.Join(k.violations, "\n"), strings.Join(k.trail, "\n"))
		}
		require.Less(t, bad, 5, "that is enough")
		return c
	}
	steps := play(scenario{verb: verb, then: again}).steps
	require.NotEmpty(t, steps, "%s does nothing", verb)
	for i, step := range steps {
		for _, s := range scenarios(mode, verb, step) {
			s.at = i + 1
			require.True(t, play(s).hit(), "%+v: the call ended before", s)
		}
	}
	t.Logf("%d steps, %d scenarios", len(steps), walked)
}

// scenario says which call is cut where and how, and what happens then.
type scenario struct {
	verb string
	at   int
	how  ending
	then continuation
}

func scenarios(mode AttachMode, verb, step string) []scenario {
	var all []scenario
	add := func(how ending, continuations ...continuation) {
		for _, then := range continuations {
			all = append(all, scenario{verb: verb, how: how, then: then})
		}
	}
	add(failed, again, podDeleted)
	if onlyReads(step) {
		return all // whoever is killed there leaves what he left after the last change
	}
	add(failedBehind, again, podDeleted)
	add(killed, again, podDeleted, otherNode, reboot, rebootAndGo)
	add(killedAfter, again, podDeleted, otherNode, rebootLost, lostAndGo)
	if mode == AttachController && (verb == "attach" || verb == "detach") {
		return all // a rival is on the same host, where the volume's lock makes him wait
	}
	add(overtaken, podDeleted)
	add(overtakenKilled, once)
	return all
}

func onlyReads(step string) bool {
	return slices.Contains([]string{"read", "find", "list", "inspect", "wait"}, strings.Fields(step)[0])
}

// kubelet plays kubelet on all nodes, and kube-controller-manager.
type kubelet struct {
	*world
	device, disk string
	trail        []string
}

// call makes one call on behalf of a pod on a node. Detach and attach run where the mode says.
func (k *kubelet) call(node, verb string, c *cut) Reply {
	h := k.hosts[node]
	if k.mode == AttachController && (verb == "attach" || verb == "detach") {
		h = k.hosts["control"]
	}
	options := optionsWith(nil)
	args := map[string][]string{
		"attach":        {options, node},
		"waitforattach": {k.device, options},
		"mountdevice":   {globalPath, k.disk, options},
		"mount":         {podPath, options},
		"expandfs":      {options, k.disk, k.globalOf(h), fmt.Sprint(101 * gib), fmt.Sprint(100 * gib)},
		"unmount":       {podPath},
		"unmountdevice": {globalPath},
		"detach":        {"pv-datera-0", node},
	}[verb]
	reply := h.run(c, append([]string{verb}, args...)...)
	line := fmt.Sprintf("%s on %s: %s %s", verb, node, reply.Status, reply.Message)
	if c.hit() {
		line += fmt.Sprintf(" <- %s at %q", c.how, c.steps[c.at-1])
	}
	k.trail = append(k.trail, line)
	switch {
	case reply.Status != Success:
	case verb == "attach":
		k.device = reply.Device
	case verb == "waitforattach":
		k.disk = reply.Device
	}
	return reply
}

func (k *kubelet) globalOf(h *cutHost) string {
	if k.mode == AttachNone {
		if key, err := h.driver.directKey(Volume{AppInstance: "kube-pv-datera-0"}); err == nil {
			return podVolume{root: kubeletRoot}.globalPath(key)
		}
	}
	return globalPath
}

// insist makes a call until it succeeds, as kubelet does.
func (k *kubelet) insist(node, verb string) bool {
	for range kubeletTries {
		if reply := k.call(node, verb, &cut{}); reply.Status == Success {
			if verb == "expandfs" && k.filled[volumeUUID] != k.sizeGiB*gib {
				k.violated("expandfs succeeds, and the file system has %d bytes", k.filled[volumeUUID])
			}
			return true
		}
	}
	k.violated("%s on %s never succeeds", verb, node)
	return false
}

func (k *kubelet) mountedAt(node, path string) bool {
	_, found := k.hosts[node].at(path)
	return found
}

// needed tells whether kubelet makes a call: never for a path that is, or is not, a mount point already.
func (k *kubelet) needed(node, verb string) bool {
	switch verb {
	case "mountdevice":
		return !k.mountedAt(node, globalPath)
	case "mount":
		return !k.mountedAt(node, podPath)
	case "unmount":
		return k.mountedAt(node, podPath)
	case "unmountdevice":
		return k.mountedAt(node, globalPath)
	}
	return true
}

// through makes those calls of a life that are needed.
func (k *kubelet) through(node string, verbs []string) bool {
	for _, verb := range verbs {
		if k.needed(node, verb) && !k.insist(node, verb) {
			return false
		}
	}
	return true
}

// up brings the pod's volume to a node, down takes it away.
func (k *kubelet) up(node string) bool {
	return k.through(node, slices.DeleteFunc(life(k.mode), func(verb string) bool { return verb == "expandfs" || isTakingAway(verb) }))
}

func (k *kubelet) down(node string) bool {
	return k.through(node, slices.DeleteFunc(life(k.mode), func(verb string) bool { return !isTakingAway(verb) }))
}

func isTakingAway(verb string) bool { return Verbs()[findVerb(verb)].takesAway || verb == "detach" }

// play makes the calls of a life up to one that is cut, and goes on from there.
func (k *kubelet) play(s scenario) *cut {
	const a, b = "node-a", "node-b"
	verbs := life(k.mode)
	index := slices.Index(verbs, s.verb)
	k.through(a, verbs[:index])
	c := &cut{at: s.at, how: s.how, rival: func() { k.overtake(a, b) }}
	k.call(a, s.verb, c)
	k.trail = append(k.trail, string(s.then))
	switch s.then {
	case once:
		k.call(a, s.verb, &cut{})
	case again:
		k.through(a, verbs[index:])
	case otherNode:
		k.move(a, b)
	case reboot, rebootLost:
		k.hosts[a].reboot(s.then == rebootLost)
		if k.up(a) {
			k.down(a)
		}
	case rebootAndGo, lostAndGo:
		k.hosts[a].reboot(s.then == lostAndGo)
		k.move(a, b)
	}
	k.checkAccess()
	k.down(a)
	k.down(b)
	k.settle(a)
	// The data is still there, and can be had on the other node.
	if k.up(b) {
		k.down(b)
	}
	k.settle(a)
	k.settle(b)
	// In mode controller no call tells a node of a pod that was deleted before mountdevice: what is left there goes when
	// the volume comes once more (README, Limits).
	beforeMount := s.verb == "waitforattach" || s.verb == "mountdevice"
	if k.mode == AttachController && beforeMount && len(k.hosts[a].left()) > 0 && k.up(a) {
		k.down(a)
	}
	k.checkNothingLeft()
	return c
}

// move brings the pod to another node while nobody can ask the first one, which comes back later. Where the first one
// itself detaches, or still has a session, the other is refused until then.
func (k *kubelet) move(from, to string) {
	if k.mode == AttachController {
		if k.insist(from, "detach") && k.up(to) {
			k.through(from, []string{"unmount", "unmountdevice"})
		}
		return
	}
	first := life(k.mode)[0]
	if reply := k.call(to, first, &cut{}); reply.Status != Success {
		k.down(from)
		k.settle(from)
	}
	k.up(to)
}

// overtake brings the pod to another node in the middle of a call for the first, as far as the array lets it.
func (k *kubelet) overtake(from, to string) {
	if k.mode == AttachController && !k.insist(from, "detach") {
		return
	}
	for _, verb := range life(k.mode) {
		if verb == "expandfs" || k.call(to, verb, &cut{}).Status != Success {
			return
		}
	}
}

// settle lets some other call come to the node: whatever it is, it finishes what is unfinished.
func (k *kubelet) settle(node string) {
	reply := k.hosts[node].run(&cut{}, "unmount", otherPod)
	if reply.Status != Success {
		k.violated("a call about another volume fails: %s", reply.Message)
	}
}

func (k *kubelet) checkNothingLeft() {
	for name, h := range k.hosts {
		for _, left := range h.left() {
			k.violated("left on %s: %s", name, left)
		}
	}
	for _, left := range k.leftOnArray() {
		k.violated("left on the array: %s", left)
	}
}

// A record that a killed call was writing is no use to anybody, but one that is being written must stay.
func TestCallsRemoveHalfWrittenRecords(t *testing.T) {
	n := newNode(t, array(t), "node-a")
	half := n.journal().inUse("pv-datera-0")
	half = filepath.Join(filepath.Dir(half), "."+filepath.Base(half)+".123")
	require.NoError(t, os.MkdirAll(filepath.Dir(half), 0o700))
	require.NoError(t, os.WriteFile(half, []byte("{"), 0o600))
	unlock, err := n.lockVolume(t.Context(), "pv-datera-0")
	require.NoError(t, err)
	n.ask(t, "unmount", otherPod)
	require.FileExists(t, half, "it was taken from under whoever writes it")
	unlock()
	n.ask(t, "unmount", otherPod)
	require.NoFileExists(t, half)
}
