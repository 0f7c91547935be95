package dateratest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

func TestStateSurvives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	options := dateratest.Options{StateDir: dir}
	array, err := dateratest.New(options)
	require.NoError(t, err)
	require.NoError(t, array.RegisterInitiator(iqn1, "node1"))
	before, err := array.CreateAppInstance("pv-1", 3)
	require.NoError(t, err)
	require.NoError(t, array.SetMetadata("pv-1", "formatted", "true"))
	_, err = array.Do("/root", "PUT", si+"/acl_policy", js{"initiators": []js{{"path": "/initiators/" + iqn1}}})
	require.NoError(t, err)
	_, err = array.Do("/root", "POST", vol+"/snapshots", js{})
	require.NoError(t, err)
	before, _ = array.AppInstance("/root", "pv-1")

	_, err = dateratest.New(options)
	require.ErrorContains(t, err, "in use by another simulator (process ")
	text, err := os.ReadFile(filepath.Join(dir, "state.json"))
	require.NoError(t, err)
	require.NoError(t, array.Close(t.Context()))

	options.Portals = portals("10.0.0.1:3260", "10.0.0.2:3260")
	array, err = dateratest.New(options)
	require.NoError(t, err)
	after, exists := array.AppInstance("/root", "pv-1")
	require.True(t, exists)
	require.Equal(t, []string{"10.0.0.1", "10.0.0.2"}, after.IPs, "the portals are those of the new start")
	after.IPs = before.IPs
	require.Equal(t, before, after)
	require.NoError(t, array.Close(t.Context()))

	require.NoError(t, os.WriteFile(filepath.Join(dir, "state.json"), text[:len(text)/2], 0o600))
	_, err = dateratest.New(options)
	require.ErrorContains(t, err, "move it away")
}

// TestStateIsWhole kills a cluster that changes its state all the time, and looks at what is left.
func TestStateIsWhole(t *testing.T) {
	if dir := os.Getenv("DATERATEST_CHANGE_STATE_IN"); dir != "" {
		array, err := dateratest.New(dateratest.Options{StateDir: dir})
		require.NoError(t, err)
		for i := 0; ; i++ {
			_, err := array.Do("/root", "POST", "/app_instances", js{"name": "pv-" + strings.Repeat("x", i%50+1), "descr": "new"})
			if err != nil {
				require.ErrorContains(t, err, "ConflictError")
			}
			os.Stdout.WriteString("*")
		}
	}
	dir := t.TempDir()
	for range 3 {
		child := exec.Command(os.Args[0], "-test.run=TestStateIsWhole")
		child.Env = append(os.Environ(), "DATERATEST_CHANGE_STATE_IN="+dir)
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		_, err = out.Read(make([]byte, 8))
		require.NoError(t, err)
		require.NoError(t, child.Process.Kill())
		require.Error(t, child.Wait())
		array, err := dateratest.New(dateratest.Options{StateDir: dir})
		require.NoError(t, err, "after a kill -9 the state is whole and the folder is free")
		require.NotEmpty(t, array.AppInstances("/root"))
		require.NoError(t, array.Close(t.Context()))
	}
}

func TestStateCannotBeSaved(t *testing.T) {
	dir := t.TempDir()
	array := dateratest.Start(t, dateratest.WithState(dir))
	c := connect(t, array)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "state.json.new"), 0o700))
	require.Contains(t, c.fails(500, "InternalError", "POST", "/app_instances", simple("pv-1", 1))["message"], "save the state")
	require.Error(t, array.SetCapacityInUse("pv-1", 1))
}
