package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/driver"
)

var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "iscsi-test")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "datera~iscsi", "iscsi")
	err = build(binary)
	code := 1
	if err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// build makes the binary as the Makefile does.
func build(path string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid= -X main.version=test", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	return nil
}

func TestBinaryIsStaticAndReproducible(t *testing.T) {
	file, err := elf.Open(binary)
	require.NoError(t, err)
	defer file.Close()
	for _, segment := range file.Progs {
		require.NotEqual(t, elf.PT_INTERP, segment.Type, "the binary needs a dynamic linker")
	}
	again := filepath.Join(t.TempDir(), "iscsi")
	require.NoError(t, build(again))
	one, err := os.ReadFile(binary)
	require.NoError(t, err)
	two, err := os.ReadFile(again)
	require.NoError(t, err)
	require.True(t, bytes.Equal(one, two), "two builds differ")
}

// place is a host of its own for the binary: configuration, state and log.
type place struct {
	dir, config string
}

func newPlace(t *testing.T, change func(*driver.Config)) place {
	t.Helper()
	p := place{dir: t.TempDir()}
	p.config = filepath.Join(p.dir, "config")
	config := driver.Config{
		StateDir: filepath.Join(p.dir, "state"), RunDir: filepath.Join(p.dir, "run"),
		Attach: driver.AttachController, Cluster: "kubernetes",
		Log: driver.LogConfig{Path: filepath.Join(p.dir, "log", "iscsi.log"), Level: "debug", MaxBackups: 5},
	}
	if change != nil {
		change(&config)
	}
	document, err := json.Marshal(config)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(p.config, document, 0o600))
	return p
}

func (p place) command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "DATERA_CONFIG=" + p.config}
	return cmd
}

// answer runs the binary as kubelet does and holds it to the protocol.
func answer(t *testing.T, cmd *exec.Cmd) driver.Reply {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), "the exit status is not 0; stdout %q, stderr %q", stdout.String(), stderr.String())
	return parse(t, stdout.String(), stderr.String())
}

func parse(t *testing.T, stdout, stderr string) driver.Reply {
	t.Helper()
	require.Empty(t, stderr, "kubelet reads stderr as part of the reply")
	require.Equal(t, 1, strings.Count(stdout, "\n"), "the reply is not one line: %q", stdout)
	var reply driver.Reply
	require.NoError(t, json.Unmarshal([]byte(stdout), &reply), "the reply is no JSON: %q", stdout)
	require.NotContains(t, stdout, `"capabilities":null`, "kubelet panics on it")
	return reply
}

const options = `{"kubernetes.io/pvOrVolumeName":"pv-datera-0","kubernetes.io/fsType":"xfs","kubernetes.io/readwrite":"rw","volumeID":"kube-pv-datera-0","size":"100"}`

func TestEveryCallAnswersInOneLine(t *testing.T) {
	tests := map[string]struct {
		args   []string
		status driver.Status
	}{
		"init":               {[]string{"init"}, driver.Success},
		"getvolumename":      {[]string{"getvolumename", options}, driver.NotSupported},
		"an unknown verb":    {[]string{"frobnicate"}, driver.NotSupported},
		"a flag to a verb":   {[]string{"attach", "--foo", "node"}, driver.Failure},
		"too few words":      {[]string{"attach", options}, driver.Failure},
		"too many words":     {[]string{"unmount", "/x", "y"}, driver.Failure},
		"bad JSON":           {[]string{"attach", "{", "node"}, driver.Failure},
		"no credentials":     {[]string{"attach", options, "node"}, driver.Failure},
		"nothing is mounted": {[]string{"unmount", "/var/lib/kubelet/pods/u/volumes/datera~iscsi/pv-1"}, driver.Success},
		"no device string":   {[]string{"waitforattach", "/dev/sdb", options}, driver.Failure},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			reply := answer(t, newPlace(t, nil).command(test.args...))
			require.Equal(t, test.status, reply.Status, reply.Message)
			if test.status == driver.Failure {
				require.NotEmpty(t, reply.Message)
			}
		})
	}
}

