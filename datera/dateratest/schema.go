package dateratest

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"sort"
	"time"
	"unicode/utf8"
)

// property describes one value of a request body. The same description checks bodies and is served at /api.
type property struct {
	kind     string // "string", "integer", "boolean", "object", "array"; "" takes anything
	required bool
	nullable bool
	since    version // first API version that has it; 0 for all
	since33  bool    // only for products from 3.3
	pattern  *regexp.Regexp
	shown    string // the pattern in the words of a cluster, if Go's are others
	format   string // "date-time"
	enum     []string
	min, max int // of an integer, or of a string's length when max is not 0
	max21    int // a smaller max that v2.1 has
	fields   properties
	open     bool // an object that may have other members, too
	text     bool // an object that may be a string instead
	secret   bool // a value that no message repeats
	items    *property
	values   *property // an object with free keys
}

type properties map[string]property

func (p property) must() property          { p.required = true; return p }
func (p property) orNull() property        { p.nullable = true; return p }
func (p property) from(v version) property { p.since = v; return p }
func (p property) newProduct() property    { p.since33 = true; return p }
func text(maxLength int) property          { return property{kind: "string", max: maxLength} }
func pattern(text string) property {
	return property{kind: "string", pattern: regexp.MustCompile(text)}
}
func (p property) long(low, high int) property  { p.min, p.max = low, high; return p }
func (p property) shownAs(text string) property { p.shown = text; return p }
func oneOf(values ...string) property           { return property{kind: "string", enum: values} }
func integer(low, high int) property            { return property{kind: "integer", min: low, max: high} }
func flag() property                            { return property{kind: "boolean"} }
func object(fields properties) property         { return property{kind: "object", fields: fields} }
func mapOf(values property) property            { return property{kind: "object", values: &values} }
func arrayOf(items property) property           { return property{kind: "array", items: &items} }
func anything() property                        { return property{} }
func (p property) withOthers() property         { p.open = true; return p }
func (p property) hidden() property             { p.secret = true; return p }
func (p property) orText() property             { p.text = true; return p }

// with is an object with more members, requiring one of which some have to be there.
func (p property) with(more properties) property {
	fields := maps.Clone(p.fields)
	maps.Copy(fields, more)
	p.fields = fields
	return p
}

func (p property) requiring(names ...string) property {
	fields := maps.Clone(p.fields)
	for _, name := range names {
		fields[name] = fields[name].must()
	}
	p.fields = fields
	return p
}
func (p property) upTo21(high int) property { p.max21 = high; return p }

// dialect is what decides which properties exist: the API version of the request and the product's version.
type dialect struct {
	api   version
	new33 bool
}

func (p property) existsIn(d dialect) bool {
	return p.since <= d.api && (!p.since33 || d.new33)
}

// check reports the first thing in v that the property does not allow.
func (p property) check(d dialect, at string, v any) error {
	if v == nil && p.nullable {
		return nil
	}
	if _, isText := v.(string); isText && p.text {
		return nil
	}
	switch p.kind {
	case "string":
		return p.checkString(at, v)
	case "integer":
		return p.checkInteger(d, at, v)
	case "boolean":
		if _, ok := v.(bool); !ok {
			return invalid(at, "must be true or false, not %s", kindOf(v))
		}
	case "array":
		return p.checkArray(d, at, v)
	case "object":
		return p.checkObject(d, at, v)
	}
	return nil
}

func (p property) checkString(at string, v any) error {
	s, ok := v.(string)
	switch {
	case !ok:
		return invalid(at, "must be a string, not %s", kindOf(v))
	case p.secret && p.pattern != nil && !p.pattern.MatchString(s):
		return invalid(at, "does not match %s", p.pattern)
	case p.enum != nil && !slices.Contains(p.enum, s):
		return invalid(at, "%q is not one of %q", s, p.enum)
	case p.pattern != nil && !p.pattern.MatchString(s):
		return invalid(at, "%q does not match %s", s, p.pattern)
	case p.format == "date-time" && !isTime(s):
		return invalid(at, "is not a time like 2026-01-31T12:00:00Z")
	case p.max > 0 && utf8.RuneCountInString(s) > p.max:
		return invalid(at, "is longer than %d characters", p.max)
	case utf8.RuneCountInString(s) < p.min:
		return invalid(at, "is shorter than %d characters", p.min)
	}
	return nil
}

