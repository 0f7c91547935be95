package driver

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
	"datera-flexvolume/datera/dateratest"
)

// notes are the claims on this host of which no caller was told.
func (n *node) notes(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(n.intentDir(), "*"))
	require.NoError(t, err)
	return found
}

// leftByAKill attaches in a process that is killed right after the array let the node in: the claim is there, no caller was told.
func leftByAKill(t *testing.T, server *dateratest.Server, n *node, options string) {
	t.Helper()
	tenant := "/root"
	for at := 1; ; at++ {
		require.True(t, n.killedAt(t, server, at, true, "attach", options, n.name), "the attach ended before it had a claim")
		volume, err := n.volume(options)
		require.NoError(t, err)
		if volume.Tenant != "" {
			tenant = volume.Tenant
		}
		if ai, found := server.AppInstance(tenant, volume.AppInstance); found && slices.Contains(ai.Allowed, n.iqn) {
			require.Len(t, n.notes(t), 1)
			return
		}
	}
}

// After an attach that was killed no controller detaches: whatever call comes next to this host takes back what it left.
func TestAnAttachThatWasKilledIsWithdrawnByTheNextCall(t *testing.T) {
	next := map[string][]string{
		"the same attach":                            {"attach", optionsUnder("pv-1", "vol-1"), "node-a"},
		"an attach to read":                          {"attach", readingUnder("pv-1", "vol-1"), "node-a"},
		"the attach of another node":                 {"attach", optionsUnder("pv-1", "vol-1"), "node-b"},
		"the attach of another PersistentVolume":     {"attach", optionsUnder("pv-2", "vol-2"), "node-a"},
		"the attach of the volume by another one":    {"attach", optionsUnder("pv-2", "vol-1"), "node-b"},
		"isattached":                                 {"isattached", optionsUnder("pv-1", "vol-1"), "node-a"},
		"isattached of another PersistentVolume":     {"isattached", optionsUnder("pv-2", "vol-2"), "node-b"},
		"detach":                                     {"detach", "pv-1", "node-a"},
		"the detach of another PersistentVolume":     {"detach", "pv-2", "node-b"},
		"the attach of the PersistentVolume's other": {"attach", optionsUnder("pv-1", "vol-2"), "node-a"},
	}
	accesses := map[string][]string{"the same attach": {"rw", "ro"}, "an attach to read": {"rw", "ro"}, "isattached of another PersistentVolume": {"rw", "ro"}}
	for name, call := range next {
		for _, access := range append(accesses[name], "rw")[:max(1, len(accesses[name]))] {
			t.Run(name+", "+access, func(t *testing.T) {
				t.Parallel()
				killed := optionsWith(map[string]string{keyName: "pv-1", optVolumeID: "vol-1", keyReadWrite: access})
				for at, dead := 1, true; dead; at++ {
					dead = isWithdrawn(t, name, call, killed, at, true)
					require.True(t, dead || at > 7)
				}
				if name != "isattached of another PersistentVolume" {
					return
				}
				for at, dead := 1, true; dead; at++ { // what the call wrote on the host before it died is the same for all that come next
					dead = isWithdrawn(t, name, call, killed, at, false)
				}
			})
		}
	}
}

// isWithdrawn kills an attach at a request and lets the next call come. It reports whether the attach came so far.
func isWithdrawn(t *testing.T, name string, call []string, killed string, at int, behind bool) bool {
	way := fmt.Sprintf("killed at request %d, which the array got: %v", at, behind)
	server := array(t)
	n, b := newNode(t, server, "node-a", inMemory(t)).registered(t), newNode(t, server, "node-b", inMemory(t)).registered(t)
	if !n.killedAt(t, server, at, behind, "attach", killed, "node-a") {
		return false
	}
	require.Equal(t, call[0] != "isattached", n.ask(t, call...).Attached == nil)
	require.Empty(t, n.notes(t), way)
	if _, made := server.AppInstance("/root", "vol-1"); made {
		want := map[string][]string{"the same attach": {n.iqn}, "an attach to read": {n.iqn},
			"the attach of another node": {b.iqn}, "the attach of the volume by another one": {b.iqn}}[name]
		require.Equal(t, want, letIn(t, server, "vol-1"), way)
	}
	return true
}

