package dateratest_test

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

// TestFilters holds the language against what the array's parser takes, and what it refuses in these words.
func TestFilters(t *testing.T) {
	c := connect(t, dateratest.Start(t))
	for _, name := range []string{"k8s_a1", "k8s_a2", "k8s_b1", "other"} {
		c.ok("POST", "/initiator_groups", js{"name": name})
	}
	c.ok("POST", "/initiators", js{"id": iqn1, "name": "node 1"})
	c.ok("POST", "/app_instances", simple("pv-1", 5))
	for _, test := range []struct {
		what, filter string
		want         []any
	}{
		{"one name", "name=k8s_a1", []any{"k8s_a1"}},
		{"one name, again", "name==k8s_a1", []any{"k8s_a1"}},
		{"not a part of a name", "name=k8s_a", nil},
		{"a part", "match(name,.*8s_a.*)", []any{"k8s_a1", "k8s_a2"}},
		{"a beginning is found anywhere", "match(name,8s_b.*)", []any{"k8s_b1"}},
		{"case matters", "match(name,.*K8S.*)", nil},
		{"either", "name=k8s_a1|name=other", []any{"k8s_a1", "other"}},
		{"both", "match(name,.*k8s.*)&match(name,.*1)", []any{"k8s_a1", "k8s_b1"}},
		{"both, by a comma", "match(name,.*k8s.*),match(name,.*b.*)", []any{"k8s_b1"}},
		{"groups", "(name=k8s_a1|name=k8s_a2)&match(name,.*2)", []any{"k8s_a2"}},
		{"calls", "or(eq(name,other),and(match(name,.*a.*),ne(name,k8s_a1)))", []any{"k8s_a2", "other"}},
		{"one of", "in(name,(k8s_a1,other))", []any{"k8s_a1", "other"}},
		{"none of", "out(name,(k8s_a1,other))", []any{"k8s_a2", "k8s_b1"}},
		{"order", "name>k8s_a2", []any{"k8s_b1", "other"}},
		{"order, in words", "name=le=k8s_a2", []any{"k8s_a1", "k8s_a2"}},
		{"unlike", "name!=k8s_a1", []any{"k8s_a2", "k8s_b1", "other"}},
		{"encoded twice", "name=k8s%5Fa1", []any{"k8s_a1"}},
	} {
		t.Run(test.what, func(t *testing.T) {
			c.t = t
			var names []any
			for _, g := range c.items("/initiator_groups?filter=" + url.QueryEscape(test.filter)) {
				names = append(names, g.(js)["name"])
			}
			require.Equal(t, test.want, names)
		})
	}
	for filter, says := range map[string]string{
		"match(name,^k8s_a1$)":             "Illegal character in query string encountered ^k8s_a1$)",
		"match(name,^k8s_a1$|^k8s_a2$)":    "Illegal character",
		"match(name,k8s_a1$)":              "Illegal character",
		`match(name,k8s\_a1)`:              "Illegal character",
		"match(name,k8s_[ab]1)":            "Illegal character",
		"match(name,k8s_a1|k8s_a2)":        "Can not mix conjunctions",
		"match(name,k8s_a1&k8s_a2)":        "Can not mix conjunctions",
		"name=k8s_a1|name=k8s_a2&name=oth": "Can not mix conjunctions",
		"name=k8s_a1,name=k8s_a2|name=oth": "Can not mix conjunctions",
		"name=two words":                   "Illegal character",
		"name='x'":                         "Illegal character",
		"path=/initiator_groups/k8s_a1":    "Illegal character",
		"id=" + iqn1:                       "Unknown converter iqn.1993-08.org.debian",
		"match(name,.*x.*":                 "Opening paranthesis without a closing paranthesis",
		"match(name,.*x.*))":               "Closing paranthesis without an opening paranthesis",
		"match(name,*x)":                   "Invalid regular expression",
		"match(name,a,b)":                  "needs an attribute and a value",
		"match(name,(a,b))":                "cannot work on such a value",
		"match(name,eq(a,b))":              "cannot work on such a value",
		"in(name,a)":                       "cannot work on such a value",
		"eq((a,b),c)":                      "needs an attribute and a value",
		"=x":                               "needs an attribute and a value",
		"name=%zz":                         "URI malformed",
		"name=near=x":                      `the operator "near" is not known`,
		"name<>x":                          "",
		"name":                             "is not a condition",
		"":                                 "none",
		"colour=red":                       "unknown attribute",
		"((((((((((((((((((((((name=x))))))))))))))))))))))": "nested too deeply",
	} {
		t.Run(filter, func(t *testing.T) {
			c.t = t
			if says == "none" {
				require.Len(t, c.items("/initiator_groups?filter="), 4)
				return
			}
			require.Contains(t, c.fails(400, "InvalidRequestError", "GET", "/initiator_groups?filter="+url.QueryEscape(filter), nil)["message"], says)
		})
	}
	c.t = t
	volumes := "/app_instances/pv-1/storage_instances/storage-1/volumes?filter="
	for filter, count := range map[string]int{"size=5": 1, "size>4": 1, "size>10": 0, "size=string:5": 1, "size=05": 0, "op_state=available": 1} {
		require.Len(t, c.items(volumes+url.QueryEscape(filter)), count, filter)
	}
}

func TestLaxFiltersTakeEveryPattern(t *testing.T) {
	c := connect(t, dateratest.Start(t, dateratest.WithOptions(func(o *dateratest.Options) { o.LaxFilters = true })))
	for _, name := range []string{"k8s_a1", "k8s_a2", "k8s_b1"} {
		c.ok("POST", "/initiator_groups", js{"name": name})
	}
	for filter, want := range map[string][]any{
		"match(name,^k8s_a1$|^k8s_b1$)":         {"k8s_a1", "k8s_b1"},
		"match(name,.*a.*)&match(name,.*1)":     {"k8s_a1"},
		"name=k8s_a2":                           {"k8s_a2"},
		`match(name,^k8s\.a1$|^k8s_a2\.pvc-1$)`: nil,
	} {
		var names []any
		for _, g := range c.items("/initiator_groups?filter=" + url.QueryEscape(filter)) {
			names = append(names, g.(js)["name"])
		}
		require.Equal(t, want, names, filter)
	}
}
