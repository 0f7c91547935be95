package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/driver"
)

func TestHelpExplainsItself(t *testing.T) {
	var out bytes.Buffer
	command := command()
	command.SetArgs([]string{"--help"})
	command.SetOut(&out)
	require.NoError(t, command.Execute())
	for _, words := range []string{"datera.io/provisioner-datera", "DATERA_CONFIG", "--kubeconfig", "--namespace", "--leader-elect", "--health-listen", "--run-dir", "--workers"} {
		require.Contains(t, out.String(), words)
	}
}

func TestWithoutKubernetes(t *testing.T) {
	t.Setenv("DATERA_CONFIG", filepath.Join(t.TempDir(), "none"))
	command := command()
	command.SetArgs([]string{"--kubeconfig", filepath.Join(t.TempDir(), "none")})
	require.ErrorContains(t, command.Execute(), "reach Kubernetes: ")
}

func asItIs(config driver.Config) (driver.Config, error) { return config, nil }

// A provisioner that does not know which cluster this is leaves the array alone.
func TestNothingIsDoneWithoutTheIdentity(t *testing.T) {
	array := dateratest.Start(t)
	path := filepath.Join(t.TempDir(), "datera-config")
	t.Setenv("DATERA_CONFIG", path)
	require.NoError(t, os.WriteFile(path, []byte("mgmt_ip: "+array.Address()+"\nscheme: http\nusername: admin\npassword: password\nrun_dir: "+t.TempDir()+"\n"), 0o600))
	volume := driver.Volume{Name: "pvc-1", AppInstance: "k8s_kubernetes_pvc-1", SizeGiB: 1, Replicas: 1}
	away := func(config driver.Config) (driver.Config, error) { return config, errors.New("the API server is away") }
	_, err := newDriver(slog.New(slog.DiscardHandler), "", away).Provision(t.Context(), volume)
	require.ErrorContains(t, err, "the API server is away")
	require.Empty(t, array.AppInstances("/root"))
}

// The configuration may be mended, and passwords changed, under a running provisioner.
func TestConfigurationIsReadAnew(t *testing.T) {
	array := dateratest.Start(t)
	path := filepath.Join(t.TempDir(), "datera-config")
	t.Setenv("DATERA_CONFIG", path)
	volume := driver.Volume{Name: "pvc-1", AppInstance: "k8s_kubernetes_pvc-1", SizeGiB: 1, Replicas: 1}
	write := func(password string) {
		text := "mgmt_ip: " + array.Address() + "\nscheme: http\nusername: admin\npassword: " + password + "\nrun_dir: " + t.TempDir() + "\n"
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	log := slog.New(slog.DiscardHandler)

	_, err := newDriver(log, "", asItIs).Provision(t.Context(), volume)
	require.ErrorContains(t, err, path)
	write("wrong")
	_, err = newDriver(log, "", asItIs).Provision(t.Context(), volume)
	require.ErrorContains(t, err, "the user name or the password is wrong")
	write("password")
	_, err = newDriver(log, "", asItIs).Provision(t.Context(), volume)
	require.NoError(t, err)
	require.Equal(t, []string{volume.AppInstance}, array.AppInstances("/root"))
}

// run_dir is the nodes': in its pod the provisioner may write elsewhere only.
func TestRunDirOfTheNodesIsNotTheProvisioners(t *testing.T) {
	array := dateratest.Start(t)
	path := filepath.Join(t.TempDir(), "datera-config")
	t.Setenv("DATERA_CONFIG", path)
	require.NoError(t, os.WriteFile(path, []byte("mgmt_ip: "+array.Address()+"\nscheme: http\nusername: admin\npassword: password\nrun_dir: /proc/none\n"), 0o600))
	volume := driver.Volume{Name: "pvc-1", AppInstance: "k8s_kubernetes_pvc-1", SizeGiB: 1, Replicas: 1}
	runDir := t.TempDir()
	_, err := newDriver(slog.New(slog.DiscardHandler), runDir, asItIs).Provision(t.Context(), volume)
	require.NoError(t, err)
	keys, err := filepath.Glob(filepath.Join(runDir, "session", "*.session"))
	require.NoError(t, err)
	require.Len(t, keys, 1)
}

func TestLevelOfTheLog(t *testing.T) {
	require.True(t, newLog(driver.Config{Log: driver.LogConfig{Level: "debug"}}).Enabled(t.Context(), slog.LevelDebug))
	require.False(t, newLog(driver.Config{Log: driver.LogConfig{Level: "warn"}}).Enabled(t.Context(), slog.LevelInfo))
}
