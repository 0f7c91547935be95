package datera

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"path"
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
	Name   string `json:"name,omitempty"` // the last element of Path; of an initiator the label that it has beside
	Tenant string `json:"tenant,omitempty"`
}

// UnmarshalJSON takes an object or, as old products write it, the bare path. What says its name and has another in its path
// could be either, so it is an error.
func (r *Reference) UnmarshalJSON(b []byte) error {
	var w struct {
		Path   string          `json:"path"`
		Name   string          `json:"name"`
		ID     json.RawMessage `json:"id"` // of a group, some products write a number
		Tenant string          `json:"tenant"`
	}
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &w.Path); err != nil {
			return err
		}
	} else if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*r = Reference{Path: w.Path, Name: w.Name, Tenant: w.Tenant}
	if r.Path == "" {
		return nil
	}
	if r.Name == "" {
		r.Name = r.last()
	}
	var id string
	switch {
	case r.within("initiators") == nil:
		if json.Unmarshal(w.ID, &id) == nil && id != "" && !SameIQN(id, r.last()) {
			return fmt.Errorf("%s has the id %q", printable(r.Path, maxDetail), printable(id, maxDetail))
		}
	case r.Name != r.last():
		return fmt.Errorf("%s has the name %q", printable(r.Path, maxDetail), printable(r.Name, maxName))
	}
	return nil
}

// last is the last element of the path: of an initiator's, the IQN.
func (r Reference) last() string { return r.Path[strings.LastIndexByte(r.Path, '/')+1:] }

// within says whether it points at an element of a collection.
func (r Reference) within(collection string) error {
	if name, ok := strings.CutPrefix(r.Path, "/"+collection+"/"); !ok || name == "" || strings.Contains(name, "/") {
		return fmt.Errorf("%q is not the path of one of /%s", printable(r.Path, maxDetail), collection)
	}
	return nil
}

func allWithin(collection string, references []Reference) error {
	for _, r := range references {
		if err := r.within(collection); err != nil {
			return err
		}
		if collection == "initiators" && !isIQN(r.last()) {
			return fmt.Errorf("%q is not the path of an initiator", printable(r.Path, maxDetail))
		}
	}
	return nil
}

func lastElements(references []Reference) []string {
	var names []string
	for _, r := range references {
		names = append(names, r.last())
	}
	return names
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
	if text == "null" {
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