func isTime(s string) bool {
	_, err := time.Parse(time.RFC3339, s)
	return err == nil
}

func (p property) checkInteger(d dialect, at string, v any) error {
	n, ok := v.(float64)
	if !ok || n != math.Trunc(n) {
		return invalid(at, "must be an integer, not %s", kindOf(v))
	}
	if n < float64(p.min) || n > float64(p.highest(d)) {
		return invalid(at, "%.0f is not between %d and %d", n, p.min, p.highest(d))
	}
	return nil
}

// highest is the greatest value of an integer.
func (p property) highest(d dialect) int {
	if p.max21 != 0 && d.api == v21 {
		return p.max21
	}
	return p.max
}

func (p property) checkArray(d dialect, at string, v any) error {
	items, ok := v.([]any)
	if !ok {
		return invalid(at, "must be an array, not %s", kindOf(v))
	}
	for i, item := range items {
		if err := p.items.check(d, fmt.Sprintf("%s[%d]", at, i), item); err != nil {
			return err
		}
	}
	return nil
}

func (p property) checkObject(d dialect, at string, v any) error {
	members, ok := v.(map[string]any)
	if !ok {
		return invalid(at, "must be an object, not %s", kindOf(v))
	}
	for _, name := range sortedKeys(members) {
		field, known := p.fields[name]
		if p.values != nil {
			field, known = *p.values, true
		}
		if !known || !field.existsIn(d) {
			if p.open {
				continue
			}
			return unknownProperty(at, name)
		}
		if err := field.check(d, join(at, name), members[name]); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(p.fields) {
		if _, given := members[name]; !given && p.fields[name].required && p.fields[name].existsIn(d) {
			return invalid(at, "property %q is missing", name)
		}
	}
	return nil
}

// unknownProperty names the property only if it has a name: of a broken form the name can be the whole body.
func unknownProperty(at, name string) error {
	if !plainName.MatchString(name) {
		return invalid(at, "unknown property, its name is not shown")
	}
	return invalid(at, "unknown property %q", name)
}

// schema renders the property as JSON schema.
func (p property) schema(d dialect) map[string]any {
	out := map[string]any{}
	switch {
	case p.text && d.api == v21: // so it was then
		return map[string]any{"type": "string"}
	case p.kind != "" && p.nullable:
		out["type"] = []string{p.kind, "null"}
	case p.kind != "":
		out["type"] = p.kind
	}
	if p.enum != nil {
		out["enum"] = p.enum
	}
	if p.pattern != nil {
		out["pattern"] = firstOf(p.shown, p.pattern.String())
	}
	if p.format != "" {
		out["format"] = p.format
	}
	switch {
	case p.kind == "integer":
		out["minimum"], out["maximum"] = p.min, p.highest(d)
	case p.kind == "string" && p.max > 0 && p.shown == "":
		out["minLength"], out["maxLength"] = p.min, p.max
	}
	if p.items != nil {
		out["items"] = p.items.schema(d)
	}
	if p.kind == "object" && p.values == nil {
		members, required := map[string]any{}, []string{}
		for _, name := range sortedKeys(p.fields) {
			if f := p.fields[name]; f.existsIn(d) {
				members[name] = f.schema(d)
				if f.required {
					required = append(required, name)
				}
			}
		}
		out["properties"] = members
		if len(required) > 0 {
			out["required"] = required
		}
		if !p.open {
			out["additionalProperties"] = false
		}
	}
	return out
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case float64:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "an array"
	}
	return "an object"
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
