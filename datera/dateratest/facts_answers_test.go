package dateratest_test

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// absent are fields of the facts that no answer of the simulator has here, with the reason.
var absent = []exception{
	{"app_instance.op_state", "only while a clone is being made"},
	{"ip_pool.descr", "the internal network has none"},
	{"monitoring_destination.last_msg_ts", "nothing was ever sent"},
	{"storage_node.last_reboot_timestamp", "described as a number, read as text by the vendor's client"},
	{"storage_node.nvm_flash_devices", "the nodes have none"},
	{"storage_node.op_progress", "only while a node does something"},
	{"storage_node.op_status", "only while a node does something"},
	{"storage_node.psus", "what one is made of is not described"},
	{"storage_node.subsystem_health", "described as one object, read as a list by the vendor's client"},
	{"storage_node.upgrade", "only while there is one"},
	{"system.access_interface_aggr_type", "not set"},
	{"system.interface_aggregation_mode", "not set"},
	{"system.internal_interface_aggr_type", "not set"},
	{"system.network_devices", "what one is made of is not described"},
	{"system.ntp_servers", "there are none"},
	{"system.upgrade", "only while there is one"},
	{"user.password", "is told to no one"},
	{"user.version", "what it says is not known"},
	{"volume.op_status", "only while something is done with the volume"},
	{"volume.recovery_state", "only of a volume that is not whole"},
	{"volume.storage_state", "only of a volume that is not whole"},
}

// added are fields that the simulator answers although the facts do not have them.
var added = []exception{
	{"app_instance.tenant", "what belongs to a tenant says so"},
	{"app_template.tenant", "what belongs to a tenant says so"},
	{"initiator.tenant", "what belongs to a tenant says so"},
	{"ref.resolved_path", "where an inherited thing is"},
	{"ref.resolved_tenant", "where an inherited thing is"},
	{"system.timezone", "the vendor's client for Go reads it"},
	{"volume.performance_policy", "the vendor's drivers read it"},
	{"volume.snapshot_policies", "as its performance policy"},
	{"volume_template.performance_policy", "as with a volume"},
	{"volume_template.snapshot_policies", "as with a volume"},
}

// users are the collections whose elements use those of others, so that these cannot be deleted before.
var users = []string{"/app_instances/{uuid}", "/initiator_groups/{name}"}

// empty are routes of elements of which the simulator has none: nothing is logged, and SNMP has no users.
var empty = map[string]bool{"/audit_logs/{uuid}": true, "/event_logs/{uuid}": true, "/fault_logs/{uuid}": true, "/system/snmp_policy/users/{string}": true}

// TestFactsOfAnswers calls every route of the facts and looks at each field of what comes.
func TestFactsOfAnswers(t *testing.T) {
	s := newScene(t)
	seen := &answered{s.facts, map[string]bool{}, map[string]bool{}, nil}
	for _, r := range inOrder(s.facts.routes) {
		path, err := s.resolve(r.path)
		switch {
		case r.path == "/logout":
			continue
		case empty[r.path]:
			require.Error(t, err, "%s: there is something after all", r)
			continue
		case err != nil:
			t.Errorf("%s: %v", r, err)
			continue
		}
		if a := s.call(r, path); a.status != http.StatusOK {
			t.Errorf("%s: %d %s", r, a.status, a.raw)
		} else if r.answer != "-" {
			seen.look(r.String(), r.answer, a.body["data"])
		}
	}
	for _, wrong := range seen.wrong {
		t.Error(wrong)
	}
	require.Equal(t, names(absent), seen.never(), "fields that no answer has")
	require.Equal(t, names(added), seen.extra(), "fields that the facts do not know")
}

// inOrder reads, changes and makes before it deletes, and deletes what is inside, or uses others, before these.
func inOrder(routes []factRoute) []factRoute {
	method := func(r factRoute) int { return slices.Index([]string{"GET", "PUT", "POST", "DELETE"}, r.method) }
	use := func(r factRoute) int { return slices.Index(append(slices.Clone(users), r.path), r.path) }
	return slices.SortedStableFunc(slices.Values(routes), func(a, b factRoute) int {
		if c := cmp.Compare(method(a), method(b)); c != 0 || a.method != "DELETE" {
			return c
		}
		return cmp.Or(cmp.Compare(strings.Count(b.path, "/"), strings.Count(a.path, "/")), cmp.Compare(use(a), use(b)))
	})
}

