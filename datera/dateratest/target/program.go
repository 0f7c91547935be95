package target

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// runner runs one program in a folder and returns what it wrote.
type runner func(ctx context.Context, dir string, env []string, program string, args ...string) (string, error)

// run is the runner for real programs. Its errors have the program's output but not its arguments, which may be secret.
func run(ctx context.Context, dir string, env []string, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = dir, append(env, "LC_ALL=C", "PATH="+searchPath), time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", filepath.Base(program), err, oneLine(string(out)))
	}
	return string(out), nil
}

// oneLine is a program's complaint for an error message.
func oneLine(out string) string {
	return strings.ReplaceAll(strings.TrimSpace(out), "\n", "; ")
}

// searchPath has the folders for root's programs, which a user's own PATH may lack.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// find looks a program up and says which Debian package has it if it is missing.
func find(program, debianPackage string) (string, error) {
	for _, dir := range filepath.SplitList(searchPath) {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("program %s is not installed; on Debian it is in the package %s", program, debianPackage)
}
