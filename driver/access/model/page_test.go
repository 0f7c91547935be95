package model

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The page that argues the races is short, and names only scenarios that the model is asked.
func TestPage(t *testing.T) {
	content, err := os.ReadFile("../../../deploy/docs/access.md")
	require.NoError(t, err)
	page := strings.TrimRight(string(content), "\n")
	require.LessOrEqual(t, strings.Count(page, "\n")+1, 60, "lines")

	asked := map[string]scenario{}
	for _, question := range questions {
		require.Zero(t, asked[question.name].name, "two scenarios of one name")
		asked[question.name] = question
	}
	_, page, _ = strings.Cut(page, "\n## ")
	protected := map[string]bool{}
	for _, line := range strings.Split(page, "\n") {
		for _, quoted := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(line, -1) {
			require.Equal(t, quoted[1], asked[quoted[1]].name, "a scenario that is not asked")
		}
		row := regexp.MustCompile(`\| (\d): ("[^|]+") \|$`).FindStringSubmatch(line)
		if row == nil {
			continue
		}
		protected[row[1]] = true
		for name := range strings.SplitSeq(strings.Trim(row[2], `"`), `", "`) {
			require.NotZero(t, asked[name].wants, "%q is said to break without rule %s", name, row[1])
			require.NotZero(t, asked[name].protocol, "%q takes out no rule", name)
		}
	}
	require.Len(t, protected, 8, "rules of which the page says what breaks without them")
}
