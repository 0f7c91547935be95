package kubelet

import (
	"bytes"
	"context"
	"debug/elf"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/testdata/lab"
	"datera-flexvolume/testdata/vm"
)

// The tests of the node run on a machine with open-iscsi and an array with a real target:
// this very program is copied there.
func TestOnNode(t *testing.T) {
	if testing.Short() || os.Getenv(onNode) != "" {
		t.Skip("starts machines")
	}
	program, err := os.Executable()
	require.NoError(t, err)
	requireStatic(t, program)

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	center, err := lab.Start(ctx, lab.Options{Bin: "../../bin", Nodes: []string{"node-a"}})
	require.NoError(t, err)
	t.Cleanup(center.Stop)
	node := center.Nodes["node-a"]
	registered, err := node.Run(ctx, lab.PluginDir+"/iscsi", "register", "node-a")
	require.NoError(t, err)
	require.Zero(t, registered.Exit, string(registered.Stderr))

	const folder = "/opt/kubelet"
	require.NoError(t, node.Put(ctx, program, folder+"/kubelet.test", 0o755))
	require.NoError(t, node.Put(ctx, driverBinary(), folder+"/iscsi", 0o755))
	require.NoError(t, node.Put(ctx, "testdata", folder+"/testdata", 0))
	args := []string{folder + "/kubelet.test", "-test.run", testsOfNode, "-test.skip", "TestOnNode",
		"-test.v", "-test.failfast", "-test.timeout", "9m"}
	if *update {
		args = append(args, "-update")
	}
	var said bytes.Buffer
	exit, err := node.Exec(ctx, vm.Command{
		Args: args, Dir: folder, Env: []string{onNode + "=1", "ISCSI=" + folder + "/iscsi"}, Stdout: &said, Stderr: &said,
	})
	require.NoError(t, err)
	if exit != 0 || strings.Contains(said.String(), "--- SKIP") {
		t.Fatalf("on the node, which must pass and not skip:\n%s", said.String())
	}
	t.Logf("on the node:\n%s", said.String())
	if *update {
		fetchGoldenFiles(t, ctx, node, folder)
	}
}

func requireStatic(t *testing.T, program string) {
	t.Helper()
	file, err := elf.Open(program)
	require.NoError(t, err)
	defer file.Close()
	require.False(t, slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }),
		"this program is linked dynamically and does not run on the node: use CGO_ENABLED=0 go test, or -short to leave the node out")
}

func fetchGoldenFiles(t *testing.T, ctx context.Context, node *lab.Machine, folder string) {
	t.Helper()
	list, err := node.Run(ctx, "ls", folder+"/testdata")
	require.NoError(t, err)
	for _, name := range strings.Fields(string(list.Stdout)) {
		require.NoError(t, node.Get(ctx, folder+"/testdata/"+name, filepath.Join("testdata", name)))
	}
}
