package datera

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// pageSize is the largest that the API's schema allows. A server may cap it lower.
const pageSize = 1000

// readings of a list that changes while it is read.
const readings = 3

var (
	errNotWhole = errors.New("the list cannot be shown to be whole")
	errMoved    = errors.New("it changed while it was read, or the array does not go by offset")
)

// listing says which elements of a collection to read.
type listing struct {
	collection string
	filter     string // in the array's language; empty: all
	tenant     string // empty: the client's
}

// list reads a collection, and fails unless the answers show that they hold all of it.
func (c *Client) list(ctx context.Context, l listing) ([]json.RawMessage, error) {
	for reading := 1; ; reading++ {
		all, err := c.pages(ctx, l)
		if errors.Is(err, errMoved) && reading < readings {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list %s of %s: %w", l.collection, c.server, err)
		}
		return all, nil
	}
}

// pages reads until the total that the array names, or a page that brings nothing new. Each page begins with the last
// element of the one before it: were it another one, something before it came or went, and an element may have slipped
// from one page to the other unseen.
func (c *Client) pages(ctx context.Context, l listing) ([]json.RawMessage, error) {
	var all []json.RawMessage
	for {
		overlap := min(len(all), 1)
		p, err := c.page(ctx, l, len(all)-overlap)
		if err != nil {
			return nil, err
		}
		if overlap == 1 && (len(p.elements) == 0 || !bytes.Equal(identity(p.elements[0]), identity(all[len(all)-1]))) {
			return nil, fmt.Errorf("%w: %w", errNotWhole, errMoved)
		}
		fresh := p.elements[overlap:]
		all = append(all, fresh...)
		said := p.total != notSaid
		switch {
		case said && p.total == len(all):
			return all, nil
		case said && p.total < len(all):
			return nil, fmt.Errorf("%w: the array counts %d, and %d came", errNotWhole, p.total, len(all))
		case len(fresh) > 0 && c.hasOffset():
		case said:
			return nil, fmt.Errorf("%w: the array counts %d, and %d came%s", errNotWhole, p.total, len(all), c.withoutOffset())
		case len(p.elements) >= p.limit && !c.hasOffset():
			return nil, fmt.Errorf("%w: %d came, which is all that one answer may hold, and the array does not count them%s", errNotWhole, len(all), c.withoutOffset())
		default:
			return all, nil
		}
	}
}

// hasOffset says whether a list can be read from an element on: v2.1 knows limit, filter and sort alone.
func (c *Client) hasOffset() bool { return c.minor > 1 }

func (c *Client) withoutOffset() string {
	if c.hasOffset() {
		return ""
	}
	return "; API version 2.1 has no second page: set api_version to 2.2 or later, if the array speaks it"
}

// page is one answer of a list.
type page struct {
	elements []json.RawMessage
	total    int // elements of the list over all its pages, or notSaid
	limit    int // elements of a page
}

const notSaid = -1

func (c *Client) page(ctx context.Context, l listing, offset int) (page, error) {
	query := url.Values{"limit": {strconv.Itoa(pageSize)}}
	if c.hasOffset() {
		query.Set("offset", strconv.Itoa(offset))
	}
	if l.filter != "" {
		query.Set("filter", l.filter)
	}
	p := page{total: notSaid, limit: pageSize}
	body, err := c.do(ctx, request{method: get, at: at(l.collection), query: query, tenant: l.tenant}, &p.elements)
	if isNoData(err) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	p.readMetadata(body)
	return p, nil
}

// readMetadata takes what can be understood: some write [] for none, and what is not understood is not said. v2.1 counts in
// total, v2.2 in total_count.
func (p *page) readMetadata(body []byte) {
	var envelope struct {
		Metadata map[string]json.RawMessage `json:"metadata"`
	}
	if json.Unmarshal(body, &envelope) != nil {
		return
	}
	for name, raw := range envelope.Metadata {
		var n *number
		if json.Unmarshal(raw, &n) != nil || n == nil || *n < 0 {
			continue
		}
		switch name {
		case "total", "total_count":
			p.total = max(p.total, int(*n))
		case "limit":
			p.limit = max(int(*n), 1)
		}
	}
}

// isNoData recognises how some products say that a collection is empty (python-sdk, src/dfs_sdk/base.py).
func isNoData(err error) bool {
	var e *APIError
	return errors.As(err, &e) && IsNotFound(e) && strings.HasPrefix(e.Message, "No data at ")
}

// identity tells an element from the others of its list, whatever else of it changes.
func identity(element json.RawMessage) []byte {
	var w struct {
		Path   string `json:"path"`
		Tenant string `json:"tenant"`
	}
	if json.Unmarshal(element, &w) != nil || w.Path == "" {
		return element
	}
	return []byte(w.Tenant + " " + w.Path)
}

// filterable is what the array's filter language takes within an expression, as far as its public clients show: it has a use
// of its own for most other signs, and no spaces.
var filterable = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// namer reads the name of an element of a list.
type namer func(json.RawMessage) (string, error)

// containing lists the elements whose names contain part.
func (c *Client) containing(ctx context.Context, l listing, part string, name namer) ([]json.RawMessage, error) {
	found, ok, err := c.filtered(ctx, l, part, name)
	if ok || err != nil {
		return found, err
	}
	return c.unfiltered(ctx, l, part, name)
}

// filtered asks by a filter, in the one form that the array's public clients use. It is not ok where the array refuses the
// filter, or what came is not what was asked for.
func (c *Client) filtered(ctx context.Context, l listing, part string, name namer) (found []json.RawMessage, ok bool, err error) {
	if !filterable.MatchString(part) {
		return nil, false, nil
	}
	l.filter = "match(name,.*" + part + ".*)"
	answered, err := c.list(ctx, l)
	if err != nil && !isFault(err) && !errors.Is(err, errNotWhole) {
		return nil, false, err
	}
	if err == nil {
		found, err = c.whoseNameContains(l, answered, part, name)
	}
	if err != nil || len(found) < len(answered) {
		c.log.Debug("the array does not go by the filter: the whole list is read", "collection", l.collection, "filter", l.filter, "err", err)
		return nil, false, nil
	}
	return found, true, nil
}

func (c *Client) unfiltered(ctx context.Context, l listing, part string, name namer) ([]json.RawMessage, error) {
	all, err := c.list(ctx, l)
	if err != nil {
		return nil, err
	}
	return c.whoseNameContains(l, all, part, name)
}

func (c *Client) whoseNameContains(l listing, elements []json.RawMessage, part string, name namer) ([]json.RawMessage, error) {
	var found []json.RawMessage
	for _, element := range elements {
		called, err := name(element)
		if err != nil {
			return nil, c.unclearElement(l, err)
		}
		if strings.Contains(called, part) {
			found = append(found, element)
		}
	}
	return found, nil
}

// understood decodes elements of a list.
func understood[T any](c *Client, l listing, elements []json.RawMessage) ([]T, error) {
	all := make([]T, len(elements))
	for i, element := range elements {
		if err := json.Unmarshal(element, &all[i]); err != nil {
			return nil, c.unclearElement(l, err)
		}
	}
	return all, nil
}

func (c *Client) unclearElement(l listing, err error) error {
	return fmt.Errorf("%w: an element of the list %s of %s: %w", errUnclear, l.collection, c.server, err)
}
