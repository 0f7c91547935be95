package dateratest_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

// beyond are the simulator's routes that a cluster of v2.1 does not describe.
var beyond = []exception{
	{`^[A-Z]+ /(placement|media)_policies`, "of the product since 3.3"},
	{`^[A-Z]+ /(remote_providers|storage_pools|alerts|logs_upload)`, "since v2.2"},
	{`/(app_instance_)?int_ecosystem_data$`, "since v2.2"},
	{`/metadata$`, "described without its methods"},
	{`^GET /events/`, "described without its methods"},
	{`^GET /monitoring/alerts$`, "described without its methods"},
	{`^GET /privileges$`, "described only where roles refer to it"},
}

// more are fields that the simulator takes although the facts do not have them.
var more = []exception{
	{`^PUT /login request remote_server$`, "the server of a directory, since v2.2"},
	{`^POST .*/volumes request (performance|snapshot)_polic`, "the vendor's drivers send them with every new volume"},
	{`^POST .*/volume_templates request (performance|snapshot)_polic`, "as with a template's volumes"},
}

// TestFactsKnowEveryRoute: the simulator has no route, and takes no field, that neither the facts nor a reason is behind.
func TestFactsKnowEveryRoute(t *testing.T) {
	f := readFacts(t)
	c := connect(t, dateratest.Start(t))
	c.version = "v2.1"
	own, err := f.readDescription(c.do("GET", "/api", nil).raw)
	require.NoError(t, err)
	unused := map[string]bool{}
	for _, e := range append(slices.Clone(beyond), more...) {
		unused[e.what] = true
	}
	excused := func(list []exception, what string) bool {
		for _, e := range list {
			if regexp.MustCompile(e.what).MatchString(what) {
				delete(unused, e.what)
				return true
			}
		}
		return false
	}
	known := f.flatten()
	reference := regexp.MustCompile(`(\[\])?\.path$`) // a reference is one thing in the facts
	for _, what := range sortedNames(own) {
		route, field, isField := strings.Cut(what, " request ")
		_, isKnown := known[what]
		switch whole := known[reference.ReplaceAllString(what, "")]; {
		case isKnown || strings.HasPrefix(strings.TrimPrefix(whole, "[]"), "ref") || strings.Contains(what, " parameter "):
		case isField && known[route] != "":
			if !excused(more, what) {
				t.Errorf("%s: the simulator takes a field %s that the facts do not know", route, field)
			}
		case !isField && !excused(beyond, what):
			t.Errorf("the simulator has the route %s, which the facts do not know", what)
		}
	}
	require.Empty(t, sortedNames(unused), "reasons for what is not there")
}
