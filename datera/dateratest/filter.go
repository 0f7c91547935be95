package dateratest

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The language of filters is the Resource Query Language in its small form: comparisons (name=x, size>=5), calls
// (match(name,.*x.*), in(name,(a,b))), and either "&" or "|" between them; parentheses group. What its usual parser
// refuses is refused in its words, because clients meet them: whatever is no letter, digit or one of +*-._:% in a value is
// an illegal character, so most of a regular expression is, and "|" inside a pattern mixes conjunctions.

// term is a value, or an operator with what it works on.
type term struct {
	operator string // "" for a value or a list of values
	value    string
	args     []term
	list     bool
}

const (
	valueCharacters = `[A-Za-z0-9_+*\-:%.]`
	mixed           = "Can not mix conjunctions within a group, use paranthesis around each set of same conjuctions (& and |)"
)

// comparison is name=x and its like: an attribute, an operator, a value or a list of values.
func comparison() *regexp.Regexp {
	return regexp.MustCompile(`(` + valueCharacters + `*)([<>!]?=(?:\w*=)?|>|<)(\((?:` + valueCharacters + `|,)+\)|` + valueCharacters + `*)`)
}

// parseFilter understands an expression. Without one it is nil, which lets everything pass.
func parseFilter(expression string) (*term, error) {
	if expression == "" {
		return nil, nil
	}
	text, err := callsOnly(expression)
	if err != nil {
		return nil, err
	}
	p := &filterParser{rest: text}
	root, err := p.group()
	switch {
	case err != nil:
		return nil, err
	case strings.HasPrefix(p.rest, ")"):
		return nil, refused("Closing paranthesis without an opening paranthesis")
	case p.rest != "":
		return nil, refused("Illegal character in query string encountered %s", p.rest)
	}
	return root, root.check()
}

// parseLaxFilter takes what parseFilter refuses in a pattern for names, see [Options.LaxFilters].
func parseLaxFilter(expression string) (*term, error) {
	pattern, call := strings.CutPrefix(expression, "match(name,")
	pattern, closed := strings.CutSuffix(pattern, ")")
	if _, err := regexp.Compile(pattern); !call || !closed || err != nil {
		return parseFilter(expression)
	}
	match := term{operator: "match", args: []term{{value: "name"}, {value: pattern}}}
	return &term{operator: "and", args: []term{match}}, nil
}

// callsOnly writes comparisons as calls: name=x is eq(name,x).
func callsOnly(expression string) (string, error) {
	names := map[string]string{"=": "eq", "==": "eq", ">": "gt", ">=": "ge", "<": "lt", "<=": "le", "!=": "ne"}
	var wrong error
	text := comparison().ReplaceAllStringFunc(expression, func(found string) string {
		parts := comparison().FindStringSubmatch(found)
		operator, known := names[parts[2]]
		switch {
		case len(parts[2]) >= 3: // name=ge=5
			operator = strings.Trim(parts[2], "=<>!")
		case !known:
			wrong = refused("Illegal operator %s", parts[2])
		}
		return operator + "(" + parts[1] + "," + parts[3] + ")"
	})
	return text, wrong
}

// filterParser reads an expression of calls.
type filterParser struct {
	rest  string
	depth int
}

// group reads terms until its parenthesis closes or the text ends: either all of "&" and commas, or all of "|".
func (p *filterParser) group() (*term, error) {
	g := &term{operator: "and"}
	conjunction := ""
	for {
		next, err := p.term()
		if err != nil {
			return nil, err
		}
		g.args = append(g.args, next)
		if p.rest == "" || !strings.ContainsRune("&|,", rune(p.rest[0])) {
			return g, nil
		}
		between := map[byte]string{'&': "and", ',': "and", '|': "or"}[p.rest[0]]
		if conjunction != "" && conjunction != between {
			return nil, refused(mixed)
		}
		conjunction, g.operator = between, between
		p.rest = p.rest[1:]
	}
}

// term reads a call, a group or a list in parentheses, or a value.
func (p *filterParser) term() (term, error) {
	word := p.word()
	if !strings.HasPrefix(p.rest, "(") {
		return term{value: word}, nil
	}
	if p.depth++; p.depth > 20 {
		return term{}, refused("the filter is nested too deeply")
	}
	p.rest = p.rest[1:]
	inner, err := p.arguments(word)
	if err != nil {
		return term{}, err
	}
	if !strings.HasPrefix(p.rest, ")") {
		if p.rest == "" {
			return term{}, refused("Opening paranthesis without a closing paranthesis")
		}
		return term{}, refused("Illegal character in query string encountered %s", p.rest)
	}
	p.rest = p.rest[1:]
	p.depth--
	return inner, nil
}

