package dateratest

import (
	"cmp"
	"fmt"
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
	parse := parseFilter
	if c.options.LaxFilters {
		parse = parseLaxFilter
	}
	keep, err := parse(c.query.Get("filter"))
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
