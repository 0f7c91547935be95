package dateratest_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var descriptionFile = flag.String("schema", "", "file with what a cluster answers to GET /v2.1/api, to hold the facts against")

// differing are things that the facts say otherwise than a cluster's description of v2.1, with the reason.
var differing = []exception{
	{` answer subtenants$`, "described as tenants within the tenant; every client of the vendor reads paths"},
	{` answer utc_ts$`, "described as a whole number; real answers have text with nine decimals"},
	{`/storage_templates(/:)? answer ip_pool$`, "described as text; every client of the vendor reads a reference"},
}

// TestFidelity holds the facts against a cluster's own description, if it was given one: make fidelity SCHEMA=file.
func TestFidelity(t *testing.T) {
	if *descriptionFile == "" {
		t.Skip("no description of a cluster was given: -schema FILE")
	}
	raw, err := os.ReadFile(*descriptionFile)
	require.NoError(t, err)
	f := readFacts(t)
	theirs, err := f.readDescription(raw)
	require.NoError(t, err)
	differences := f.differences(theirs)
	for _, d := range differences {
		if !slices.ContainsFunc(differing, func(e exception) bool { return regexp.MustCompile(e.what).MatchString(d.what) }) {
			t.Errorf("%s: the facts say %q, the cluster says %q", d.what, d.facts, d.cluster)
		}
	}
	t.Logf("%d routes were compared, %d differences", len(f.routes), len(differences))
}

// TestFidelitySeesDifferences holds the facts against descriptions that are wrong in one place.
func TestFidelitySeesDifferences(t *testing.T) {
	f := facts{
		kinds:  map[string]kind{"name": {typ: "string", rule: "pattern ^[a-z]+$"}, "count": {typ: "integer", rule: "range 1..5"}, "mode": {typ: "string", rule: "one of a,b"}},
		shapes: map[string][]field{"new": {{"count", "count", false}, {"in", "[]new_in", false}, {"mode", "mode", false}, {"name", "name", true}}, "new_in": {{"ok", "boolean", false}}, "thing": {{"friends", "[]ref", false}, {"name", "name", false}, {"parts", "[]part", false}}, "part": nil, "ref": nil},
		routes: []factRoute{{"POST", "/things/{name}", "new", "thing"}},
	}
	const sound = `{"/things/:thing": {"create": {
		"urlParamSchema": {"thing": {"type": "string", "pattern": "^[a-z]+$"}},
		"bodyParamSchema": {"properties": {"count": {"type": "integer", "minimum": 1, "maximum": 5}, "mode": {"enum": ["a", "b"]}, "name": {"type": "string", "pattern": "^[a-z]+$"},
			"in": {"type": "array", "items": {"type": "object", "properties": {"ok": {"type": "boolean"}}}}}, "required": ["name"]},
		"returnParamSchema": {"properties": {"name": {"type": "string", "pattern": "^[a-z]+$"}, "parts": {"containment": {"isCollection": true, "entity": "part"}},
			"friends": {"type": "array", "simple_reference": {"isCollection": true, "entity": "thing"}}}}}}, "version": "v2.1"}`
	for _, c := range []struct{ name, from, to, want string }{
		{name: "the same"},
		{"a route less", `/things/:thing`, `/other/:thing`, "POST /things/:"},
		{"a method less", `"create"`, `"update"`, "POST /things/:"},
		{"another parameter", `{"thing": {"type": "string", "pattern": "^[a-z]+$"}}`, `{"thing": {"type": "string"}}`, "POST /things/: parameter 1"},
		{"another type", `"type": "integer"`, `"type": "string"`, "POST /things/: request count"},
		{"another limit", `"maximum": 5`, `"maximum": 6`, "POST /things/: request count"},
		{"another value", `["a", "b"]`, `["a", "b", "c"]`, "POST /things/: request mode"},
		{"a field more", `"mode": {`, `"more": {"type": "string"}, "mode": {`, "POST /things/: request more"},
		{"a field less", `"mode": {"enum": ["a", "b"]}, `, ``, "POST /things/: request mode"},
		{"a nested field", `{"ok": {"type": "boolean"}}`, `{"ok": {"type": "string"}}`, "POST /things/: request in[].ok"},
		{"nothing required", `"required": ["name"]`, `"required": []`, "POST /things/: request name"},
		{"one where many are", `{"isCollection": true, "entity": "part"}`, `{"isCollection": false, "entity": "part"}`, "POST /things/: answer parts"},
		{"an answer's field", `"returnParamSchema": {"properties": {"name"`, `"returnParamSchema": {"properties": {"nome"`, "POST /things/: answer name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Contains(t, sound, c.from)
			theirs, err := f.readDescription([]byte(strings.Replace(sound, c.from, c.to, 1)))
			require.NoError(t, err)
			var got []string
			for _, d := range f.differences(theirs) {
				got = append(got, d.what)
			}
			if c.want == "" {
				require.Empty(t, got)
			} else {
				require.Contains(t, got, c.want)
			}
		})
	}
	_, err := f.readDescription([]byte(`[]`))
	require.Error(t, err)
}