// A claim of which the caller was told is not noted; who repeats the call and is killed takes nothing from it.
func TestAClaimThatWasToldIsNotWithdrawn(t *testing.T) {
	options := optionsUnder("pv-1", "vol-1")
	for _, behind := range []bool{false, true} {
		for at, dead := 1, true; dead; at++ {
			server := array(t)
			n := newNode(t, server, "node-a", inMemory(t)).registered(t)
			n.ask(t, "attach", options, "node-a")
			require.Empty(t, n.notes(t))
			dead = n.killedAt(t, server, at, behind, "attach", options, "node-a")
			require.Empty(t, n.notes(t), "killed at request %d", at)
			n.ask(t, "isattached", optionsUnder("pv-2", "vol-2"), "node-a")
			require.Equal(t, []string{n.iqn}, letIn(t, server, "vol-1"), "a node was cut off whose attach was repeated, and killed at request %d", at)
			require.True(t, dead || at > 4)
		}
	}
}

// A claim with a session was told by an attach on another host: kube-controller-manager has moved.
func TestAClaimWithASessionIsNotWithdrawn(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	leftByAKill(t, server, n, optionsUnder("pv-1", "vol-1"))
	newNode(t, server, "other-host").ask(t, "attach", optionsUnder("pv-1", "vol-1"), "node-a")
	setActiveInitiators(t, server, "vol-1", n.iqn)
	n.ask(t, "isattached", optionsUnder("pv-2", "vol-2"), "node-a")
	require.Equal(t, []string{n.iqn}, letIn(t, server, "vol-1"), "a node was cut off in the middle of its work")
	require.Empty(t, n.notes(t))
	setActiveInitiators(t, server, "vol-1")
	n.ask(t, "isattached", optionsUnder("pv-2", "vol-2"), "node-a")
	require.Equal(t, []string{n.iqn}, letIn(t, server, "vol-1"), "the note outlived what it was for")
}

// The session of another node says nothing about this one's claim.
func TestAClaimBesideASessionIsWithdrawn(t *testing.T) {
	server := array(t)
	a, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
	b.ask(t, "attach", readingUnder("pv-1", "vol-1"), "node-b")
	leftByAKill(t, server, a, readingUnder("pv-1", "vol-1"))
	setActiveInitiators(t, server, "vol-1", b.iqn)
	require.Len(t, letIn(t, server, "vol-1"), 2)
	a.ask(t, "isattached", optionsUnder("pv-2", "vol-2"), "node-a")
	require.Equal(t, []string{b.iqn}, letIn(t, server, "vol-1"))
}

func TestNotesOfClaims(t *testing.T) {
	other := []string{"isattached", optionsUnder("pv-2", "vol-2"), "node-a"}
	tests := map[string]struct {
		spoils func(t *testing.T, server *dateratest.Server, n *node, note string)
		stays  bool // the claim
		noted  int
	}{
		"as it was written": {func(*testing.T, *dateratest.Server, *node, string) {}, false, 0},
		"a second one was being written": {func(t *testing.T, _ *dateratest.Server, _ *node, note string) {
			half := filepath.Join(filepath.Dir(note), "."+filepath.Base(note)+".123")
			require.NoError(t, os.WriteFile(half, []byte(`{"pv":"pv-1","vol`), 0o600))
		}, false, 0},
		"torn": {func(t *testing.T, _ *dateratest.Server, _ *node, note string) {
			require.NoError(t, os.WriteFile(note, []byte(`{"pv":"pv-1","vol`), 0o600))
		}, true, 1},
		"the volume is gone": {func(t *testing.T, server *dateratest.Server, n *node, _ string) {
			_, err := mustArray(t, n).SetAdminState(t.Context(), "vol-1", datera.AdminOffline, true)
			require.NoError(t, err)
			require.NoError(t, mustArray(t, n).DeleteAppInstance(t.Context(), idOf(t, server, "vol-1")))
		}, false, 0},
		"the claim is gone": {func(t *testing.T, server *dateratest.Server, n *node, _ string) {
			newNode(t, server, "other-host").ask(t, "detach", "pv-1", "node-a")
		}, false, 0},
		"the array does not answer": {func(t *testing.T, _ *dateratest.Server, n *node, _ string) {
			n.passing(func(r *http.Request, array http.RoundTripper) (*http.Response, error) {
				if r.Method != http.MethodGet && r.URL.Path != "/v2.2/login" {
					return answered(r, http.StatusForbidden, "{}"), nil
				}
				return array.RoundTrip(r)
			})
		}, true, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := array(t)
			n := newNode(t, server, "node-a").registered(t)
			leftByAKill(t, server, n, optionsUnder("pv-1", "vol-1"))
			test.spoils(t, server, n, n.notes(t)[0])
			n.ask(t, other...)
			require.Len(t, n.notes(t), test.noted)
			if ai, found := server.AppInstance("/root", "vol-1"); found {
				require.Equal(t, test.stays, len(ai.Allowed) > 0)
			}
		})
	}
}

