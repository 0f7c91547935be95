package dateratest_test

import (
	_ "embed"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// factsTable says what a cluster with API v2.1 takes and answers, for the routes that the simulator claims to know. It
// is independent of the simulator's own tables, so that it can judge them, and holds facts alone: names, types and limits.
//
//go:embed facts.tsv
var factsTable string

// facts is the table, read. A kind is a scalar's type and limits; a shape is the fields of an object. Where a kind is
// asked for, "[]" before it makes an array, and a shape's name is an object of it.
type facts struct {
	kinds  map[string]kind
	shapes map[string][]field
	routes []factRoute
}

type kind struct{ typ, rule, good, bad string }

type field struct {
	name, kind string
	must       bool
}

// exception is where something is, for a reason, not as the facts say. One that no longer is turns its test red.
type exception struct{ what, reason string }

// factRoute is one method of one path. In the path {x} is a parameter of kind x.
type factRoute struct{ method, path, request, answer string }

func (r factRoute) String() string { return r.method + " " + withoutNames(r.path) }

var parameter = regexp.MustCompile(`\{(\w+)\}`)

// withoutNames makes paths comparable that name their parameters differently.
func withoutNames(path string) string { return parameter.ReplaceAllString(path, ":") }

// plainKinds have no limits, and so no line of their own.
var plainKinds = map[string]kind{
	"string": {typ: "string", good: "any text"}, "integer": {typ: "integer", good: "5"}, "number": {typ: "number", good: "5"},
	"boolean": {typ: "boolean", good: "true"}, "object": {typ: "object"}, "any": {}, "string|integer": {typ: "string|integer", good: "5"},
}

func readFacts(t *testing.T) facts {
	t.Helper()
	f := facts{kinds: map[string]kind{}, shapes: map[string][]field{}}
	for number, line := range strings.Split(strings.TrimSuffix(factsTable, "\n"), "\n") {
		at := fmt.Sprintf("facts.tsv line %d", number+1)
		cells := strings.Split(line, "\t")
		switch {
		case strings.HasPrefix(line, "#"):
		case cells[0] == "kind" && len(cells) == 6:
			require.NotContains(t, f.kinds, cells[1], at)
			f.kinds[cells[1]] = kind{cells[2], cells[3], cells[4], cells[5]}
		case cells[0] == "shape" && (len(cells) == 4 || len(cells) == 5 && cells[4] == "must"):
			f.shapes[cells[1]] = append(f.shapes[cells[1]], field{cells[2], cells[3], len(cells) == 5})
		case cells[0] == "route" && len(cells) == 5:
			f.routes = append(f.routes, factRoute{cells[1], cells[2], cells[3], cells[4]})
		default:
			t.Fatalf("%s: %q is not a kind, a shape or a route", at, line)
		}
	}
	return f
}

func (f facts) kind(name string) (kind, bool) {
	if k, plain := plainKinds[name]; plain {
		return k, true
	}
	k, known := f.kinds[name]
	return k, known
}

// TestFactsHoldTogether: every name in the table leads somewhere, nothing is there without use, and the examples of each
// kind are what they claim to be.
func TestFactsHoldTogether(t *testing.T) {
	f := readFacts(t)
	used := map[string]bool{}
	use := func(where, name string) {
		name = strings.TrimPrefix(name, "[]")
		used[name] = true
		_, isKind := f.kind(name)
		_, isShape := f.shapes[name]
		require.True(t, isKind != isShape, "%s: %q must be a kind or a shape", where, name)
	}
	for _, r := range f.routes {
		for _, p := range parameter.FindAllStringSubmatch(r.path, -1) {
			use(r.String(), p[1])
		}
		for _, name := range []string{r.request, r.answer} {
			if name != "-" {
				use(r.String(), name)
			}
		}
	}
	for name, fields := range f.shapes {
		for i, one := range fields {
			use(name+"."+one.name, one.kind)
			require.True(t, i == 0 || fields[i-1].name < one.name, "%s.%s: fields are sorted, and each is there once", name, one.name)
		}
	}
	for name, k := range f.kinds {
		require.True(t, used[name], "kind %s has no use", name)
		require.NoError(t, k.accepts(k.value(k.good)), "the good value of kind %s", name)
		require.Error(t, k.accepts(k.value(k.bad)), "the bad value of kind %s", name)
	}
	for name := range f.shapes {
		require.True(t, used[name], "shape %s has no use", name)
	}
	seen := map[string]bool{}
	for _, r := range f.routes {
		require.False(t, seen[r.String()], "%s is there twice", r)
		seen[r.String()] = true
	}
}

// value makes a JSON value of an example.
func (k kind) value(text string) any {
	switch k.typ {
	case "integer", "number":
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return text
		}
		return n
	case "boolean":
		return text == "true"
	case "object":
		return js{}
	}
	return text
}