func TestAnswersWhateverSurroundsIt(t *testing.T) {
	logs := []string{"unmount", "/var/lib/kubelet/pods/u/volumes/datera~iscsi/pv-1"} // init does not
	tests := map[string]func(*testing.T, place) *exec.Cmd{
		"no configuration at all": func(t *testing.T, p place) *exec.Cmd {
			cmd := p.command("init")
			cmd.Env = nil
			return cmd
		},
		"a configuration that is no configuration": func(t *testing.T, p place) *exec.Cmd {
			require.NoError(t, os.WriteFile(p.config, []byte("{{{"), 0o600))
			return p.command("init")
		},
		"a closed stdin": func(t *testing.T, p place) *exec.Cmd {
			return exec.Command("sh", "-c", `exec "$0" init <&-`, binary)
		},
		"a full disk under the log": func(t *testing.T, p place) *exec.Cmd {
			require.NoError(t, os.MkdirAll(filepath.Join(p.dir, "log"), 0o700))
			require.NoError(t, os.Symlink("/dev/full", filepath.Join(p.dir, "log", "iscsi.log")))
			return p.command(logs...)
		},
		"a log that is a folder": func(t *testing.T, p place) *exec.Cmd {
			require.NoError(t, os.MkdirAll(filepath.Join(p.dir, "log", "iscsi.log"), 0o700))
			return p.command(logs...)
		},
		"a folder of the log that cannot be": func(t *testing.T, p place) *exec.Cmd {
			require.NoError(t, os.WriteFile(filepath.Join(p.dir, "log"), nil, 0o600))
			return p.command(logs...)
		},
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			cmd := prepare(t, newPlace(t, nil))
			reply := answer(t, cmd)
			require.Equal(t, driver.Success, reply.Status, reply.Message)
			require.Equal(t, slices.Contains(cmd.Args, "init") || cmd.Args[0] == "sh", reply.Capabilities != nil)
		})
	}
}

func TestStandsWithoutAnyDescriptor(t *testing.T) {
	cmd := exec.Command("sh", "-c", `"$0" init <&- >&- 2>&-; echo $?`, binary)
	output, err := cmd.CombinedOutput()
	require.NoError(t, err)
	require.Equal(t, "0\n", string(output))
}

func TestAnswersAfterSIGTERM(t *testing.T) {
	server := dateratest.Start(t)
	require.NoError(t, server.SetFault(dateratest.Fault{Name: dateratest.Slow, Value: "1m"}))
	p := newPlace(t, func(c *driver.Config) {
		c.ManagementIP, c.Scheme, c.Username, c.Password = server.Address(), "http", "admin", "password"
	})
	cmd := p.command("attach", options, "node-a")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool {
		return len(server.Requests()) > 0 || logged(p, "session") || processWaits(cmd.Process.Pid)
	}, 10*time.Second, 10*time.Millisecond)
	begin := time.Now()
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), "a driver that is told to stop must still exit with 0")
	require.Less(t, time.Since(begin), 10*time.Second, "kubelet panics when waitforattach outlives its SIGTERM by 10 s")
	reply := parse(t, stdout.String(), stderr.String())
	require.Equal(t, driver.Failure, reply.Status)
}

func logged(p place, words string) bool {
	log, _ := os.ReadFile(filepath.Join(p.dir, "log", "iscsi.log"))
	return bytes.Contains(log, []byte(words))
}

// processWaits reports whether the process has a connection to the array.
func processWaits(pid int) bool {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, "socket:") {
			return true
		}
	}
	return false
}

func TestLogCountsAndHidesSecrets(t *testing.T) {
	server := dateratest.Start(t)
	p := newPlace(t, func(c *driver.Config) {
		c.ManagementIP, c.Scheme, c.Username, c.Password = server.Address(), "http", "admin", "password-canary"
	})
	reply := answer(t, p.command("attach", options, "node-a"))
	require.Equal(t, driver.Failure, reply.Status, "a wrong password was accepted")
	var everything bytes.Buffer
	require.NoError(t, filepath.WalkDir(p.dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path == p.config {
			return err
		}
		content, err := os.ReadFile(path)
		everything.Write(content)
		return err
	}))
	everything.WriteString(reply.Message)
	require.NotContains(t, everything.String(), "password-canary")
	require.Contains(t, everything.String(), `"verb":"attach"`)
	require.Contains(t, everything.String(), `"requests":1`)
}