// A note leads to the tenant of its volume.
func TestAnAttachThatWasKilledInAnotherTenant(t *testing.T) {
	server := withTenants(t, "dev")
	n := newNode(t, server, "node-a").registered(t)
	leftByAKill(t, server, n, optionsIn("dev", "pv-1", "vol-1"))
	n.ask(t, "isattached", optionsUnder("pv-2", "vol-2"), "node-a")
	require.Empty(t, letInOf(t, server, "/root/dev", "vol-1"))
	require.Empty(t, n.notes(t))
}

// A call that is at work on the volume has a note, too; it is its own to erase.
func TestTheNoteOfACallAtWorkIsLeftAlone(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	leftByAKill(t, server, n, optionsUnder("pv-1", "vol-1"))
	unlock, err := n.lockVolume(t.Context(), "pv-1")
	require.NoError(t, err)
	n.ask(t, "isattached", optionsUnder("pv-2", "vol-2"), "node-a")
	require.Len(t, n.notes(t), 1)
	require.Equal(t, []string{n.iqn}, letIn(t, server, "vol-1"))
	unlock()
	n.ask(t, "isattached", optionsUnder("pv-2", "vol-2"), "node-a")
	require.Empty(t, n.notes(t))
	require.Empty(t, letIn(t, server, "vol-1"))
}

// What cannot be noted is not done.
func TestAClaimThatCannotBeNotedIsNotMade(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	require.NoError(t, os.MkdirAll(n.Config.RunDir, 0o700))
	makeVolume(t, n, "vol-1")
	note := n.intentPath(intent{PV: "pv-1", Group: groupName("kubernetes", "pv-1", idOf(t, server, "vol-1"), "rw")})
	require.NoError(t, os.MkdirAll(filepath.Join(note, "in the way"), 0o700))
	require.Contains(t, n.refused(t, "attach", optionsUnder("pv-1", "vol-1"), "node-a"), "note the claim")
	require.Empty(t, letIn(t, server, "vol-1"))
}

// CHAP comes before the claim: what follows the claim could fail, and leave it.
func TestCHAPThatFailsLeavesNoClaim(t *testing.T) {
	for _, mode := range []AttachMode{AttachController, AttachKubelet, AttachNone} {
		t.Run(string(mode), func(t *testing.T) {
			server := array(t)
			n := newNode(t, server, "node-a", attachMode(mode), func(c *Config) { c.CHAP = CHAPConfig{Username: "chap-user", Password: "chap-secret-1"} }).registered(t)
			makeVolume(t, n, "vol-1")
			require.NoError(t, server.SetFault(dateratest.Fault{Name: dateratest.Cut, Value: "0", Method: http.MethodPut, Path: "/auth$"}))
			server.ResetRequests()
			call := []string{"attach", optionsUnder("pv-1", "vol-1"), "node-a"}
			if mode == AttachNone {
				call = []string{"mount", podPathOf("pv-1"), optionsUnder("pv-1", "vol-1")}
			}
			require.Contains(t, n.refused(t, call...), "set CHAP of")
			require.Empty(t, letIn(t, server, "vol-1"))
			require.Empty(t, n.notes(t))
			for _, request := range server.Requests() {
				require.False(t, request.Method != http.MethodGet && request.Path != "/login" && request.Path[len(request.Path)-5:] != "/auth", "%s", request)
			}
		})
	}
}
