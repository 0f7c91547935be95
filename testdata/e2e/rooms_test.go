package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/testdata/vm"
)

// The packages' own tests on real devices and targets, which the host skips where its
// kernel lacks them: their test binaries run in a machine of their own.
func TestPackagesOnRealDevices(t *testing.T) {
	tests := map[string]struct {
		folder, prepare, run string
		env                  []string
	}{
		"iscsi on tgt":      {"iscsi", "modprobe loop", "TestReal", []string{"ISCSI_REAL=1"}},
		"mount":             {"mount", "modprobe -a loop xfs ext4 dm_mod", ".", []string{"REAL_DEVICES=1"}},
		"simulator on LIO":  {"datera/dateratest", "", "TestRealDataPath", []string{"DATERA_TEST_TARGET=lio"}},
		"simulator on tgtd": {"datera/dateratest", "", "TestRealDataPath", []string{"DATERA_TEST_TARGET=tgt"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			binary := filepath.Join(t.TempDir(), "package.test")
			build := exec.Command("go", "test", "-c", "-o", binary, "./"+test.folder)
			build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
			output, err := build.CombinedOutput()
			require.NoError(t, err, string(output))

			machine, err := vm.Start(t.Context(), vm.Options{Name: "node", MemoryMiB: 2048})
			require.NoError(t, err)
			t.Cleanup(machine.Kill)
			ctx := context.Background()
			require.NoError(t, machine.Put(ctx, binary, "/opt/test/package.test", 0o755))
			if fixtures := filepath.Join("../..", test.folder, "testdata"); exists(fixtures) {
				require.NoError(t, machine.Put(ctx, fixtures, "/opt/test/testdata", 0))
			}
			if test.prepare != "" {
				result, err := machine.Shell(ctx, test.prepare)
				require.NoError(t, err)
				require.Zero(t, result.Exit, string(result.Stderr))
			}
			var said bytes.Buffer
			exit, err := machine.Exec(ctx, vm.Command{
				Args: []string{"/opt/test/package.test", "-test.run", test.run, "-test.v", "-test.timeout", "8m"},
				Env:  test.env, Dir: "/opt/test", Stdout: &said, Stderr: &said,
			})
			require.NoError(t, err)
			require.Zero(t, exit, said.String())
			require.Positive(t, strings.Count(said.String(), "--- PASS"), "no test ran: %s", said.String())
		})
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
