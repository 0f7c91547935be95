package support

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
	"datera-flexvolume/driver/program"
	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// The canaries are secrets that must be found nowhere.
const (
	canaryFile   = "canary-f\"1"
	canaryPass   = "canary-pass-2"
	canaryCHAP   = "canary-chap-3"
	canaryMutual = "canary-mutl-4"
	canaryRecord = "canary-recd-5" // of a login before the configuration changed
	canaryLog    = "canary-old-6"  // nobody knows it any more
)

// machine is a host of its own in a folder, with a real initiator and mounter on it.
type machine struct {
	Collector
	root string
}

func newMachine(t *testing.T) machine {
	t.Helper()
	root := t.TempDir()
	m := machine{root: root}
	config, err := driver.LoadConfig([]string{m.write(t, "etc/datera/datera-config",
		fmt.Sprintf("username: admin\npassword: '%s'\nchap: {username: u, password: %s, mutual_username: m, mutual_password: %s}\nunknown: x\n", canaryFile, canaryCHAP, canaryMutual))},
		func(string) string { return "" })
	require.Error(t, err)
	config.StateDir, config.RunDir, config.Log.Path = filepath.Join(root, "state"), filepath.Join(root, "run"), filepath.Join(root, "log/iscsi.log")
	log := slog.New(slog.DiscardHandler)
	programs := program.New(log)
	initiator := iscsi.New(programs, iscsi.Options{
		SysRoot: filepath.Join(root, "sys"), ProcRoot: filepath.Join(root, "proc"), EtcRoot: filepath.Join(root, "etc"), RunRoot: filepath.Join(root, "run"), VarRoot: filepath.Join(root, "var"),
	})
	mounter := mount.New(programs, mount.Options{MountInfo: m.write(t, "proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw,password=canary-mount\n")})
	m.Collector = Collector{
		Version: "test", Root: root, LogAge: 7 * 24 * time.Hour, LogBytes: 100_000,
		Getenv: func(name string) string { return map[string]string{"DAT_PASS": canaryPass}[name] },
		Operator: &driver.Operator{
			Driver: &driver.Driver{Config: config, ConfigError: err, Initiator: initiator, Mounter: mounter, Log: log},
			Node:   initiator, Mounts: mounter, Programs: programs,
			Host: driver.Host{ProcRoot: filepath.Join(root, "proc"), LookPath: func(string) (string, error) { return "", errors.New("not here") }},
			OpenProbe: func(string, driver.Credentials, string) (driver.ArrayProbe, error) {
				return nil, errors.New("the array says " + canaryCHAP)
			},
		},
	}
	m.write(t, "etc/os-release", "ID=debian\n")
	m.write(t, "proc/version", "Linux version 6.1.0\n")
	m.write(t, "proc/812/comm", "kubelet\n")
	m.write(t, "proc/812/cmdline", "/usr/bin/kubelet\x00--node-ip=10.0.0.1\x00--token\x00canary-token\x00")
	m.write(t, "state/volumes/pv-1.json", `{"name":"pv-1","appInstance":"kube-pv-1"}`)
	record := "var/lib/iscsi/nodes/iqn.2013-05.com.daterainc:tc:01:sn:1/10.0.0.1,3260,1/default"
	m.write(t, record, "node.name = x\nnode.session.auth.username = u\nnode.session.auth.password = "+canaryRecord+"\nnode.session.auth.password_in = "+canaryMutual+"\n")
	m.write(t, "var/lib/iscsi/nodes/iqn.2001-05.com.other:1/10.0.0.1,3260,1", "node.session.auth.password = canary-other\n")
	everything := []string{canaryFile, canaryPass, canaryCHAP, canaryMutual, canaryRecord, base64.StdEncoding.EncodeToString([]byte(canaryPass))}
	lines := fmt.Sprintf("{\"msg\":\"program\",\"command\":\"iscsiadm -o update -n node.session.auth.password -v %s\",\"said\":%q}\n", canaryLog, fmt.Sprint(everything))
	m.write(t, "log/iscsi.log", lines)
	m.write(t, "log/iscsi.log.stderr", lines)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = io.WriteString(w, lines)
	require.NoError(t, w.Close())
	m.write(t, "log/iscsi-2026-01-01T00-00-00.000.log.gz", packed.String())
	old := filepath.Join(root, m.write(t, "log/iscsi-2025-01-01T00-00-00.000.log", "old")[len(root):])
	long := time.Now().Add(-8 * 24 * time.Hour)
	require.NoError(t, os.Chtimes(old, long, long))
	return m
}

