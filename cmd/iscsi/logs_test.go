package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
	"datera-flexvolume/driver/calllog"
)

// lastLine is the last one in the log of a place.
func lastLine(t *testing.T, p place) map[string]any {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(p.dir, "log", "iscsi.log"))
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	var line map[string]any
	require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &line))
	return line
}

func TestEachCallHasALineThatTellsWhatItDid(t *testing.T) {
	p, pv := onArray(t, nil)
	global := "/var/lib/kubelet/plugins/kubernetes.io/flexvolume/datera/iscsi/mounts/pv-1"
	journal := filepath.Join(p.dir, "state", "volumes", "pv-1.json")
	require.NoError(t, os.MkdirAll(filepath.Dir(journal), 0o700))
	require.NoError(t, os.WriteFile(journal, []byte(`{"name":"pv-1","appInstance":"kube-pv-1"}`), 0o600))
	say(t, p.command("attach", options, "node-a"))
	line := lastLine(t, p)
	require.Equal(t, []any{"pv-datera-0", "kube-pv-datera-0", 9.0}, []any{line["pv"], line["volume"], line["requests"]})
	tests := map[string]struct {
		args       []string
		pv, volume string
	}{
		"a manifest":          {[]string{"isattached", "--pv", pv, "node-a"}, "pv-datera-0", "kube-pv-datera-0"},
		"a name":              {[]string{"detach", "pv-2", "node-b"}, "pv-2", ""},
		"a path, journalled":  {[]string{"unmount", "/var/lib/kubelet/pods/u/volumes/datera~iscsi/pv-1"}, "pv-1", "kube-pv-1"},
		"bad options":         {[]string{"attach", strings.Replace(options, `"100"`, `"many"`, 1), "node-a"}, "pv-datera-0", ""},
		"no name":             {[]string{"detach", "../etc", "node-a"}, "", ""},
		"no path of a volume": {[]string{"unmount", "/etc"}, "", ""},
		"the node's mount":    {[]string{"expandvolume", "{", global, "1", "1"}, "pv-1", "kube-pv-1"},
		"too few words":       {[]string{"attach", options}, "", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, _ = say(t, p.command(test.args...))
			line := lastLine(t, p)
			require.Equal(t, "answered", line["msg"])
			require.Equal(t, test.args[0], line["verb"])
			require.Equal(t, []any{test.pv, test.volume}, []any{line["pv"], line["volume"]})
			require.Len(t, line["call"], 8)
			require.Positive(t, line["seconds"])
			require.Zero(t, line["programs"])
		})
	}
}

func TestLogsForPeople(t *testing.T) {
	p, pv := onArray(t, nil)
	say(t, p.command("attach", "--pv", pv, "node-a"))
	say(t, p.command("attach", "--pv", pv, "node-b"))
	say(t, p.command("detach", "pv-2", "node-a"))

	text, exit := p.ask(t, "logs")
	require.Zero(t, exit, text)
	require.Equal(t, 4, strings.Count(text, "\n"), text)
	text, exit = p.ask(t, "logs", "--since", "1h", "--failed", "--pv", "pv-datera-0")
	require.Zero(t, exit, text)
	require.Equal(t, 2, strings.Count(text, "\n"), text)
	require.Regexp(t, `attach +pv-datera-0 +\d+ms  Failure  node node-b is not registered`, text)
	text, exit = p.ask(t, "logs", "-o", "json", "--failed")
	require.Zero(t, exit, text)
	var line map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &line), "not one line: %s", text)
	require.Equal(t, "Failure", line["status"])

	follow := p.command("logs", "-f", "--failed")
	stdout, err := follow.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, follow.Start())
	defer func() { _ = follow.Process.Kill() }()
	lines := bufio.NewScanner(stdout)
	for range 2 {
		require.True(t, lines.Scan())
	}
	say(t, p.command("detach", "pv-3", "node_c"))
	require.True(t, lines.Scan())
	require.Contains(t, lines.Text(), "pv-3")
	require.NoError(t, follow.Process.Signal(syscall.SIGINT))
	require.False(t, lines.Scan())
	require.NoError(t, follow.Wait(), "told to stop, it must end with 0")

	text, exit = newPlace(t, nil).ask(t, "logs")
	require.Equal(t, 1, exit)
	require.Contains(t, text, "no call has been made yet")
}

