package datera

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// place is the path of an entity below the API version, escaped; or why it cannot be one.
type place struct {
	path string
	err  error
}

// at builds a place from names. Each must be a single path element: a name may come from a user, and one
// that held a slash or two dots would address another entity.
func at(elements ...string) place {
	var b strings.Builder
	for _, e := range elements {
		if e == "" || e == "." || strings.Contains(e, "..") || strings.ContainsFunc(e, forbiddenInName) {
			return place{err: fmt.Errorf("%q is not a name that the array can have (in /%s)", e, path.Join(elements...))}
		}
		b.WriteString("/" + url.PathEscape(e))
	}
	return place{path: b.String()}
}

func forbiddenInName(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune(`/\?#%`, r) }

// under is at, below an entity whose path the array gave: "/app_instances/…/storage_instances/storage-1".
func under(entity string, elements ...string) place {
	inner, ok := strings.CutPrefix(entity, "/")
	if !ok {
		return place{err: fmt.Errorf("%q is not the path of an entity: it must begin with a slash", entity)}
	}
	return at(append(strings.Split(inner, "/"), elements...)...)
}

// Reference points at another entity.
type Reference struct {
	Path   string `json:"path"`
	Name   string `json:"name,omitempty"` // the last element of Path when the array gives none
	Tenant string `json:"tenant,omitempty"`
}

// UnmarshalJSON takes an object or, as old products write it, the bare path.
func (r *Reference) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		*r = Reference{}
		if err := json.Unmarshal(b, &r.Path); err != nil {
			return err
		}
	} else {
		type plain Reference
		if err := json.Unmarshal(b, (*plain)(r)); err != nil {
			return err
		}
	}
	if r.Name == "" && r.Path != "" {
		r.Name = path.Base(r.Path)
	}
	return nil
}

// pathTo is a reference as it is sent: the array refuses any key but path.
type pathTo struct {
	Path string `json:"path"`
}

// refer points at an entity by its name; at nothing without a name.
func refer(collection, name string) (*pathTo, error) {
	if name == "" {
		return nil, nil
	}
	entity := at(collection, name)
	return &pathTo{entity.path}, entity.err
}

// number is an integer that some products write as a float or as a string.
type number int64

func (n *number) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	if text == "" || text == "null" {
		return nil
	}
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		*n = number(i)
		return nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || math.Abs(f) >= math.MaxInt64 {
		return fmt.Errorf("%q is not a number", printable(text, 40))
	}
	*n = number(math.Ceil(f)) // a little in use is not nothing
	return nil
}

// decode reads the "data" of an answer into out.
func decode(body []byte, out any) error {
	var envelope struct {
		Data json.RawMessage `json:"data"`
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return errLost
	}
	if err := json.Unmarshal(body, &envelope); err != nil {
		return fmt.Errorf("%w: %w", errNoData, err)
	}
	if len(envelope.Data) == 0 || bytes.Equal(envelope.Data, []byte("null")) {
		return errNoData
	}
	return json.Unmarshal(envelope.Data, out)
}

// cutOff says that a body is the beginning of a JSON document.
func cutOff(body []byte) bool {
	err := json.Unmarshal(body, new(json.RawMessage))
	return len(body) > 0 && err != nil && err.Error() == "unexpected end of JSON input"
}

// total is how many elements a list has over all its pages; 0 when the answer does not say.
// v2.1 writes {"total":2}, v2.2 {"total_count":2,"request_count":2,"limit":100,"offset":0}.
func total(body []byte) int {
	var envelope struct {
		Metadata struct {
			Total      number `json:"total"`
			TotalCount number `json:"total_count"`
		} `json:"metadata"`
	}
	_ = json.Unmarshal(body, &envelope) // some write [] for "no metadata"
	return int(max(envelope.Metadata.Total, envelope.Metadata.TotalCount))
}

// pageSize is the largest that the API's schema allows. A server may cap it lower.
const pageSize = 1000

// list reads a collection page by page. It stops at the total that the array names, at atMost elements
// (0: not known), or at a page that brings nothing new: products before 3.3 name a total that ignores the
// filter, and v2.1 need not name one.
func list[T any](ctx context.Context, c *Client, collection place, filter string, atMost int) ([]T, error) {
	var all []T
	seen := make(map[string]bool)
	for offset := 0; ; {
		query := url.Values{"limit": {strconv.Itoa(pageSize)}, "offset": {strconv.Itoa(offset)}}
		if filter != "" {
			query.Set("filter", filter)
		}
		var page []json.RawMessage
		body, err := c.do(ctx, request{method: get, at: collection, query: query}, &page)
		if err != nil {
			return nil, err
		}
		before := len(all)
		for _, raw := range page {
			if seen[string(raw)] {
				continue
			}
			seen[string(raw)] = true
			var element T
			if err := json.Unmarshal(raw, &element); err != nil {
				return nil, fmt.Errorf("understand an element of %s%s: %w", c.Server(), collection.path, err)
			}
			all = append(all, element)
		}
		offset += len(page)
		if n := total(body); len(all) == before || n > 0 && offset >= n || atMost > 0 && len(all) >= atMost {
			return all, nil
		}
	}
}

// named is the filter for entities with one of these names. It has no brackets, which the filter language
// has its own use for, and no spaces, which it does not allow.
func named(names ...string) string {
	patterns := make([]string, len(names))
	for i, name := range names {
		patterns[i] = "^" + strings.ReplaceAll(regexp.QuoteMeta(name), " ", ".") + "$"
	}
	return "match(name," + strings.Join(patterns, "|") + ")"
}

// last is the last element of the path: of an initiator's, the IQN.
func (r Reference) last() string { return r.Path[strings.LastIndexByte(r.Path, '/')+1:] }
