package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/driver"
	"datera-flexvolume/driver/install"
)

const folderOnHost = "usr/libexec/kubernetes/kubelet-plugins/volume/exec/datera~iscsi"

// newHostRoot is the root directory of a host with open-iscsi.
func newHostRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for path, content := range map[string]string{
		"etc/iscsi/initiatorname.iscsi": "InitiatorName=iqn.1993-08.org.debian:01:node-a\n",
		"etc/iscsi/iscsid.conf":         "iscsid.startup = /bin/systemctl start iscsid.socket\n",
		"usr/sbin/iscsiadm":             "",
		"usr/sbin/mkfs.xfs":             "",
	} {
		path = filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	return root
}

func TestInstallAndUninstallForPeople(t *testing.T) {
	server := dateratest.Start(t)
	p := newPlace(t, func(c *driver.Config) {
		c.ManagementIP, c.Scheme, c.Username, c.Password = server.Address(), "http", "admin", "password"
	})
	root := newHostRoot(t)
	run := func(args ...string) (string, error) {
		output, err := p.command(append(args, "--host-root", root, "--run-dir", t.TempDir())...).CombinedOutput()
		return string(output), err
	}
	output, err := run("install", "--check")
	require.Error(t, err, output)
	require.Contains(t, output, "iscsi is missing or not version test")

	output, err = run("install", "--node", "node-a", "--attach", "kubelet", "--cluster-id", "0d3c1b7e-5f0a-4f39-9a53-6a1f0c3f4d21")
	require.NoError(t, err, output)
	require.Contains(t, output, "cluster        changed  identity 0d3c1b7e-5f0a-4f39-9a53-6a1f0c3f4d21, by --cluster-id\n")
	require.Equal(t, 6, strings.Count(output, "\n"), output)
	require.Contains(t, output, "ready          ok       node node-a can attach volumes\n")
	output, err = run("install", "--check")
	require.NoError(t, err, output)
	require.Equal(t, "this node can attach volumes\n", output)

	link := filepath.Join(t.TempDir(), "iscsi") // as the guide has people make it
	require.NoError(t, os.Symlink(filepath.Join(root, folderOnHost, "iscsi"), link))
	output2, err := exec.Command(link, "version").CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(output2), "iscsi test (go")
	registration := exec.Command(link, "register", "node-b", "--iqn", "iqn.1993-08.org.debian:01:node-b")
	registration.Env = []string{"PATH=" + os.Getenv("PATH")}
	output2, err = registration.CombinedOutput()
	require.NoError(t, err, string(output2))
	require.Equal(t, "k8s_kubernetes_node-b", server.Initiators("/root")["iqn.1993-08.org.debian:01:node-b"], "the configuration beside the file that the link leads to")
	config, err := driver.LoadConfig([]string{filepath.Join(root, folderOnHost, ".datera-config")}, func(string) string { return "" })
	require.NoError(t, err)
	require.Equal(t, driver.AttachKubelet, config.Attach)
	require.Equal(t, "0d3c1b7e-5f0a-4f39-9a53-6a1f0c3f4d21", config.Identity())

	output, err = run("uninstall", "--check")
	require.Error(t, err, output)
	output, err = run("uninstall")
	require.NoError(t, err, output)
	require.NoDirExists(t, filepath.Join(root, folderOnHost))
	require.Len(t, server.Initiators("/root"), 1)
	output, err = run("uninstall", "--check")
	require.NoError(t, err, output)
}

func TestUninstallIsRefusedWhileAVolumeIsInTheJournal(t *testing.T) {
	server := dateratest.Start(t)
	p := newPlace(t, func(c *driver.Config) {
		c.ManagementIP, c.Scheme, c.Username, c.Password = server.Address(), "http", "admin", "password"
		c.StateDir = "/var/lib/datera-iscsi"
	})
	root := newHostRoot(t)
	output, err := p.command("install", "--node", "node-a", "--host-root", root, "--run-dir", t.TempDir()).CombinedOutput()
	require.NoError(t, err, string(output))
	journal := filepath.Join(root, "var/lib/datera-iscsi/volumes")
	require.NoError(t, os.MkdirAll(journal, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(journal, "pv-datera-0.json"), []byte(`{"name":"pv-datera-0"}`), 0o600))
	output, err = p.command("uninstall", "--host-root", root, "--run-dir", t.TempDir()).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(output), "volumes are on this node: pv-datera-0")
	require.FileExists(t, filepath.Join(root, folderOnHost, "iscsi"))
}

