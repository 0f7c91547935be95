package upgrade

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// formerCommit is the last one with the former mechanism: one group for a PersistentVolume, and a list of its readers.
const formerCommit = "97ed2fe77bbfe0ab823ebe19614e50d18c927e7e"

// executables are the paths of both.
type executables struct{ former, today string }

var build = sync.OnceValues(func() (executables, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return executables{}, err
	}
	dir := filepath.Join(root, "build", "former")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return executables{}, err
	}
	both := executables{filepath.Join(dir, "iscsi-"+formerCommit[:7]), filepath.Join(dir, "iscsi-today")}
	if err := compile(root, both.today); err != nil {
		return executables{}, err
	}
	if _, err := os.Stat(both.former); !errors.Is(err, fs.ErrNotExist) {
		return both, err
	}
	return both, compileFormer(root, both.former)
})

func built(t *testing.T) executables {
	t.Helper()
	both, err := build()
	require.NoError(t, err)
	return both
}

// compileFormer builds the executable of the former commit, out of the clone's history.
func compileFormer(root, executable string) error {
	tree, err := os.MkdirTemp("", "former")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tree) }()
	var sources, complaint bytes.Buffer
	archive := exec.Command("git", "-C", root, "archive", formerCommit)
	archive.Stdout, archive.Stderr = &sources, &complaint
	if err := archive.Run(); err != nil {
		return fmt.Errorf("commit %s, whose executable is upgraded from, is not in this clone: %w: %s; get it with `git fetch --unshallow`, or clone without --depth",
			formerCommit, err, complaint.Bytes())
	}
	unpack := exec.Command("tar", "-x", "-C", tree)
	unpack.Stdin = &sources
	if said, err := unpack.CombinedOutput(); err != nil {
		return fmt.Errorf("unpack commit %s: %w: %s", formerCommit, err, said)
	}
	return compile(tree, executable)
}

// compile replaces the executable only by a whole one.
func compile(tree, executable string) error {
	partial := fmt.Sprintf("%s.%d", executable, os.Getpid())
	command := exec.Command("go", "build", "-buildvcs=false", "-o", partial, "./cmd/iscsi")
	command.Dir, command.Env = tree, append(os.Environ(), "CGO_ENABLED=0")
	if said, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s in %s: %w: %s", executable, tree, err, said)
	}
	return os.Rename(partial, executable)
}