// never is what no answer had although its object came.
func (a *answered) never() []string {
	var out []string
	for name, fields := range a.facts.shapes {
		for _, one := range fields {
			if what := name + "." + one.name; a.shapes[name] && !a.fields[what] {
				out = append(out, what)
			}
		}
	}
	slices.Sort(out)
	return out
}

// extra is what came although the facts do not have it.
func (a *answered) extra() []string {
	var out []string
	for what := range a.fields {
		shape, name, _ := strings.Cut(what, ".")
		if !slices.ContainsFunc(a.facts.shapes[shape], func(one field) bool { return one.name == name }) {
			out = append(out, what)
		}
	}
	slices.Sort(out)
	return out
}

func names(list []exception) []string {
	var out []string
	for _, e := range list {
		out = append(out, e.what)
	}
	return out
}

// call makes a call of a route that has to succeed. What is deleted is put offline before.
func (s *scene) call(r factRoute, path string) answer {
	s.t.Helper()
	switch {
	case r.method == "GET":
		return s.do(r.method, path, nil)
	case r.method == "POST" && strings.HasSuffix(path, "/performance_policy"):
		s.do("DELETE", path, nil) // there is one
	case r.method == "DELETE" && slices.Contains(users, r.path), r.method == "DELETE" && strings.HasPrefix(path, "/app_instances/"):
		s.do("PUT", strings.Join(strings.Split(path, "/")[:3], "/"), js{"admin_state": "offline", "force": true})
	case r.method == "DELETE" && strings.Count(path, "/") == 2:
		for _, user := range users {
			for _, item := range s.items(user[:strings.LastIndex(user, "/")]) {
				s.do("PUT", at(s.t, item, "path").(string), js{"admin_state": "offline", "force": true})
				s.ok("DELETE", at(s.t, item, "path").(string), nil)
			}
		}
	}
	return s.do(r.method, path, s.bodyOf(r))
}

// answered collects what was seen in answers.
type answered struct {
	facts  facts
	fields map[string]bool // "shape.field"
	shapes map[string]bool
	wrong  []string
}

func (a *answered) look(at, name string, v any) {
	inner, isArray := strings.CutPrefix(name, "[]")
	if isArray {
		list, ok := v.([]any)
		if !ok {
			a.wrong = append(a.wrong, fmt.Sprintf("%s: %v must be an array", at, v))
			return
		}
		for i, item := range list {
			a.look(fmt.Sprintf("%s[%d]", at, i), inner, item)
		}
		return
	}
	if k, isKind := a.facts.kind(inner); isKind {
		if err := k.accepts(v); err != nil && !a.facts.standsFor(k, v) {
			a.wrong = append(a.wrong, at+": "+err.Error())
		}
		return
	}
	object, ok := v.(js)
	if !ok {
		a.wrong = append(a.wrong, fmt.Sprintf("%s: %v must be an object, a %s", at, v, inner))
		return
	}
	a.shapes[inner] = true
	for field := range object {
		a.fields[inner+"."+field] = true
	}
	for _, one := range a.facts.shapes[inner] {
		if value, there := object[one.name]; there {
			a.look(at+" "+one.name, one.kind, value)
		} else if one.must {
			a.wrong = append(a.wrong, fmt.Sprintf("%s: %s is missing", at, one.name))
		}
	}
}

// standsFor tells whether an answer says that a text is unset or kept secret.
func (a facts) standsFor(k kind, v any) bool {
	return v == "" && !strings.HasPrefix(k.rule, "one of ") || v == "(hidden)" && (k == a.kinds["password"] || k == a.kinds["chap_secret"])
}

// TestFactsOfAnswersSeesFaults: what the look is for.
func TestFactsOfAnswersSeesFaults(t *testing.T) {
	f := readFacts(t)
	for _, c := range []struct {
		name, shape string
		value       any
		faults      int
	}{
		{"sound", "[]initiator", []any{js{"path": "/x", "id": "eui.0123456789abcdef", "name": "A name"}}, 0},
		{"no array", "[]initiator", js{}, 1},
		{"no object", "initiator", "text", 1},
		{"a type", "initiator", js{"name": 5.0}, 1},
		{"a pattern", "initiator", js{"id": "iqn.x"}, 1},
		{"an enum, nested", "app_instance", js{"storage_instances": []any{js{"admin_state": "on"}}}, 1},
		{"a reference without path", "initiator_group", js{"members": []any{js{}}}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &answered{f, map[string]bool{}, map[string]bool{}, nil}
			a.look("GET /x", c.shape, c.value)
			require.Len(t, a.wrong, c.faults)
		})
	}
}