// accepts tells what a value violates.
func (k kind) accepts(v any) error {
	is := false
	for _, typ := range strings.Split(k.typ, "|") {
		is = is || typ == "" || typ == typeOf(v) || typ == "number" && typeOf(v) == "integer"
	}
	switch text, isText := v.(string); {
	case !is:
		return fmt.Errorf("%v is not of type %s", v, k.typ)
	case v == nil:
		return nil
	case isText:
		return k.acceptsText(text)
	}
	if low, high, limited := k.limits("range "); limited {
		if n, _ := v.(float64); n < low || n > high {
			return fmt.Errorf("%v is not within %s", v, k.rule)
		}
	}
	return nil
}

func (k kind) acceptsText(text string) error {
	if values, isEnum := strings.CutPrefix(k.rule, "one of "); isEnum && !slices.Contains(strings.Split(values, ","), text) {
		return fmt.Errorf("%q is not one of %s", text, values)
	}
	if low, high, limited := k.limits("length "); limited {
		if n := float64(utf8.RuneCountInString(text)); n < low || n > high {
			return fmt.Errorf("%q has not %s", text, k.rule)
		}
	}
	if _, err := time.Parse(time.RFC3339, text); k.rule == "time" && err != nil {
		return err
	}
	if _, pattern, isPattern := strings.Cut(k.rule, "pattern "); isPattern && !matches(pattern, text) {
		return fmt.Errorf("%q does not match %s", text, pattern)
	}
	return nil
}

var numbers = regexp.MustCompile(`^(-?\d*)\.\.(\d*)`)

// limits reads "range 1..5" and the like; an end that is not there is no limit.
func (k kind) limits(word string) (low, high float64, limited bool) {
	rest, limited := strings.CutPrefix(k.rule, word)
	ends := numbers.FindStringSubmatch(rest)
	if !limited || ends == nil {
		return 0, 0, false
	}
	low, high = math.Inf(-1), math.Inf(1)
	if n, err := strconv.ParseFloat(ends[1], 64); err == nil {
		low = n
	}
	if n, err := strconv.ParseFloat(ends[2], 64); err == nil {
		high = n
	}
	return low, high, true
}

// ahead is a look ahead at the whole text's length, the one thing in the patterns that Go's regexp does not have.
var ahead = regexp.MustCompile(`\(\?=\.\{(\d+),(\d+)\}\$\)`)

func matches(pattern, text string) bool {
	found := regexp.MustCompile(ahead.ReplaceAllString(pattern, "")).MatchString(text)
	if size := ahead.FindStringSubmatch(pattern); size != nil && strings.HasPrefix(text, "iqn.") {
		low, _ := strconv.Atoi(size[1])
		high, _ := strconv.Atoi(size[2])
		return found && len(text) >= low && len(text) <= high
	}
	return found
}

func typeOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case []any:
		return "array"
	case float64:
		if v == math.Trunc(v) {
			return "integer"
		}
		return "number"
	}
	return "object"
}
