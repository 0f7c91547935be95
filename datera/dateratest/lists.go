package dateratest

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	defaultPage = 100
	maxPage     = 1000
)

// page filters, sorts and cuts a collection as the query of the call asks for.
func (c *call) page(items []entity) (any, error) {
	all := len(items)
	if c.faults.refuseFilter && c.query.Get("filter") != "" {
		return nil, refused("filter %q cannot be understood", c.query.Get("filter"))
	}
	keep, err := parseFilter(c.query.Get("filter"))
	if err != nil {
		return nil, err
	}
	if items, err = keep.apply(items); err != nil {
		return nil, err
	}
	if by := c.query.Get("sort"); by != "" {
		if err := sortBy(items, by); err != nil {
			return nil, err
		}
	}
	limit, err := c.number("limit", defaultPage, maxPage)
	if err != nil {
		return nil, err
	}
	if limit == 0 {
		limit = defaultPage
	}
	start, err := c.number("offset", 0, 1<<31)
	if err != nil {
		return nil, err
	}
	total := len(items)
	if !c.dialect.new33 { // products before 3.3 count what the filter leaves out, too
		total = all
	}
	if c.faults.noOffset {
		start = 0
	}
	if c.faults.shortList {
		items = items[:min(c.faults.longest, len(items))]
	}
	items = items[min(start, len(items)):]
	return list{items: append([]entity{}, items[:min(limit, len(items))]...), total: total, limit: limit, start: start}, nil
}

func (c *call) number(name string, standard, high int) (int, error) {
	given := c.query.Get(name)
	if given == "" {
		return standard, nil
	}
	n, err := strconv.Atoi(given)
	if err != nil || n < 0 || n > high {
		return 0, refused("query parameter %s=%q is not a number between 0 and %d", name, given, high)
	}
	return n, nil
}

// filter is a parsed filter expression. The zero value lets everything pass.
type filter struct {
	attribute string
	equals    string
	matches   *regexp.Regexp
}

// matchForm is match(attribute,expression); the expression may hold commas and parentheses itself.
var (
	matchForm = regexp.MustCompile(`^match\(([A-Za-z_][A-Za-z0-9_]*),(.*)\)$`)
	equalForm = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*)=(.*)$`)
)

// parseFilter understands name=x and match(name,regular expression), the forms that clients use.
func parseFilter(expression string) (filter, error) {
	if expression == "" {
		return filter{}, nil
	}
	if m := matchForm.FindStringSubmatch(expression); m != nil {
		r, err := regexp.Compile(m[2])
		if err != nil {
			return filter{}, refused("filter %q: %v", expression, err)
		}
		return filter{attribute: m[1], matches: r}, nil
	}
	if m := equalForm.FindStringSubmatch(expression); m != nil {
		return filter{attribute: m[1], equals: m[2]}, nil
	}
	return filter{}, refused("filter %q is neither name=value nor match(name,expression)", expression)
}

func (f filter) apply(items []entity) ([]entity, error) {
	if f.attribute == "" || len(items) == 0 {
		return items, nil
	}
	var kept []entity
	known := false
	for _, item := range items {
		value, has := item[f.attribute]
		known = known || has
		if has && f.accepts(fmt.Sprint(value)) {
			kept = append(kept, item)
		}
	}
	if !known {
		return nil, refused("filter: unknown attribute %q", f.attribute)
	}
	return kept, nil
}

func (f filter) accepts(value string) bool {
	if f.matches != nil {
		return f.matches.MatchString(value)
	}
	return value == f.equals
}

// sortBy orders by one attribute, numbers by value; "-name" is descending.
func sortBy(items []entity, attribute string) error {
	name := strings.TrimPrefix(attribute, "-")
	for _, item := range items {
		if _, has := item[name]; !has {
			return refused("sort: unknown attribute %q", name)
		}
	}
	slices.SortStableFunc(items, func(a, b entity) int {
		if name != attribute {
			a, b = b, a
		}
		x, isNumber := a[name].(int)
		if y, ok := b[name].(int); ok && isNumber {
			return cmp.Compare(x, y)
		}
		return strings.Compare(fmt.Sprint(a[name]), fmt.Sprint(b[name]))
	})
	return nil
}

func listNothing(c *call) (any, error) { return c.page(nil) }

func readNothing(c *call) (any, error) { return nil, notFound(c.path) }
