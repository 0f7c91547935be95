package access_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The orders in which the model found wordings of the rules wrong that were tried before, by the names that they have there.
// The code holds in each of them.
func TestOrdersThatAnotherWordingFailsIn(t *testing.T) {
	killed := func(n int) budget { return budget{kills: n} }
	tests := map[string]struct {
		scenario
		order, told string
	}{
		"groups by name": {scenario{who: "0A,0B,D"}, `
			0A to POST /initiator_groups
			D to DELETE /app_instances
			0A past acl_policy
			D past DELETE /app_instances
			0B past POST /app_instances
			D ends
			0B ends
			0A ends`, `
			D: delete: Success
			0B: attach: Success
			0A: attach: Failure`},
		"groups by name, the second look by UUID": {scenario{who: "0A,0B,D", budget: killed(1)}, `
			0A to POST /initiator_groups
			0B to POST /initiator_groups
			D to DELETE /app_instances
			0A to acl_policy
			0A is killed before, is called again
			D past DELETE /app_instances
			0A past POST /app_instances
			0A past POST /initiator_groups
			D ends
			0B past POST /initiator_groups
			0A ends`, `
			0A: attach: killed
			D: delete: Success
			0A: attach: Success
			0B: attach: Failure`},
		"groups by name, the own group read again": {scenario{who: "0A,0B,D", tries: 2}, `
			0A to POST /initiator_groups
			0B to POST /initiator_groups
			D past "offline"
			0A past acl_policy
			0A ends
			D to DELETE /app_instances
			D past DELETE /app_instances
			0A past POST /app_instances
			0A past POST /initiator_groups
			D ends
			0B past POST /initiator_groups
			0A ends
			0B ends`, `
			0A: attach: Failure
			D: delete: Success
			0A: attach: Success
			0B: attach: Failure`},
		"groups by name, and deleted while referred to": {scenario{who: "0A,D", budget: killed(1), holds: true}, `
			0A to POST /initiator_groups
			D to DELETE /app_instances
			0A to acl_policy
			0A is killed before, is called again
			D past DELETE /app_instances
			0A ends
			D ends`, `
			0A: attach: killed
			D: delete: Success
			0A: attach: Success`},
		"offline ignored": {scenario{who: "0A,D"}, `
			0A to POST /initiator_groups
			D to DELETE /app_instances
			0A past acl_policy
			0A ends
			D ends`, `
			0A: attach: Failure: volume vol-1 (offline) no longer lets node node-a in
			D: delete: Success`},
		"a node comes while the volume is deleted": {scenario{who: "0A,D", holds: true}, `
			D to "offline"
			0A ends
			D ends`, `
			0A: attach: Success
			D: delete: Failure`},
		"a delete is killed while the volume is offline": {scenario{who: "0A,D", holds: true, budget: killed(1)}, `
			D to "offline"
			0A ends
			D is killed after, is called again
			D ends`, `
			0A: attach: Success
			D: delete: killed
			D: delete: Failure`},
		"two deletes at once": {scenario{who: "1A,D1,D2", oneHost: true}, `
			D1 past delete is called
			D2 past delete is called
			D1 to DELETE /app_instances
			1A past attach is called
			1A ends
			D1 ends
			D2 ends`, `
			1A: attach: Success
			D1: delete: Failure
			D2: delete: Failure`},
		"withdrawn without a note": {scenario{who: "0A,0B", repeats: true}, `
			0B to POST /initiator_groups
			0A ends
			0A past uses the volume
			0A past GET /app_instances/vol-1
			0B past {"path":"/initiators/iqn.1993-08.org.debian:01:kubernetes-b","op":"add"}
			0A ends
			0B ends`, `
			0A: attach: Success
			0A: attach: Failure
			0B: attach: Failure`},
		"two calls at once": {scenario{who: "0A,0A2,0B", oneHost: true, holds: true}, `
			0A past attach is called
			0A2 past attach is called
			0A ends`, `
			0A: attach: Success`},
		"a claim that was told, and another call on its host": {scenario{who: "0A,1B", oneHost: true}, `
			0A past attach is called
			0A ends
			1B past attach is called
			1B ends`, `
			0A: attach: Success
			1B: attach: Failure`},
		"a note of a claim, and a session by another name": {scenario{who: "0A,1A", budget: killed(1)}, `
			0A to acl_policy
			0A is killed before, is called again
			1A ends
			1A past uses the volume
			0A ends`, `
			0A: attach: killed
			1A: attach: Success
			0A: attach: Failure`},
		"nothing withdrawn": {scenario{who: "0A,0B", budget: killed(2), anyAfter: true}, `
			0A to POST /initiator_groups
			0B to POST /initiator_groups
			0A to acl_policy
			0A is killed before, is forgotten
			0B to acl_policy
			0B is killed before, is forgotten`, `
			1X: attach: Success`},
		"no second look": {scenario{who: "0A,1B"}, `
			0A to acl_policy
			1B to POST /initiator_groups
			0A ends
			0A past uses the volume
			1B ends`, `
			0A: attach: Success
			1B: attach: Failure`},
		"members read last": {scenario{who: "0A,0B", force: true, lazy: true, budget: killed(1)}, `
			0B to POST /initiator_groups
			0A ends
			0B to "op":"remove"
			0B is killed before, is called again
			0B past GET /app_instances/vol-1
			0A past uses the volume
			0A past is to detach
			0A ends
			0B ends`, `
			0A: attach: Success
			0A: detach: Success
			0B: attach: Failure`},
		"members read last, by two names": {scenario{who: "0A,1B", force: true, lazy: true}, `
			0A to acl_policy
			1B to POST /initiator_groups
			0A ends
			1B past acl_policy
			1B past GET /app_instances/volume#1
			0A past uses the volume
			0A past is to detach
			0A ends
			1B ends`, `
			0A: attach: Success
			0A: detach: Success
			1B: attach: Failure`},
		"a reference that was seen last": {scenario{who: "0A,0Br,0Cr,0X", budget: killed(1), moves: true, lazy: true, force: true}, `
			0X ends
			0X past uses the volume
			0X past is to detach
			0X ends
			0X past stops using the volume
			0A to "op":"add"
			0Cr to POST /initiator_groups
			0Br to acl_policy
			0Br is killed before, is called again
			0Br past GET /app_instances/vol-1
			0Br past GET /initiator_groups
			0A ends
			0Cr past acl_policy
			0Br ends`, `
			0A: attach: Success
			0Br: attach: Failure`},
		"a given-up addition stays": {scenario{who: "0A,0B", budget: budget{lates: 1}}, `
			0A to POST /initiator_groups
			0A gives up, on the way is
			0A ends
			0B ends`, `
			the array carries out what was given up
			0A: attach: Failure
			0B: attach: Success`},
		"a given-up removal, while its call holds the lock": {scenario{who: "0A,0B", returns: true, budget: budget{lates: 1}}, `
			0A ends
			0A past uses the volume
			0A past is to detach
			0A to "op":"remove"
			0A gives up, on the way is
			0A ends`, `
			0A: attach: Success
			the array carries out what was given up
			0A: detach: Failure
			0A: attach: Success`},
		"none: a refused call leaves its session": {scenario{who: "0A,0B", none: true, budget: killed(2), anyAfter: true}, `
			0B to logs in
			0A past logs in
			0A to GET
			0A is killed before, is forgotten
			0B past logs in
			0B is killed before, is forgotten`, `
			1X: mount: Success`},
		"none: a line breaks, and the holder is evicted": {scenario{who: "0A,0B", none: true, budget: budget{breaks: 1}}, `
			0A ends
			0A the line breaks
			0B past logs in
			0B past GET /app_instances/volume#1
			0A the line is mended
			0B ends`, `
			0A: mount: Success
			0B: mount: Failure`},
		"none: evict, then log in": {scenario{who: "0A,0B", none: true, budget: killed(1)}, `
			0A to logs in
			0B to logs in
			0B is killed before, is called again
			0B to logs in
			0A ends
			0B ends`, `
			0A: mount: Success
			0B: mount: Failure`},
		"none: no look after the login": {scenario{who: "0A,0B", none: true}, `
			0B to POST /initiator_groups
			0A ends
			0B past logs in
			0B ends`, `
			0A: mount: Success
			0B: mount: Failure`},
		"none: no look after the eviction": {scenario{who: "0A,0B", none: true, lazy: true, budget: budget{breaks: 1}}, `
			0A ends
			0A the line breaks
			0B to "op":"remove"
			0A the line is mended
			0B ends`, `
			0A: mount: Success
			0B: mount: Failure`},
		"none: scan before the last look": {scenario{who: "0A,0B", none: true, lazy: true, budget: budget{breaks: 1, crashes: 1}}, `
			0A ends
			0A the line breaks
			0B to "op":"remove"
			0A the line is mended
			0B past "op":"remove"
			0A the node dies
			0B ends`, `
			0A: mount: Success
			0B goes: GET /app_instances/volume#1
			0B goes: scans
			0B: mount: Success`},
		"none: scan before the look": {scenario{who: "0A,0B", none: true, budget: budget{breaks: 1, crashes: 1}}, `
			0A ends
			0A the line breaks
			0B past logs in
			0A the line is mended
			0B goes
			0A the node dies
			0B ends`, `
			0A: mount: Success
			0B: mount: Failure`},
		"none: the own claim is not checked": {scenario{who: "0A,0B", none: true, lazy: true}, `
			0B to logs in
			0A to "op":"remove"
			0B past logs in
			0A ends
			0B ends`, `
			0A: mount: Failure
			0B: mount: Failure`},
		"another client replaces the policy": {scenario{who: "0A,0B", replaced: true}, `
			0A past acl_policy
			an administrator takes all groups out of the policy
			0A ends
			0B ends`, `
			0A: attach: Failure: volume vol-1 (online) no longer lets node node-a in
			0B: attach: Success`},
		"none: the line breaks while it is evicted": {scenario{who: "0A,0B", none: true, budget: budget{breaks: 1}}, `
			0B to logs in
			0A to "op":"remove"
			0B past logs in
			0B past GET /app_instances/volume#1
			0A past "op":"remove"
			0A ends
			0B ends`, `
			0B: mount: Failure`},
		"none: a claim of another cluster": {scenario{who: "0A,0B/x", none: true}, `
			0B/x to logs in
			0A ends
			0B/x ends`, `
			0A: mount: Failure: volume vol-1 cannot be attached read-write to node node-a
			0B/x: mount: Success`},
		"none: an array that shows no sessions": {scenario{who: "0A,0B", none: true, blind: true}, `
			0A ends
			0B ends`, `
			0A: mount: Success
			0B: mount: Failure`},
		"none: sessions that are shown late": {scenario{who: "0A,0B", none: true, unseen: true}, `
			0A ends
			0B past logs in
			0B past GET /app_instances/volume#1
			the array shows the sessions that there are
			0B ends`, `
			0A: mount: Success
			0B: mount: Failure`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(t, tt.scenario, tt.order, tt.told).right(t)
		})
	}
}