// In the DaemonSet the folder is named once, for installer and probes.
func TestPluginFolderOfTheEnvironment(t *testing.T) {
	server := dateratest.Start(t)
	p := newPlace(t, func(c *driver.Config) {
		c.ManagementIP, c.Scheme, c.Username, c.Password = server.Address(), "http", "admin", "password"
	})
	root := newHostRoot(t)
	for _, args := range [][]string{{"install", "--node", "node-a"}, {"install", "--check"}, {"uninstall"}} {
		command := p.command(append(args, "--host-root", root, "--run-dir", t.TempDir())...)
		command.Env = append(command.Env, "PLUGIN_DIR=/var/lib/kubelet/volumeplugins")
		output, err := command.CombinedOutput()
		require.NoError(t, err, string(output))
		require.NoDirExists(t, filepath.Join(root, "usr/libexec"))
		if args[0] == "install" {
			require.FileExists(t, filepath.Join(root, "var/lib/kubelet/volumeplugins/datera~iscsi/iscsi"))
		}
	}
	require.NoDirExists(t, filepath.Join(root, "var/lib/kubelet/volumeplugins/datera~iscsi"))
}

// run_dir is the nodes': the installer's pod keeps its session keys where it may write.
func TestRunDirOfTheNodeIsNotTheInstallers(t *testing.T) {
	server := dateratest.Start(t)
	p := newPlace(t, func(c *driver.Config) {
		c.ManagementIP, c.Scheme, c.Username, c.Password, c.RunDir = server.Address(), "http", "admin", "password", "/proc/none"
	})
	root, runDir := newHostRoot(t), t.TempDir()
	output, err := p.command("install", "--node", "node-a", "--host-root", root, "--run-dir", runDir).CombinedOutput()
	require.NoError(t, err, string(output))
	require.NotContains(t, string(output), "cannot be kept")
	keys, err := filepath.Glob(filepath.Join(runDir, "session", "*.session"))
	require.NoError(t, err)
	require.Len(t, keys, 1)
	config, err := driver.LoadConfig([]string{filepath.Join(root, folderOnHost, ".datera-config")}, func(string) string { return "" })
	require.NoError(t, err)
	require.Equal(t, "/proc/none", config.RunDir, "the node's own")

	for dir, f := range map[string]installFlags{
		"/run/of-the-node":  {installer: install.Installer{Root: "/"}},
		"/run/datera-iscsi": {installer: install.Installer{Root: "/host"}},
		"/given":            {installer: install.Installer{Root: "/host"}, runDir: "/given"},
	} {
		require.Equal(t, dir, f.ownRunDir(driver.Config{RunDir: "/run/of-the-node"}))
	}
}

func TestInstallGoesOnUntilSIGTERM(t *testing.T) {
	server := dateratest.Start(t)
	p := newPlace(t, func(c *driver.Config) {
		c.ManagementIP, c.Scheme, c.Username, c.Password = server.Address(), "http", "admin", "password-canary"
	})
	root := newHostRoot(t)
	cmd := p.command("install", "--watch", "--log", "json", "--node", "node-a", "--host-root", root, "--run-dir", t.TempDir())
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill() }()
	lines := bufio.NewScanner(stdout)
	var event install.Event
	for event.State != install.Waiting && lines.Scan() {
		require.NotContains(t, lines.Text(), "canary")
		require.NoError(t, json.Unmarshal(lines.Bytes(), &event), lines.Text())
	}
	require.Equal(t, install.StepArray, event.Step)
	require.Contains(t, event.Message, "the password is wrong")
	require.Positive(t, event.RetrySeconds)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	for lines.Scan() {
	}
	require.NoError(t, cmd.Wait(), "told to stop, it must end with 0")
	require.FileExists(t, filepath.Join(root, folderOnHost, "iscsi"))
}

func TestInstallRefuses(t *testing.T) {
	tests := map[string]struct {
		args []string
		says string
	}{
		"a format that there is not": {[]string{"install", "--log", "xml"}, `--log is "xml"`},
		"no pause":                   {[]string{"install", "--watch", "--interval", "1ms"}, "accepted is a second or more"},
		"a relative folder":          {[]string{"uninstall", "--plugin-dir", "exec"}, "absolute paths"},
		"an argument":                {[]string{"install", "node-a"}, "unknown command"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			output, err := newPlace(t, nil).command(test.args...).CombinedOutput()
			var exit *exec.ExitError
			require.True(t, errors.As(err, &exit) && exit.ExitCode() == 1, string(output))
			require.Contains(t, string(output), test.says)
		})
	}
}
