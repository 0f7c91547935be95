package datera

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// collection is a list that the array answers page by page.
type collection struct {
	elements []any
	page     int                         // elements of a page; 0: what was asked for
	metadata func(offset, count int) any // nil: none
	pageless bool                        // it does not go by offset
	refuses  bool                        // filters
	ignores  bool                        // filters
	between  func(*collection)           // happens after each page
}

func (l *collection) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	filter := query.Get("filter")
	if filter != "" && l.refuses {
		refuse(w, 400, "InvalidRequestError", "Illegal character in "+filter)
		return
	}
	kept := l.elements
	if filter != "" && !l.ignores {
		kept = nil
		for _, e := range l.elements {
			part := strings.TrimSuffix(strings.TrimPrefix(filter, "match(name,.*"), ".*)")
			if strings.Contains(e.(map[string]any)["name"].(string), part) {
				kept = append(kept, e)
			}
		}
	}
	offset, _ := strconv.Atoi(query.Get("offset"))
	if l.pageless {
		offset = 0
	}
	limit, _ := strconv.Atoi(query.Get("limit"))
	if l.page > 0 {
		limit = min(limit, l.page)
	}
	offset = min(offset, len(kept))
	answer := map[string]any{"data": append([]any{}, kept[offset:min(offset+limit, len(kept))]...)}
	if l.metadata != nil {
		answer["metadata"] = l.metadata(offset, len(kept))
	}
	_ = json.NewEncoder(w).Encode(answer)
	if l.between != nil {
		l.between(l)
	}
}

func groups(n int) []any {
	var all []any
	for i := range n {
		name := fmt.Sprintf("k8s_%04d", i)
		all = append(all, map[string]any{"path": "/initiator_groups/" + name, "name": name, "members": []any{}})
	}
	return all
}

func counted(_, count int) any { return map[string]any{"total_count": count} }