func TestOldLogsGo(t *testing.T) {
	p := newPlace(t, func(c *driver.Config) { c.Log.MaxAgeDays = 7 })
	name := func(age time.Duration) string {
		return filepath.Join(p.dir, "log", "iscsi-"+time.Now().Add(-age).UTC().Format("2006-01-02T15-04-05.000")+".log")
	}
	old, young := name(8*24*time.Hour), name(6*24*time.Hour)
	require.NoError(t, os.Mkdir(filepath.Dir(old), 0o700))
	for _, path := range []string{old, young} {
		require.NoError(t, os.WriteFile(path, nil, 0o600))
	}
	say(t, p.command("detach", "pv-1", "node-a"))
	require.NoFileExists(t, old)
	require.FileExists(t, young)
}

func TestCallsThatFindTheLogFullLoseNoLine(t *testing.T) {
	p, _ := onArray(t, func(c *driver.Config) { c.Log.MaxSizeMiB = 1 })
	path := filepath.Join(p.dir, "log", "iscsi.log")
	require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, append(bytes.Repeat([]byte("."), 1<<20-500), '\n'), 0o600))
	var want []string
	var group sync.WaitGroup
	for i := range 12 {
		pv := fmt.Sprintf("pv-%02d", i)
		want = append(want, pv)
		group.Go(func() { _ = p.command("attach", strings.ReplaceAll(options, "pv-datera-0", pv), "node-a").Run() })
	}
	group.Wait()
	var found []string
	require.NoError(t, calllog.Read(t.Context(), path, calllog.Filter{}, false, func(entries []calllog.Entry) error {
		for _, e := range entries {
			found = append(found, e.PV)
		}
		return nil
	}))
	require.ElementsMatch(t, want, found)
	require.Len(t, calllog.Files(path), 2, "one rotation was enough")
}

// Libraries and the runtime write there, whatever they write and for as many years.
func TestStderrBesideTheLogIsBounded(t *testing.T) {
	p := newPlace(t, func(c *driver.Config) { c.Log.MaxSizeMiB = 1 })
	path := filepath.Join(p.dir, "log", "iscsi.log.stderr")
	require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
	for range 3 {
		require.NoError(t, os.WriteFile(path, make([]byte, 1<<20+1), 0o600))
		say(t, p.command("detach", "pv-1", "node-a"))
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Less(t, info.Size(), int64(1<<20))
	}
	require.Len(t, calllog.Files(path), 2, "one that was rotated away is kept")
	require.Len(t, calllog.Files(filepath.Join(p.dir, "log", "iscsi.log")), 1, "it counts as a file of the log")
}

func TestCallsAreCountedWhereThatIsWanted(t *testing.T) {
	p, pv := onArray(t, func(c *driver.Config) { c.Metrics = filepath.Join(c.StateDir, "..", "datera_iscsi.prom") })
	file := filepath.Join(p.dir, "datera_iscsi.prom")
	answer(t, p.command("init"))
	require.NoFileExists(t, file, "init must do nothing but answer")
	say(t, p.command("attach", "--pv", pv, "node-a"))
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() { _ = p.command("isattached", options, "node_b").Run() })
	}
	group.Wait()
	metrics, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, line := range []string{
		`datera_iscsi_calls_total{verb="attach",result="success"} 1`, `datera_iscsi_array_requests_total{verb="attach"} 9`,
		`datera_iscsi_calls_total{verb="isattached",result="failure"} 10`, `datera_iscsi_build_info{version="test"} 1`,
	} {
		require.Contains(t, string(metrics), line+"\n")
	}

	// Metrics that cannot be written are a line in the log and nothing else.
	p, pv = onArray(t, func(c *driver.Config) { c.Metrics = "/no/such/folder/x.prom" })
	_, _, exit := say(t, p.command("attach", "--pv", pv, "node-a"))
	require.Zero(t, exit)
	require.True(t, logged(p, "the call is not in the metrics"))
}
