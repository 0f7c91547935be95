package deploy

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the tables of trouble quote is what the programs print.
func TestQuotedMessagesAreReal(t *testing.T) {
	var source strings.Builder
	for _, folder := range []string{"cmd", "datera", "driver", "iscsi", "mount"} {
		require.NoError(t, filepath.WalkDir(filepath.Join("..", folder), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			content, err := os.ReadFile(path)
			source.Write(content)
			return err
		}))
	}
	row := regexp.MustCompile(`(?m)^\|(.*)\|[^|]*\|$`)
	quote := regexp.MustCompile("`([^`]*)`( \\(Kubernetes' words\\))?")
	for path, heading := range map[string]string{"README.md": "## Troubleshooting", "../README.md": "## When it fails"} {
		page, err := os.ReadFile(path)
		require.NoError(t, err)
		_, section, _ := strings.Cut(string(page), heading)
		section, _, _ = strings.Cut(section, "\n## ")
		quotes := 0
		for _, cells := range row.FindAllStringSubmatch(section, -1) {
			messages := cells[1][strings.LastIndex(cells[1], "|")+1:]
			for _, quoted := range quote.FindAllStringSubmatch(messages, -1) {
				if quoted[2] != "" {
					continue
				}
				quotes++
				for part := range strings.SplitSeq(quoted[1], "…") {
					require.True(t, strings.Contains(source.String(), strings.TrimSpace(part)), "%s quotes a message that no program prints: %s", path, quoted[1])
				}
			}
		}
		require.Greater(t, quotes, 4, "%s has no table of messages", path)
	}
}