type difference struct{ what, facts, cluster string }

// differences compares the routes of the facts, whatever others the cluster has. Where a cluster does not describe a
// route's answer, there is nothing to compare.
func (f facts) differences(theirs map[string]string) []difference {
	ours := f.flatten()
	all := map[string]bool{}
	for what := range ours {
		all[what] = true
	}
	for what := range theirs {
		if r, _, of := cutField(what); of && ours[r] != "" {
			all[what] = true
		}
	}
	var out []difference
	for _, what := range sortedNames(all) {
		r, part, isField := cutField(what)
		switch {
		case isField && theirs[r] == "", part == "answer" && !strings.Contains(theirs[r], "answer"), ours[what] == theirs[what]:
		case !isField && theirs[r] == "":
			out = append(out, difference{what, "it exists", "there is no such route"})
		case isField:
			out = append(out, difference{what, ours[what], theirs[what]})
		}
	}
	return out
}

// cutField splits "POST /things request name" into route and part.
func cutField(what string) (route, part string, isField bool) {
	words := strings.SplitN(what, " ", 4)
	if len(words) < 3 {
		return what, "", false
	}
	return words[0] + " " + words[1], words[2], true
}

// flatten says each thing of the table by itself: "POST /initiators request name" is "string pattern … must".
func (f facts) flatten() map[string]string {
	out := map[string]string{}
	for _, r := range f.routes {
		out[r.String()] = "route answer"
		for i, p := range parameter.FindAllStringSubmatch(r.path, -1) {
			out[fmt.Sprintf("%s parameter %d", r, i+1)] = f.signature(p[1], false)
		}
		f.flattenShape(out, r.String()+" request ", r.request, true)
		f.flattenShape(out, r.String()+" answer ", strings.TrimPrefix(r.answer, "[]"), false)
	}
	return out
}

// flattenShape opens nested objects of requests. Of an answer's nested objects the name is enough: they are entities,
// which have routes of their own.
func (f facts) flattenShape(out map[string]string, at, shape string, open bool) {
	for _, one := range f.shapes[shape] {
		what := f.signature(one.kind, open)
		if one.must {
			what += " must"
		}
		out[at+one.name] = what
		if inner := strings.TrimPrefix(one.kind, "[]"); open && inner != "ref" {
			f.flattenShape(out, at+one.name+strings.Repeat("[]", strings.Count(one.kind, "[]"))+".", inner, open)
		}
	}
}

