package model

import (
	"flag"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var large = flag.Bool("large", false, "ask the large questions, too: some minutes, and some gigabytes of memory")

func TestModel(t *testing.T) {
	for _, question := range append(questions, asWritten()...) {
		t.Run(question.name, func(t *testing.T) {
			if question.large && !*large {
				t.Skip("large: make model")
			}
			t.Parallel()
			found := question.parse().search()
			t.Logf("%d states\n%s", found.states, strings.Join(found.trace, "\n"))
			require.Equal(t, question.wants.String(), found.violated.String(), "what is violated")
		})
	}
}

// asWritten asks for each rule that was taken out with a violation whether the rule makes the difference: in the same world
// the protocol as it is written holds. What a row of the table asks already is not asked twice.
func asWritten() []scenario {
	type setting struct {
		callers string
		world   world
	}
	asked := map[setting]invariant{}
	for _, q := range questions {
		if q.wants == 0 && q.protocol == (protocol{}) {
			asked[setting{q.callers, q.world}] |= q.parse().checks
		}
	}
	var written []scenario
	for _, q := range questions {
		key := setting{q.callers, q.world}
		if q.wants == 0 || q.protocol == (protocol{}) || asked[key]&q.wants != 0 {
			continue
		}
		asked[key] |= q.wants
		written = append(written, scenario{name: "as written, for: " + q.name, callers: q.callers, world: q.world, checks: q.wants, large: q.large})
	}
	return written
}
