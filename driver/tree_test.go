package driver

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A directory tree is never deleted: a volume may be mounted in it. Only rmdir is used, which takes empty directories. This
// test reads all code that is not a test's.
func TestNoCodeDeletesATree(t *testing.T) {
	files := 0
	require.NoError(t, filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == "testdata" || entry.Name() == "build" || path != ".." && strings.HasPrefix(entry.Name(), ".")) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				require.NotEqual(t, "RemoveAll", n.Sel.Name, path)
			case *ast.BasicLit:
				if n.Kind == token.STRING {
					text, _ := strconv.Unquote(n.Value)
					require.False(t, text == "rm" || strings.HasPrefix(text, "rm -"), "%s starts rm", path)
				}
			}
			return true
		})
		return nil
	}))
	require.Greater(t, files, 50, "the code was not found")
}

// deploy/SAFETY.md names a test, with its file, for each kind of outage, thirty and more, and those that miss a safeguard. All are there.
func TestSafetyPageNamesTestsThatExist(t *testing.T) {
	page, err := os.ReadFile("../deploy/SAFETY.md")
	require.NoError(t, err)
	rows := regexp.MustCompile(`(?m)^\| (\d+) \|.*$`).FindAllStringSubmatch(string(page), -1)
	require.GreaterOrEqual(t, len(rows), 30)
	for i, row := range rows {
		require.Equal(t, strconv.Itoa(i+1), row[1])
		require.Contains(t, row[0], "`Test")
	}
	withFiles, withoutSafeguards, found := strings.Cut(string(page), "## Without the safeguard")
	require.True(t, found)
	named := regexp.MustCompile("((?:`Test[^`]+`(?: ⏱)?(?:, )?)+) \\(([^)]+_test\\.go)\\)").FindAllStringSubmatch(withFiles, -1)
	count := 0
	for _, group := range named {
		content, err := os.ReadFile(filepath.Join("..", group[2]))
		require.NoError(t, err)
		for _, test := range regexp.MustCompile("`(Test[^`]+)`").FindAllStringSubmatch(group[1], -1) {
			function, part, inParts := strings.Cut(test[1], "/")
			require.True(t, strings.Contains(string(content), "func "+function+"(t *testing.T)"), "SAFETY.md says that %s is in %s", function, group[2])
			if inParts {
				require.Contains(t, string(content), `"`+strings.ReplaceAll(part, "_", " ")+`"`, group[2])
			}
			count++
		}
	}
	require.Equal(t, strings.Count(withFiles, "`Test"), count, "a test is named without its file")

	var tests strings.Builder
	for _, folder := range []string{".", "access", "program", "../cmd/iscsi", "../datera", "../iscsi", "../mount", "../testdata/e2e"} {
		files, err := filepath.Glob(folder + "/*_test.go")
		require.NoError(t, err)
		for _, path := range files {
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			tests.Write(content)
		}
	}
	for _, test := range regexp.MustCompile("`(Test[^`/]+)[^`]*`").FindAllStringSubmatch(withoutSafeguards, -1) {
		require.True(t, strings.Contains(tests.String(), "func "+test[1]+"(t *testing.T)"), "SAFETY.md names %s, which is nowhere", test[1])
	}
}