// A caller that is refused has not been let in for even a moment.
func TestWhoIsRefusedAddsNothing(t *testing.T) {
	tests := map[string]struct {
		scenario
		order string
	}{
		"in use":                  {scenario{who: "0A,0B"}, "0A ends\n 0B ends"},
		"by another name":         {scenario{who: "0A,1B"}, "0A ends\n 1B ends"},
		"not referred to yet":     {scenario{who: "0A,0B"}, "0A to acl_policy\n 0B ends"},
		"none: mounted":           {scenario{who: "0A,0B", none: true}, "0A ends\n 0B ends"},
		"none: of another":        {scenario{who: "0A,0B/x", none: true}, "0A to logs in\n 0B/x ends"},
		"not referred to, reader": {scenario{who: "0Ar,0B"}, "0Ar to acl_policy\n 0B ends"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := play(t, tt.scenario, tt.order, "").right(t)
			for _, line := range w.trace {
				second := w.callers[1].name
				require.False(t, strings.HasPrefix(line, second+" goes: P"), "%s in\n%s", line, strings.Join(w.trace, "\n"))
				if strings.HasPrefix(line, second+": ") {
					require.Contains(t, line, ": Failure: ")
					break
				}
			}
		})
	}
}

// What cannot be kept, and deploy/docs/access.md says so. Whoever mends one of these takes it out there, too.
func TestOrdersThatAreLimits(t *testing.T) {
	late := budget{lates: 1}
	tests := map[string]struct {
		scenario
		order, violated string
	}{
		"a fenced node logs in for a moment": {scenario{who: "0A,0B", returns: true}, `
			0A ends
			0A past uses the volume
			0A past is to detach
			0A ends
			0A to "op":"add"
			0B ends
			0B past uses the volume
			0A past "op":"add"`, "two nodes have the volume mounted"},
		"a given-up addition lets a fenced node in": {scenario{who: "0A,0B,0C", force: true, late: true, budget: late, tries: 2}, `
			0C ends
			0C past uses the volume
			0C past is to detach
			0C ends
			0C past stops using the volume
			0A to "op":"add"
			0A gives up, on the way is
			0A ends
			0A ends
			0A past uses the volume
			0A past is to detach
			0A ends
			0B ends
			0B past uses the volume
			the array carries out what was given up`, "two nodes have the volume mounted"},
		"a given-up removal cuts off who was told": {scenario{who: "0A,0B", returns: true, late: true, budget: late}, `
			0A ends
			0A past uses the volume
			0A past is to detach
			0A to "op":"remove"
			0A gives up, on the way is
			0A ends
			the array carries out what was given up`, "0A was told that it has the volume, and is not let in"},
		"none: a line breaks, and the volume is deleted": {scenario{who: "0A,D", none: true, budget: budget{breaks: 1}}, `
			0A ends
			0A the line breaks
			D ends`, "the volume was deleted under 0A"},
		"none: sessions that are shown later than the watch": {scenario{who: "0A,0B", none: true, unseen: true}, `
			0A ends
			0B ends`, "0A was told that it has the volume, and is not let in"},
		"none: sessions that end late and are shown late": {scenario{who: "0A,0B", none: true, unseen: true, lazy: true, budget: budget{breaks: 1}}, `
			0A ends
			0B ends`, "mounted what it had scanned beside a writer"},
		"none: a given-up eviction": {scenario{who: "0A,0B", none: true, late: true, budget: late}, `
			0B to logs in
			0A to "op":"remove"
			0A gives up, on the way is
			0A ends
			0B ends
			the array carries out what was given up`, "0B was told that it has the volume, and is not let in"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := play(t, tt.scenario, tt.order, "")
			require.Contains(t, w.wrong, tt.violated, "the order was\n%s", strings.Join(w.trace, "\n"))
		})
	}
}