// What came and what the array says that there is must agree.
func TestListsAreWhole(t *testing.T) {
	t.Parallel()
	paged := func(_, count int) any {
		return map[string]any{"total_count": count, "request_count": 3, "limit": 3, "offset": 0}
	}
	saying := func(metadata any) func(int, int) any { return func(int, int) any { return metadata } }
	once := func(change func(*collection)) func(*collection) {
		return func(l *collection) {
			l.between = nil
			change(l)
		}
	}
	for name, test := range map[string]struct {
		version string
		list    collection
		calls   int
		fails   string
	}{
		"one page":                             {"2.2", collection{metadata: counted}, 1, ""},
		"as many pages as the total needs":     {"2.2", collection{page: 3, metadata: paged}, 3, ""},
		"a total as text":                      {"2.2", collection{page: 3, metadata: saying(map[string]any{"total": "7"})}, 3, ""},
		"no metadata":                          {"2.2", collection{page: 3}, 4, ""},
		"empty metadata":                       {"2.2", collection{page: 3, metadata: saying([]int{})}, 4, ""},
		"metadata that says nothing":           {"2.2", collection{page: 3, metadata: saying(map[string]any{"total_count": nil, "total": "many", "limit": ""})}, 4, ""},
		"fewer than the total":                 {"2.2", collection{metadata: saying(map[string]any{"total_count": 9})}, 2, "the array counts 9, and 7 came"},
		"two totals":                           {"2.2", collection{metadata: saying(map[string]any{"total_count": 7, "total": 8})}, 2, "the array counts 8, and 7 came"},
		"more than the total":                  {"2.2", collection{metadata: saying(map[string]any{"total_count": 6})}, 1, "the array counts 6, and 7 came"},
		"offset ignored, no total":             {"2.2", collection{page: 3, pageless: true}, 2 * readings, "the array does not go by offset"},
		"offset ignored":                       {"2.2", collection{page: 3, pageless: true, metadata: counted}, 2 * readings, "the array does not go by offset"},
		"one comes before the page's end":      {"2.2", collection{page: 3, metadata: counted, between: once(func(l *collection) { l.elements = append(groups(1), l.elements...) })}, 6, ""},
		"one before the page's end goes":       {"2.2", collection{page: 3, metadata: counted, between: once(func(l *collection) { l.elements = l.elements[1:] })}, 5, ""},
		"all go":                               {"2.2", collection{page: 3, metadata: counted, between: once(func(l *collection) { l.elements = nil })}, 3, ""},
		"one goes and one comes":               {"2.2", collection{page: 3, metadata: counted, between: once(func(l *collection) { l.elements = append(l.elements[1:], groups(8)[7]) })}, 5, ""},
		"never twice the same":                 {"2.2", collection{page: 3, metadata: counted, between: func(l *collection) { l.elements = append(groups(len(l.elements))[len(l.elements)-1:], l.elements...) }}, 2 * readings, "changed while it was read"},
		"2.1":                                  {"2.1", collection{metadata: saying(map[string]any{"total": 7})}, 1, ""},
		"2.1 without a total":                  {"2.1", collection{}, 1, ""},
		"2.1, a full page without a total":     {"2.1", collection{elements: groups(pageSize)}, 1, "1000 came, which is all that one answer may hold, and the array does not count them; API version 2.1 has no second page: set api_version"},
		"2.1, a full page that is all":         {"2.1", collection{elements: groups(pageSize), metadata: counted}, 1, ""},
		"2.1, a lower limit without a total":   {"2.1", collection{page: 7, metadata: saying(map[string]any{"limit": 7})}, 1, "7 came, which is all"},
		"2.1, more than a page":                {"2.1", collection{elements: groups(pageSize + 1), metadata: counted}, 1, "the array counts 1001, and 1000 came; API version 2.1"},
		"more than a page, the array says how": {"2.2", collection{elements: groups(2*pageSize + 1), metadata: counted}, 3, ""},
		"exactly a page, no total":             {"2.2", collection{elements: groups(pageSize)}, 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			served := test.list
			if served.elements == nil {
				served.elements = groups(7)
			}
			a := newArray(t, served.ServeHTTP)
			config := a.config()
			config.APIVersion = test.version
			found, err := connect(t, config).list(t.Context(), listing{collection: "initiator_groups"})
			require.Len(t, a.recorded(), test.calls)
			for _, call := range a.recorded() {
				require.Equal(t, test.version != "2.1", strings.Contains(call.Query, "offset"), "2.1 knows no offset")
			}
			if test.fails != "" {
				require.ErrorIs(t, err, errNotWhole)
				require.ErrorContains(t, err, test.fails)
				require.ErrorContains(t, err, "list initiator_groups of http://")
				return
			}
			require.NoError(t, err)
			text, err := json.Marshal(served.elements)
			require.NoError(t, err)
			came, err := json.Marshal(append([]json.RawMessage{}, found...))
			require.NoError(t, err)
			if served.elements != nil {
				require.JSONEq(t, string(text), string(came))
			} else {
				require.Empty(t, found)
			}
		})
	}
}

// Some products answer an empty collection with an error. Nothing else is taken for one.
func TestNoData(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		fails  string
	}{
		"empty":             {refusing(404, "NotFoundError", "No data at /initiator_groups"), ""},
		"another 404":       {refusing(404, "NotFoundError", "/root/shop does not exist"), "404 NotFoundError"},
		"another status":    {refusing(500, "NotFoundError", "No data at /initiator_groups"), "500"},
		"another server's":  {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "No data at all", 404) }, "404"},
		"within other text": {refusing(404, "NotFoundError", "tenant shop: No data at /root/shop"), "404"},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := newArray(t, test.answer).client(t).InitiatorGroupsContaining(t.Context(), "k8s_")
			require.Empty(t, found)
			if test.fails != "" {
				require.ErrorContains(t, err, test.fails)
				return
			}
			require.NoError(t, err)
		})
	}
	_, err := newArray(t, refusing(404, "NotFoundError", "No data at /initiator_groups/k8s_a")).client(t).InitiatorGroup(t.Context(), "k8s_a")
	require.True(t, IsNotFound(err), "one that is not there is no empty list")
}

