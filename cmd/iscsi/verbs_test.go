package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/driver"
)

const manifest = `apiVersion: v1
kind: PersistentVolume
metadata:
  name: pv-datera-0
spec:
  capacity:
    storage: 100Gi
  flexVolume:
    driver: datera/iscsi
    fsType: xfs
    options:
      volumeID: kube-pv-datera-0
      size: "100"
      retainPolicy: never
`

// onArray is a place with a registered node, and the manifest of a volume.
func onArray(t *testing.T, change func(*driver.Config)) (place, string) {
	t.Helper()
	server := dateratest.Start(t)
	require.NoError(t, server.RegisterInitiator("iqn.1993-08.org.debian:01:node-a", "k8s_kubernetes_node-a"))
	p := newPlace(t, func(c *driver.Config) {
		c.ManagementIP, c.Scheme, c.Username, c.Password = server.Address(), "http", "admin", "password"
		if change != nil {
			change(c)
		}
	})
	pv := filepath.Join(p.dir, "pv.yaml")
	require.NoError(t, os.WriteFile(pv, []byte(manifest), 0o600))
	return p, pv
}

// say runs a command and keeps its two streams apart.
func say(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, exit int) {
	t.Helper()
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	if failed, is := cmd.Run().(*exec.ExitError); is {
		exit = failed.ExitCode()
	}
	return out.String(), err.String(), exit
}

func TestAManifestInPlaceOfOptions(t *testing.T) {
	p, pv := onArray(t, nil)
	byFile, stderr, exit := say(t, p.command("attach", "--pv", pv, "node-a"))
	require.Zero(t, exit, byFile)
	reply := parse(t, byFile, stderr)
	require.Equal(t, driver.Success, reply.Status, reply.Message)

	fromStdin := p.command("attach", "node-a", "--pv=-")
	fromStdin.Stdin = strings.NewReader(manifest)
	again, stderr, exit := say(t, fromStdin)
	require.Zero(t, exit, stderr)
	require.Equal(t, byFile, again)

	// A person's call tells by its exit status, too, how it went.
	answer, stderr, exit := say(t, p.command("attach", "--pv", pv, "node-b"))
	require.Equal(t, 1, exit)
	require.Contains(t, parse(t, answer, stderr).Message, "node node-b is not registered")

	_, stderr, exit = say(t, p.command("attach", "--pv", pv, "--name", "pv-1", "node-a"))
	require.Equal(t, 1, exit)
	require.Equal(t, "iscsi: manifest "+pv+": it holds no volume pv-1: needed is a PersistentVolume (or a Pod with an in-line volume) with flexVolume.driver: datera/iscsi\n", stderr)
	_, stderr, exit = say(t, p.command("attach", "--pv", pv))
	require.Equal(t, 1, exit)
	require.Equal(t, "iscsi: attach got 0 words beside the manifest: accepted are 1: NODE\n", stderr)

	text, exit := p.ask(t, "delete", "--pv", pv)
	require.Equal(t, 1, exit)
	require.Contains(t, text, "in use by")
	_, _, exit = say(t, p.command("detach", "--pv", pv, "node-a"))
	require.Zero(t, exit)
	text, exit = p.ask(t, "delete", "--pv", pv)
	require.Zero(t, exit)
	require.Equal(t, "volume kube-pv-datera-0 is deleted\n", text)
	_, exit = p.ask(t, "delete", "--pv", pv, options)
	require.Equal(t, 1, exit, "both a manifest and options were taken")
}

// Whoever asks for a reader shall not make a writer.
func TestChoiceOfAVolumeNeedsItsManifest(t *testing.T) {
	p, _ := onArray(t, nil)
	for name, args := range map[string][]string{
		"a reader":          {"attach", options, "node-a", "--explain", "--read-only"},
		"a name":            {"attach", options, "node-a", "--name", "pv-1"},
		"a reader to go":    {"detach", "pv-datera-0", "node-a", "--read-only"},
		"a name to delete":  {"delete", strings.Replace(options, `"size"`, `"retainPolicy":"never","size"`, 1), "--name", "pv-1"},
		"a reader's delete": {"delete", strings.Replace(options, `"size"`, `"retainPolicy":"never","size"`, 1), "--read-only"},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, exit := say(t, p.command(args...))
			require.Equal(t, 1, exit, stdout)
			require.Empty(t, stdout)
			require.Equal(t, "iscsi: --read-only and --name go with --pv\n", stderr)
		})
	}
}

func TestRequestPrintsWhatIsTypedInstead(t *testing.T) {
	p, pv := onArray(t, nil)
	line, exit := p.ask(t, "request", pv, "attach", "--node", "node-a")
	require.Zero(t, exit, line)
	require.Equal(t, `iscsi attach '{"kubernetes.io/fsType":"xfs","kubernetes.io/pvOrVolumeName":"pv-datera-0","kubernetes.io/readwrite":"rw",`+
		`"retainPolicy":"never","size":"100","volumeID":"kube-pv-datera-0"}' node-a`+"\n", line)
	shell := exec.Command("sh", "-c", "iscsi() { "+binary+` "$@"; }`+"\n"+line)
	shell.Env = p.command().Env
	require.Equal(t, driver.Success, answer(t, shell).Status)
}

func TestExplainShowsEachStepOnStderr(t *testing.T) {
	p, pv := onArray(t, nil)
	stdout, stderr, exit := say(t, p.command("attach", "--explain", "--pv", pv, "node-a"))
	require.Zero(t, exit, stdout)
	require.Equal(t, driver.Success, parse(t, stdout, "").Status)
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	step := regexp.MustCompile(`^ *\d+\.\d{3} s  (REST      (GET|PUT|POST) /\S+  \d{3}  [0-9.]+m?s|answered  Success  REST calls \d+, programs 0)$`)
	for _, line := range lines {
		require.Regexp(t, step, line)
	}
	require.Contains(t, lines[0], "PUT /login")
	require.Contains(t, lines[len(lines)-1], "answered")
	var logged struct {
		Requests int `json:"requests"`
	}
	log, err := os.ReadFile(filepath.Join(p.dir, "log", "iscsi.log"))
	require.NoError(t, err)
	lastLine := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	require.NoError(t, json.Unmarshal(lastLine[len(lastLine)-1], &logged))
	require.Equal(t, logged.Requests, len(lines)-1, "a REST call is not shown: %s", stderr)

	// Without a manifest, too; and a call of kubelet's says nothing on stderr whatever its environment.
	stdout, stderr, _ = say(t, p.command("isattached", "--explain", options, "node-a"))
	require.NotNil(t, parse(t, stdout, "").Attached)
	require.Contains(t, stderr, "REST")
	require.Equal(t, driver.Success, answer(t, p.command("isattached", options, "node-a")).Status)
}

func TestVerbsExplainThemselves(t *testing.T) {
	p := newPlace(t, nil)
	for _, verb := range driver.Verbs() {
		text, exit := p.ask(t, verb.Name, "--help")
		require.Zero(t, exit)
		require.Contains(t, text, "Examples:\n  iscsi "+verb.Name)
		require.Equal(t, verb.TakesVolume(), strings.Contains(text, "--pv"))
	}
}