func TestPeople(t *testing.T) {
	tests := map[string]struct {
		args []string
		exit int
		says []string
	}{
		"no arguments":           {nil, 0, []string{"What kubelet calls:", "waitforattach", "For people:", "register"}},
		"--help":                 {[]string{"--help"}, 0, []string{"provision the volume", "with one of a person's flags a failure exits with 1"}},
		"attach --help":          {[]string{"attach", "--help"}, 0, []string{"attach OPTIONS NODE", "Provision the volume"}},
		"help attach":            {[]string{"help", "attach"}, 0, []string{"attach OPTIONS NODE"}},
		"version":                {[]string{"version"}, 0, []string{"iscsi test (go"}},
		"register":               {[]string{"register", "node-a"}, 1, []string{"iscsi: no credentials for the array"}},
		"delete":                 {[]string{"delete", options}, 1, []string{"has not the option retainPolicy: never", "add that to the options given here"}},
		"delete without options": {[]string{"delete"}, 1, []string{"accepts 1 arg"}},
		"a flag":                 {[]string{"--frobnicate"}, 1, []string{"unknown flag"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			output, err := newPlace(t, nil).command(test.args...).CombinedOutput()
			exit := 0
			if err != nil {
				exit = err.(*exec.ExitError).ExitCode()
			}
			require.Equal(t, test.exit, exit, string(output))
			for _, words := range test.says {
				require.Contains(t, string(output), words)
			}
		})
	}
}

func TestRegisterAndDeleteForPeople(t *testing.T) {
	server := dateratest.Start(t)
	p := newPlace(t, func(c *driver.Config) {
		c.ManagementIP, c.Scheme, c.Username, c.Password, c.Node = server.Address(), "http", "admin", "password", "node-a"
	})
	for name, args := range map[string][]string{"the configuration's node": {"register"}, "a named one": {"register", "node-a"}} {
		output, err := p.command(append(args, "--iqn", "iqn.1993-08.org.debian:01:node-a")...).CombinedOutput()
		require.NoError(t, err, "%s: %s", name, output)
		require.Equal(t, "node node-a is registered with initiator iqn.1993-08.org.debian:01:node-a as k8s_kubernetes_node-a\n", string(output), name)
	}
	require.Equal(t, driver.Success, answer(t, p.command("attach", options, "node-a")).Status)
	never := strings.Replace(options, `"size"`, `"retainPolicy":"never","size"`, 1)
	output, err := p.command("delete", never).CombinedOutput()
	require.Error(t, err, "a volume in use was deleted")
	require.Contains(t, string(output), "in use by iqn.1993-08.org.debian:01:node-a")
	require.Equal(t, driver.Success, answer(t, p.command("detach", "pv-datera-0", "node-a")).Status)
	output, err = p.command("delete", never).CombinedOutput()
	require.NoError(t, err, string(output))
	require.Equal(t, "volume kube-pv-datera-0 is deleted\n", string(output))
	_, found := server.AppInstance("/root", "kube-pv-datera-0")
	require.False(t, found)
}