func (f facts) signature(name string, open bool) string {
	array, inner := strings.HasPrefix(name, "[]"), strings.TrimPrefix(name, "[]")
	text := inner
	if k, isKind := f.kinds[inner]; isKind {
		text = strings.TrimSpace(k.typ + " " + k.rule)
	} else if _, isShape := f.shapes[inner]; isShape && open && inner != "ref" {
		text = "object"
	}
	if array {
		return "[]" + text
	}
	return text
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// readDescription flattens what a cluster, or the simulator, answers to GET /api.
func (f facts) readDescription(raw []byte) (map[string]string, error) {
	var paths map[string]json.RawMessage
	if err := json.Unmarshal(raw, &paths); err != nil {
		return nil, fmt.Errorf("this is not a description of an API: %w", err)
	}
	methods := map[string]string{"create": "POST", "read": "GET", "update": "PUT", "delete": "DELETE"}
	out := map[string]string{}
	for path, text := range paths {
		var verbs map[string]description
		if !strings.HasPrefix(path, "/") {
			continue // the envelope
		}
		if err := json.Unmarshal(text, &verbs); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for verb, d := range verbs {
			if methods[verb] != "" {
				f.flattenVerb(out, methods[verb], path, d)
			}
		}
	}
	return out, nil
}

// described is a value in a cluster's description.
type described struct {
	Type             any                  `json:"type"`
	Enum             []string             `json:"enum"`
	Pattern          any                  `json:"pattern"`
	Minimum          *float64             `json:"minimum"`
	Maximum          *float64             `json:"maximum"`
	MinLength        *float64             `json:"minLength"`
	MaxLength        *float64             `json:"maxLength"`
	Format           string               `json:"format"`
	Properties       map[string]described `json:"properties"`
	Required         []string             `json:"required"`
	Items            *described           `json:"items"`
	Containment      *relation            `json:"containment"`
	SimpleReference  *relation            `json:"simple_reference"`
	ResolvedRelation *relation            `json:"resolved_reference"`
}

type relation struct {
	IsCollection bool   `json:"isCollection"`
	Entity       string `json:"entity"`
}

type description struct {
	Parameters map[string]described `json:"urlParamSchema"`
	Request    described            `json:"bodyParamSchema"`
	Answer     *described           `json:"returnParamSchema"`
}

var named = regexp.MustCompile(`:([a-z_]+)(\(.*\))?`)

func (f facts) flattenVerb(out map[string]string, method, path string, d description) {
	route := method + " " + named.ReplaceAllString(path, ":")
	out[route] = "route"
	if d.Answer != nil && len(d.Answer.Properties) > 0 {
		out[route] = "route answer"
		f.flattenDescribed(out, route+" answer ", *d.Answer)
	}
	for i, p := range named.FindAllStringSubmatch(path, -1) {
		out[fmt.Sprintf("%s parameter %d", route, i+1)] = f.describedSignature(d.Parameters[p[1]])
	}
	f.flattenDescribed(out, route+" request ", d.Request)
}

func (f facts) flattenDescribed(out map[string]string, at string, d described) {
	for name, p := range d.Properties {
		what := f.describedSignature(p)
		if slices.Contains(d.Required, name) {
			what += " must"
		}
		out[at+name] = what
		switch {
		case strings.HasSuffix(strings.TrimSuffix(what, " must"), "ref"):
		case p.Items != nil:
			f.flattenDescribed(out, at+name+"[].", *p.Items)
		default:
			f.flattenDescribed(out, at+name+".", p)
		}
	}
}

func (f facts) describedSignature(d described) string {
	if r := d.Containment; r != nil {
		_, known := f.shapes[r.Entity]
		return many(r.IsCollection, map[bool]string{true: r.Entity, false: "object"}[known])
	}
	for _, r := range []*relation{d.SimpleReference, d.ResolvedRelation} {
		if r != nil {
			return many(r.IsCollection, "ref")
		}
	}
	types := describedTypes(d)
	switch {
	case types == "date-time":
		return "string time"
	case types == "array" && d.Items == nil:
		return "[]any"
	case types == "array":
		return "[]" + f.describedSignature(*d.Items)
	case d.Properties != nil:
		return "object"
	}
	var rules []string
	if d.Enum != nil {
		return strings.TrimPrefix(types, " ") + " one of " + strings.Join(d.Enum, ",")
	}
	rules = append(rules, ends("range ", d.Minimum, d.Maximum), ends("length ", d.MinLength, d.MaxLength))
	if d.Format == "date-time" {
		rules = append(rules, "time")
	}
	if pattern, ok := d.Pattern.(string); ok && strings.Contains(types, "string") {
		rules = append(rules, "pattern "+pattern) // on other types it has no meaning
	}
	rules = slices.DeleteFunc(rules, func(s string) bool { return s == "" })
	return strings.Join(append([]string{types}, rules...), " ")
}

// describedTypes is a value's type; an enum without one is of strings.
func describedTypes(d described) string {
	switch t := d.Type.(type) {
	case string:
		return t
	case []any:
		return strings.ReplaceAll(strings.Trim(fmt.Sprint(t), "[]"), " ", "|")
	}
	if d.Enum != nil {
		return "string"
	}
	return "any"
}

func ends(word string, low, high *float64) string {
	if low == nil && high == nil {
		return ""
	}
	text := word
	if low != nil {
		text += fmt.Sprintf("%.0f", *low)
	}
	text += ".."
	if high != nil {
		text += fmt.Sprintf("%.0f", *high)
	}
	return text
}

func many(collection bool, name string) string {
	if collection {
		return "[]" + name
	}
	return name
}
