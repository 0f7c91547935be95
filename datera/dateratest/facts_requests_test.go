package dateratest_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// lax is what the simulator takes, with a reason, although the facts forbid it.
var lax = []exception{
	{"login unknown field", "described as open; the server of a directory is one"},
	{"change_member unknown field", "described as open"},
	{"change_app_template.storage_templates[].ip_pool", "clients send a reference"},
	{"change_storage_template.ip_pool", "clients send a reference"},
	{"new_app_template.storage_templates[].ip_pool", "clients send a reference"},
	{"new_storage_template.ip_pool", "clients send a reference"},
	{"change_storage_template.auth.type missing", "a change names what changes, as with a storage instance"},
}

// TestFactsOfRequests sends every route each field with values that the facts allow and forbid. It is refused as invalid
// if and only if it is forbidden; what else the cluster has against it is not the facts' matter.
func TestFactsOfRequests(t *testing.T) {
	s := newScene(t)
	j := &judge{scene: s, wrong: map[string]string{}}
	for _, r := range s.facts.routes {
		if r.method != "POST" && r.method != "PUT" || r.path == "/logout" {
			continue
		}
		path, err := s.resolve(r.path)
		if err != nil {
			t.Errorf("%s: %v", r, err)
			continue
		}
		j.route(r, path)
	}
	for _, e := range lax {
		if _, there := j.wrong[e.what]; !there {
			t.Errorf("%s is listed (%s), but it is as the facts say", e.what, e.reason)
		}
		delete(j.wrong, e.what)
	}
	for _, what := range sortedNames(j.wrong) {
		t.Errorf("%s: %s", what, j.wrong[what])
	}
	if j.sent < 1000 {
		t.Errorf("only %d requests were sent", j.sent)
	}
}

type judge struct {
	*scene
	wrong map[string]string // what is not as the facts say, with an example
	sent  int
}

// route tries one route, field by field, in a body that is right but for it.
func (j *judge) route(r factRoute, path string) {
	j.object(r.request, r.request, j.bodyOf(r), func(body any) answer {
		j.sent++
		return j.do(r.method, path, body)
	})
}

// object tries an object's fields; in puts the object into the whole body and sends it.
func (j *judge) object(at, shape string, valid js, in func(any) answer) {
	with := func(name string, v any) js {
		body := maps.Clone(valid)
		body[name] = v
		return body
	}
	j.expect(at+" unknown field", false, in(with("no_such_field", 1.0)), "no_such_field")
	for _, one := range j.facts.shapes[shape] {
		if one.must {
			without := maps.Clone(valid)
			delete(without, one.name)
			j.expect(at+"."+one.name+" missing", false, in(without), without)
		}
		j.field(at+"."+one.name, one.kind, func(v any) answer { return in(with(one.name, v)) })
	}
}

func (j *judge) field(at, name string, in func(any) answer) {
	if inner, isArray := strings.CutPrefix(name, "[]"); isArray {
		j.expect(at+" no array", false, in(js{}), js{})
		j.field(at+"[]", inner, func(v any) answer { return in([]any{v}) })
		return
	}
	if k, isKind := j.facts.kind(name); isKind {
		for _, v := range k.allowed() {
			j.expect(at, true, in(v), v)
		}
		for _, v := range k.forbidden() {
			j.expect(at, false, in(v), v)
		}
		return
	}
	j.expect(at+" no object", false, in("text"), "text")
	if shape := j.facts.shapes[name]; len(shape) > 0 {
		j.object(at, name, j.valid(name), in)
	}
}

// expect notes an answer that is not as the facts say.
func (j *judge) expect(what string, allowed bool, a answer, sent any) {
	invalid := a.body["name"] == "ValidationFailedError"
	switch {
	case a.body["name"] == "InvalidRouteError":
		j.wrong["route "+fmt.Sprint(a.body["path"])] = fmt.Sprint(a.body["message"])
	case allowed && invalid:
		j.wrong[what] = fmt.Sprintf("allowed is %v, but: %d %v", sent, a.status, a.body["message"])
	case !allowed && !invalid:
		j.wrong[what] = fmt.Sprintf("forbidden is %v, but: %d %v", sent, a.status, a.body["message"])
	}
}

func (k kind) allowed() []any {
	if values, isEnum := strings.CutPrefix(k.rule, "one of "); isEnum {
		var out []any
		for _, v := range strings.Split(values, ",") {
			out = append(out, v)
		}
		return out
	}
	var out []any
	if low, high, limited := k.limits("range "); limited {
		out = append(out, low, min(high, low+1e9))
	}
	if strings.Contains(k.typ, "null") {
		out = append(out, nil)
	}
	return append(out, k.value(k.good))
}

func (k kind) forbidden() []any {
	var out []any
	if k.bad != "" {
		out = append(out, k.value(k.bad))
	}
	if low, _, limited := k.limits("range "); limited {
		out = append(out, low-1)
	}
	types := strings.Split(k.typ, "|")
	for _, v := range []any{"text", 1.5, true, js{}, []any{}, nil} {
		if is := typeOf(v); k.typ != "" && !slices.Contains(types, is) {
			out = append(out, v)
		}
	}
	return out
}