// The volume of a secretRef is on the secret's array. One of the same name on the configured array is another one.
func TestDeleteStaysOffTheConfiguredArrayWhereASecretNamesAnother(t *testing.T) {
	configured, own := dateratest.Start(t), dateratest.Start(t)
	at := func(server *dateratest.Server) func(*driver.Config) {
		return func(c *driver.Config) {
			c.ManagementIP, c.Scheme, c.Username, c.Password = server.Address(), "http", "admin", "password"
		}
	}
	for _, server := range []*dateratest.Server{configured, own} {
		require.NoError(t, server.RegisterInitiator("iqn.1993-08.org.debian:01:node-a", "k8s_kubernetes_node-a"))
		maker := newPlace(t, at(server))
		require.Equal(t, driver.Success, answer(t, maker.command("attach", options, "node-a")).Status)
		require.Equal(t, driver.Success, answer(t, maker.command("detach", "pv-datera-0", "node-a")).Status)
	}
	p := newPlace(t, at(configured))
	pv, secret := filepath.Join(p.dir, "pv.yaml"), filepath.Join(p.dir, "secret.yaml")
	require.NoError(t, os.WriteFile(pv, []byte(strings.Replace(manifest, "    fsType", "    secretRef: {name: array, namespace: shop}\n    fsType", 1)), 0o600))
	require.NoError(t, os.WriteFile(secret, fmt.Appendf(nil, "kind: Secret\ntype: datera/iscsi\nmetadata: {name: array, namespace: shop}\n"+
		"stringData: {server: %q, username: admin, password: password}\n", own.Address()), 0o600))

	text, exit := p.ask(t, "delete", "--pv", pv)
	require.Equal(t, 1, exit, text)
	require.Contains(t, text, "has the secretRef array: give that Secret, too, with another --pv")
	text, exit = p.ask(t, "delete", "--pv", pv, "--pv", secret)
	require.Zero(t, exit, text)
	_, found := configured.AppInstance("/root", "kube-pv-datera-0")
	require.True(t, found, "the volume of another array was deleted")
	_, found = own.AppInstance("/root", "kube-pv-datera-0")
	require.False(t, found)
}

func TestReplyReachesKubeletAlone(t *testing.T) {
	// A child that kept the pipe would keep kubelet waiting.
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	cmd := newPlace(t, nil).command("init")
	cmd.Stdout, cmd.Stderr = writer, writer
	require.NoError(t, cmd.Start())
	require.NoError(t, writer.Close())
	line, err := io.ReadAll(reader)
	require.NoError(t, err)
	require.NoError(t, cmd.Wait())
	parse(t, string(line), "")
}

func TestArraysThatCannotBeTrusted(t *testing.T) {
	secure, plain := dateratest.Start(t, dateratest.WithTLS()), dateratest.Start(t)
	tests := map[string]struct {
		address, scheme, caFile string
		says                    string
	}{
		"an unknown authority":  {secure.Address(), "https", "", "Set ca_file to the PEM file"},
		"plain http behind TLS": {plain.Address(), "https", "", "http"},
		"TLS behind plain http": {secure.Address(), "http", "", "https"},
		"nobody listens":        {"127.0.0.1:1", "http", "", "127.0.0.1:1"},
		"no such CA file":       {secure.Address(), "https", "/no/such/file", "/no/such/file"},
		"an address of its own": {"localhost" + secure.Address()[strings.LastIndex(secure.Address(), ":"):] + "9", "https", "", "accepted is host"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, func(c *driver.Config) {
				c.ManagementIP, c.Scheme, c.CAFile, c.Username, c.Password = test.address, test.scheme, test.caFile, "admin", "canary-password"
			})
			reply := answer(t, p.commandUntil(t, 3*time.Second, "attach", options, "node-a"))
			require.Equal(t, driver.Failure, reply.Status)
			require.Contains(t, reply.Message, test.says)
			require.NotContains(t, reply.Message, "canary-password")
		})
	}
	for _, request := range append(secure.Requests(), plain.Requests()...) {
		require.NotContains(t, fmt.Sprint(request), "canary-password")
	}
}

// commandUntil tells a call that would go on trying to stop.
func (p place) commandUntil(t *testing.T, patience time.Duration, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	plain := p.command(args...)
	cmd := exec.CommandContext(ctx, plain.Path, args...)
	cmd.Env = plain.Env
	cmd.Cancel = func() error { return errors.Join(cmd.Process.Signal(syscall.SIGTERM), os.ErrProcessDone) }
	return cmd
}

func TestTLSWithTheArraysOwnAuthority(t *testing.T) {
	server := dateratest.Start(t, dateratest.WithTLS())
	require.NoError(t, server.RegisterInitiator("iqn.1993-08.org.debian:01:node-a", "k8s_kubernetes_node-a"))
	p := newPlace(t, func(c *driver.Config) {
		c.ManagementIP, c.CAFile, c.Username, c.Password = server.Address(), server.CAFile, "admin", "password"
	})
	reply := answer(t, p.command("attach", options, "node-a"))
	require.Equal(t, driver.Success, reply.Status, reply.Message)
}