// A list that is too long for one answer is not cut to what fits.
func TestListOverTheLimit(t *testing.T) {
	t.Parallel()
	element := `{"path":"/initiator_groups/k8s_a","members":[]},` + strings.Repeat(" ", bodyLimit)
	for name, body := range map[string]string{
		"too long":              `{"data":[` + element + `{"path":"/initiator_groups/k8s_b","members":[]}],"metadata":{"total_count":2}}`,
		"whole up to the limit": (`{"data":[],"metadata":{"total_count":0}}` + strings.Repeat(" ", bodyLimit))[:bodyLimit+1],
	} {
		virtual(t, saying(200, body), func(t *testing.T, a *array, c *Client) {
			_, err := c.InitiatorGroupsContaining(t.Context(), "k8s_")
			require.ErrorContains(t, err, "larger than 16 MiB, so it was not read", name)
			require.Len(t, a.recorded(), 1, "to ask once more would not help")
		})
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	const part = "k8s_000"
	for name, test := range map[string]struct {
		list  collection
		calls []string // their filters
		fails string
	}{
		"applied":                   {collection{metadata: counted}, []string{"match(name,.*k8s_000.*)"}, ""},
		"refused":                   {collection{metadata: counted, refuses: true}, []string{"match(name,.*k8s_000.*)", ""}, ""},
		"ignored":                   {collection{metadata: counted, ignores: true}, []string{"match(name,.*k8s_000.*)", ""}, ""},
		"a total of all":            {collection{metadata: func(int, int) any { return map[string]any{"total_count": 12} }}, []string{"match(name,.*k8s_000.*)", "match(name,.*k8s_000.*)", ""}, ""},
		"refused, and a short list": {collection{metadata: func(int, int) any { return map[string]any{"total_count": 13} }, refuses: true}, []string{"match(name,.*k8s_000.*)", "", ""}, "the array counts 13, and 12 came"},
		"an element without a name": {collection{metadata: counted, elements: append(groups(12), map[string]any{"name": "k8s_0009", "members": []any{}})}, []string{"match(name,.*k8s_000.*)", ""}, `"" is not the path`},
	} {
		t.Run(name, func(t *testing.T) {
			served := test.list
			if served.elements == nil {
				served.elements = groups(12)
			}
			a := newArray(t, served.ServeHTTP)
			found, err := a.client(t).InitiatorGroupsContaining(t.Context(), part)
			var filters []string
			for _, call := range a.recorded() {
				query, err := http.NewRequest(http.MethodGet, "/?"+call.Query, nil)
				require.NoError(t, err)
				filters = append(filters, query.URL.Query().Get("filter"))
			}
			require.Equal(t, test.calls, filters)
			if test.fails != "" {
				require.ErrorContains(t, err, test.fails)
				return
			}
			require.NoError(t, err)
			require.Len(t, found, 10, "k8s_0000 to k8s_0009, and not k8s_0010")
			require.Equal(t, "k8s_0000", found[0].Name)
		})
	}
	t.Run("a dot that matches any sign", func(t *testing.T) {
		served := collection{metadata: counted, ignores: true, elements: []any{
			map[string]any{"path": "/initiator_groups/a.b", "members": []any{}}, map[string]any{"path": "/initiator_groups/axb", "members": []any{}},
		}}
		found, err := newArray(t, served.ServeHTTP).client(t).InitiatorGroupsContaining(t.Context(), "a.b")
		require.NoError(t, err)
		require.Len(t, found, 1)
		require.Equal(t, "a.b", found[0].Name)
	})
	t.Run("an error of the array's", func(t *testing.T) {
		a := newArray(t, refusing(403, "PermissionDeniedError", "no"))
		_, err := a.client(t).InitiatorGroupsContaining(t.Context(), part)
		require.ErrorContains(t, err, "403")
		require.Len(t, a.recorded(), 1, "it is not about the filter")
	})
}