func (m machine) write(t *testing.T, path, content string) string {
	t.Helper()
	path = filepath.Join(m.root, path)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// unpack makes a package and returns the files in it.
func (m machine) unpack(t *testing.T) map[string]string {
	t.Helper()
	var packed bytes.Buffer
	listed, err := m.Write(t.Context(), &packed)
	require.NoError(t, err)
	unpacked, err := gzip.NewReader(&packed)
	require.NoError(t, err)
	archive := tar.NewReader(unpacked)
	files := map[string]string{}
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Zero(t, header.Mode&0o077, header.Name)
		content, err := io.ReadAll(archive)
		require.NoError(t, err)
		files[strings.TrimPrefix(header.Name, folder)] = string(content)
	}
	require.Equal(t, len(listed), len(files), "two files have one name")
	for _, file := range listed {
		require.Equal(t, file.Bytes, len(files[file.Name]), file.Name)
	}
	return files
}

func TestAPackageHoldsAllThatMayBeShown(t *testing.T) {
	files := newMachine(t).unpack(t)
	record := "records/iqn.2013-05.com.daterainc:tc:01:sn:1/10.0.0.1,3260,1/default"
	for name, holds := range map[string]string{
		"version.txt": "iscsi test (go", "configuration.json": `unknown key \"unknown\"`, "doctor.txt": "problem", "doctor.json": `"check": "configuration"`,
		"status.txt": "kube-pv-1", "status.json": `"pv": "pv-1"`, "reap.txt": "kept  node record", "journal/volumes/pv-1.json": "kube-pv-1",
		"log/iscsi.log": "iscsiadm -o update", "log/iscsi.log.stderr": "iscsiadm", "log/iscsi-2026-01-01T00-00-00.000.log": "iscsiadm",
		"sessions.json": "[]", "mountinfo": "/dev/sda1", record: "node.name = x\nnode.session.auth.username = u\nnode.session.auth.password = (hidden)\n",
		"os-release": "ID=debian", "kernel.txt": "6.1.0", "kubelet.txt": "--node-ip=10.0.0.1", "errors.txt": "open-iscsi's version: ",
	} {
		require.Contains(t, files[name], holds, name)
		delete(files, name)
	}
	require.Empty(t, files, "there is more in the package")

	secrets := []string{"canary", "Y2FuYXJ5"}
	for name, content := range newMachine(t).unpack(t) {
		for _, secret := range secrets {
			require.NotContains(t, content, secret, name)
		}
		if strings.HasSuffix(name, ".json") {
			require.True(t, json.Valid([]byte(content)), "%s is no JSON any more: %s", name, content)
		}
	}
}

func TestTheLogIsBounded(t *testing.T) {
	m := newMachine(t)
	line := strings.Repeat("x", 99) + "\n"
	m.write(t, "log/iscsi.log", strings.Repeat(line, m.LogBytes/len(line)/2))
	oldest := "log/iscsi-2025-12-01T00-00-00.000.log"
	m.write(t, oldest, "the oldest\n"+strings.Repeat(line, m.LogBytes/len(line)))
	files := m.unpack(t)
	total := 0
	for name, content := range files {
		if strings.HasPrefix(name, "log/") {
			total += len(content)
			require.True(t, strings.HasSuffix(content, "\n"), name)
		}
	}
	require.LessOrEqual(t, total, m.LogBytes)
	require.Greater(t, total, m.LogBytes*9/10)
	require.False(t, strings.Contains(files[oldest], "the oldest"), "the newest lines were cut off")
}

// broken is an initiator at which a part of a package fails.
type broken struct {
	driver.NodeInitiator
	hang chan struct{}
}

func (b broken) Sessions() ([]iscsi.Session, error) {
	if b.hang != nil {
		<-b.hang
	}
	panic("no sessions")
}

func TestOneBrokenPartSpoilsNoOther(t *testing.T) {
	m := newMachine(t)
	m.Operator.Node = broken{NodeInitiator: m.Operator.Node}
	files := m.unpack(t)
	require.Contains(t, files["errors.txt"], "fault: no sessions")
	require.Contains(t, files["os-release"], "debian")

	hang := make(chan struct{})
	defer close(hang)
	m.Operator.Node = broken{m.Operator.Node.(broken).NodeInitiator, hang}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	files2, err := m.Write(ctx, io.Discard)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.True(t, slices.ContainsFunc(files2, func(f File) bool { return f.Name == "version.txt" }))
}