// arguments reads what stands in parentheses behind a word: terms with commas, or if there is no word, a group.
func (p *filterParser) arguments(word string) (term, error) {
	if word == "" {
		g, err := p.group()
		if err != nil {
			return term{}, err
		}
		if !slices.ContainsFunc(g.args, func(a term) bool { return a.operator != "" }) {
			return term{list: true, args: g.args}, nil
		}
		return *g, nil
	}
	call := term{operator: word}
	for {
		next, err := p.term()
		if err != nil {
			return term{}, err
		}
		call.args = append(call.args, next)
		if p.rest == "" || !strings.ContainsRune("&|,", rune(p.rest[0])) {
			return call, nil
		}
		if p.rest[0] != ',' {
			return term{}, refused(mixed)
		}
		p.rest = p.rest[1:]
	}
}

// word takes characters of a value off the text.
func (p *filterParser) word() string {
	end := strings.IndexFunc(p.rest, func(r rune) bool {
		return r > 'z' || !strings.ContainsRune("+*-:%._", r) && !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9')
	})
	if end < 0 {
		end = len(p.rest)
	}
	word := p.rest[:end]
	p.rest = p.rest[end:]
	return word
}

// check refuses operators that are not known, and what they cannot work on, and decodes values.
func (t *term) check() error {
	switch t.operator {
	case "":
		return t.decode()
	case "and", "or":
		for i := range t.args {
			if err := t.args[i].checkCondition(); err != nil {
				return err
			}
		}
		return nil
	case "eq", "ne", "lt", "le", "gt", "ge", "match", "in", "out":
	default:
		return refused("the operator %q is not known", t.operator)
	}
	if len(t.args) != 2 || t.args[0].operator != "" || t.args[0].list || t.args[0].value == "" {
		return refused("the operator %s needs an attribute and a value", t.operator)
	}
	if t.args[1].operator != "" || t.args[1].list != (t.operator == "in" || t.operator == "out") {
		return refused("the operator %s cannot work on such a value", t.operator)
	}
	if err := t.args[1].check(); err != nil {
		return err
	}
	if t.operator == "match" {
		if _, err := regexp.Compile(t.args[1].value); err != nil {
			return refused("Invalid regular expression: %s", t.args[1].value)
		}
	}
	return nil
}

// checkCondition refuses a value where a comparison has to be.
func (t *term) checkCondition() error {
	if t.operator == "" {
		return refused("%q is not a condition", t.value)
	}
	return t.check()
}

// decode reads a value: percent signs stand for characters, a colon parts a type from its value.
func (t *term) decode() error {
	for i := range t.args {
		if err := t.args[i].check(); err != nil {
			return err
		}
	}
	if kind, value, typed := strings.Cut(t.value, ":"); typed {
		if kind != "string" {
			return refused("Unknown converter %s", kind)
		}
		t.value = value
	}
	value, err := url.PathUnescape(t.value)
	if err != nil {
		return refused("URI malformed")
	}
	t.value = value
	return nil
}

// apply keeps what the filter lets pass. An attribute that none of the items has is refused.
func (t *term) apply(items []entity) ([]entity, error) {
	if t == nil || len(items) == 0 {
		return items, nil
	}
	for attribute := range t.attributes() {
		if !slices.ContainsFunc(items, func(item entity) bool { _, has := item[attribute]; return has }) {
			return nil, refused("filter: unknown attribute %q", attribute)
		}
	}
	var kept []entity
	for _, item := range items {
		if t.accepts(item) {
			kept = append(kept, item)
		}
	}
	return kept, nil
}

// attributes are the names that the filter compares.
func (t *term) attributes() map[string]bool {
	names := map[string]bool{}
	if t.operator != "and" && t.operator != "or" {
		names[t.args[0].value] = true
		return names
	}
	for i := range t.args {
		for name := range t.args[i].attributes() {
			names[name] = true
		}
	}
	return names
}

func (t *term) accepts(item entity) bool {
	passes := func(arg term) bool { return arg.accepts(item) }
	switch t.operator {
	case "and":
		return !slices.ContainsFunc(t.args, func(arg term) bool { return !passes(arg) })
	case "or":
		return slices.ContainsFunc(t.args, passes)
	}
	attribute, has := item[t.args[0].value]
	return has && t.compares(fmt.Sprint(attribute))
}

// compares is one comparison with an attribute, of numbers by value.
func (t *term) compares(have string) bool {
	want := t.args[1]
	switch t.operator {
	case "match":
		return regexp.MustCompile(want.value).MatchString(have)
	case "in", "out":
		return slices.ContainsFunc(want.args, func(one term) bool { return one.value == have }) == (t.operator == "in")
	}
	order := strings.Compare(have, want.value)
	x, errX := strconv.Atoi(have)
	y, errY := strconv.Atoi(want.value)
	if errX == nil && errY == nil && strconv.Itoa(y) == want.value {
		order = x - y
	}
	return map[string]bool{"eq": order == 0, "ne": order != 0, "lt": order < 0, "le": order <= 0, "gt": order > 0, "ge": order >= 0}[t.operator]
}
