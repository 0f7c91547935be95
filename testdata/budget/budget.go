// Package budget reads what each call may cost from the table in the README, so that the
// table is what the tests hold the driver to.
package budget

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
)

// A Budget is the exact cost of a call.
type Budget struct {
	Programs int // external programs started
	Requests int // REST calls made
}

// TB is what Of needs of a test.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

var row = regexp.MustCompile(`(?m)^\| ([a-z][^|]*?) +\| +(\d+) +\| +(\d+) +\|$`)

// Of returns the budget of a call, by its name in the table.
func Of(t TB, call string) Budget {
	t.Helper()
	table, err := Table()
	if err != nil {
		t.Fatalf("%v", err)
	}
	budget, found := table[call]
	if !found {
		t.Fatalf("the README's table has no call %q", call)
	}
	return budget
}

// Table is the whole table.
func Table() (map[string]Budget, error) {
	_, file, _, _ := runtime.Caller(0)
	readme, err := os.ReadFile(filepath.Join(filepath.Dir(file), "..", "..", "README.md"))
	if err != nil {
		return nil, err
	}
	table := map[string]Budget{}
	for _, match := range row.FindAllStringSubmatch(string(readme), -1) {
		programs, _ := strconv.Atoi(match[2])
		requests, _ := strconv.Atoi(match[3])
		table[match[1]] = Budget{programs, requests}
	}
	if len(table) == 0 {
		return nil, fmt.Errorf("the README has no table of budgets")
	}
	return table, nil
}
