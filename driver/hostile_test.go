package driver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What an option, a node's name or a path might hold to become more than it is.
var hostileValues = map[string]string{
	"shell":         "x; touch /tmp/owned #",
	"substitution":  "$(touch /tmp/owned)",
	"back quotes":   "`touch /tmp/owned`",
	"an argument":   "--rsh=touch /tmp/owned",
	"-o":            "-o",
	"a line end":    "x\nInitiatorName=iqn.evil",
	"NUL":           "x\x00y",
	"an escape":     "x\x1b[2Jy",
	"up":            "../../../../etc/passwd",
	"an entity":     "../initiators",
	"a query":       "x?force=true",
	"a URL":         "http://evil.example/",
	"a quote":       `x","retainPolicy":"never`,
	"very long":     strings.Repeat("A", 100_000),
	"no UTF-8":      "x\xff\xfey",
	"other letters": "ｘ\u202ey",
}

// Each value in each place of each call is refused by name, or is harmless: the host is not touched beyond what the call
// is for, no name reaches the array but such as it can have, and the answer is one short line.
func TestHostileOptions(t *testing.T) {
	server := array(t)
	fields := append([]string{keyName, keyFSType, keyReadWrite, keySecret + "username", keySecret + "password", keySecret + "server"}, driverOptions...)
	for name, value := range hostileValues {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, server, "node-a", inMemory(t)).registered(t)
			for _, field := range fields {
				n.faces(t, field, value, optionsWith(map[string]string{field: value}))
			}
			n.faces(t, "a key", value, optionsWith(map[string]string{value: "x"}))
			n.faces(t, "all of it", value, value)
			for _, call := range [][]string{
				{"attach", optionsWith(nil), value}, {"detach", "pv-datera-0", value}, {"detach", value, "node-a"}, {"isattached", optionsWith(nil), value},
				{"waitforattach", value, optionsWith(nil)}, {"mountdevice", value, "/dev/sdb", optionsWith(nil)}, {"mountdevice", globalPath, value, optionsWith(nil)},
				{"mount", value, optionsWith(nil)}, {"unmount", value}, {"unmountdevice", value}, {"expandfs", optionsWith(nil), value, value, value, value}, {value, value},
			} {
				n.shortAnswer(t, n.Serve(t.Context(), call))
			}
			require.Empty(t, words(n.takeDone()), "a hostile value reached the host")
		})
	}
	for _, request := range server.Requests() {
		require.NotContains(t, request.Path, "..")
		require.NotContains(t, request.Path, "owned")
		require.NotContains(t, request.Path, "force")
	}
	require.NoFileExists(t, "/tmp/owned")
}

// faces makes the calls that take options with a hostile field.
func (n *node) faces(t *testing.T, field, value, options string) {
	t.Helper()
	for _, call := range [][]string{
		{"attach", options, n.name}, {"isattached", options, n.name}, {"waitforattach", "iscsi://10.0.0.1:3260/x/0", options},
		{"mountdevice", globalPath, "/dev/sdb", options}, {"mount", podPath, options}, {"expandvolume", options, globalPath, "1", "1"},
	} {
		reply := n.Serve(t.Context(), call)
		n.shortAnswer(t, reply)
		if call[0] != "attach" || reply.Status != Success {
			continue
		}
		n.ask(t, "detach", "pv-datera-0", n.name)
		switch field {
		case keySecret + "password": // may hold anything
		case optMountOptions, optMkfsOptions: // single words, which package mount judges
			require.NotRegexp(t, `[^A-Za-z0-9_=.:/@%+, -]`, value)
		default:
			require.Fail(t, fmt.Sprintf("%.80q was accepted for %s", value, field))
		}
	}
}

// shortAnswer holds a reply to what kubelet and people can read.
func (n *node) shortAnswer(t *testing.T, reply Reply) {
	t.Helper()
	line := reply.Line()
	require.Less(t, len(line), 2*longestMessage)
	require.Equal(t, 1, strings.Count(string(line), "\n"))
	require.True(t, json.Valid(line), "%s", line)
	for _, r := range reply.Message {
		require.True(t, r >= ' ' || r == '\n', "the message holds the control character %q: %q", r, reply.Message)
	}
}

// lies changes the array's answers about volumes, or makes up one of its own.
func (n *node) lies(lie lie) {
	n.passing(func(r *http.Request, array http.RoundTripper) (*http.Response, error) {
		response, err := array.RoundTrip(r)
		if err != nil || !strings.Contains(r.URL.Path, "/app_instances") {
			return response, err
		}
		var answer map[string]any
		text, _ := io.ReadAll(response.Body)
		if json.Unmarshal(text, &answer) == nil {
			if madeUp := lie(r, answer); madeUp != nil {
				return madeUp, nil
			}
			text, _ = json.Marshal(answer)
		}
		response.ContentLength = int64(len(text))
		response.Body = io.NopCloser(bytes.NewReader(text))
		return response, nil
	})
}

type lie func(r *http.Request, answer map[string]any) (madeUp *http.Response)

// inside walks to a part of an app instance.
func inside(answer map[string]any, path ...string) map[string]any {
	found, _ := answer["data"].(map[string]any)
	for _, key := range path {
		switch next := found[key].(type) {
		case map[string]any:
			found = next
		case []any:
			if len(next) == 0 {
				return map[string]any{}
			}
			found, _ = next[0].(map[string]any)
		default:
			return map[string]any{}
		}
	}
	if found == nil {
		return map[string]any{}
	}
	return found
}

// An array that lies, or one whose answers were changed on their way, gets nothing onto the node: the device string that
// leads there holds an IQN, addresses, numbers and a serial number, or there is none.
func TestHostileAnswersOfTheArray(t *testing.T) {
	set := func(value any, key string, path ...string) lie {
		return func(_ *http.Request, answer map[string]any) *http.Response {
			maps.Copy(inside(answer, path...), map[string]any{key: value})
			return nil
		}
	}
	access, volume := []string{"storage_instances", "access"}, []string{"storage_instances", "volumes"}
	for name, test := range map[string]struct {
		lie  lie
		says string
	}{
		"an IQN that is an argument":    {set("--logout", "iqn", access...), "which is not one"},
		"an IQN that climbs":            {set("iqn.2013-05.com.x:../../etc", "iqn", access...), "device string"},
		"an IQN of two lines":           {set("iqn.2013-05.com.x:a\nb", "iqn", access...), "is no IQN"},
		"a huge IQN":                    {set("iqn.2013-05.com.x:"+strings.Repeat("a", 1<<20), "iqn", access...), "device string"},
		"an address that is an option":  {set([]any{"--help"}, "ips", access...), "it must be an IP address"},
		"an address that is a command":  {set([]any{"10.0.0.1;reboot"}, "ips", access...), "it must be an IP address"},
		"an address that is a number":   {set([]any{17}, "ips", access...), "cannot use the answer"},
		"a thousand addresses":          {set(strings.Fields(strings.Repeat("10.0.0.1 ", 1000)), "ips", access...), "device string"},
		"no serial":                     {set("", "uuid", volume...), "has the uuid"},
		"a serial that climbs":          {set("../../sda", "uuid", volume...), "has the uuid"},
		"a serial with a query":         {set("x&format=", "uuid", volume...), "has the uuid"},
		"a size that is a word":         {set("huge", "size", volume...), "is not a number"},
		"a size of nothing":             {set(0, "size", volume...), "has a size of 0 GiB"},
		"a negative size":               {set(-5, "size", volume...), "has a size of -5 GiB"},
		"a size beyond all":             {set(1e300, "size", volume...), "is not a number"},
		"a LUN beyond all":              {set(1<<40, "lun", volume...), "is no LUN"},
		"a negative LUN":                {set(-1, "lun", volume...), "is no LUN"},
		"volumes that are none":         {set([]any{}, "volumes", "storage_instances"), "has 0 volumes"},
		"storage that is a word":        {set("none", "storage_instances"), "cannot use the answer"},
		"a path that climbs":            {set("/app_instances/../login", "path", "storage_instances"), "is not one of /app_instances/"},
		"a state that is a screen full": {set(strings.Repeat("\x1b[31m", 10_000), "op_state", "storage_instances"), "op_state"},
		"a name that is a screen full":  {set(strings.Repeat("\x1b[31m", 10_000), "name", "storage_instances"), ""},
		"nothing": {func(_ *http.Request, answer map[string]any) *http.Response {
			answer["data"] = nil
			return nil
		}, "holds no data"},
		"a list": {func(_ *http.Request, answer map[string]any) *http.Response {
			answer["data"] = []any{1, 2}
			return nil
		}, "cannot use the answer"},
		"a huge body": {func(r *http.Request, _ map[string]any) *http.Response {
			return answered(r, http.StatusOK, strings.Repeat(" ", 17<<20))
		}, "larger than 16 MiB"},
		"a redirect": {func(r *http.Request, _ map[string]any) *http.Response {
			response := answered(r, http.StatusTemporaryRedirect, "")
			response.Header.Set("Location", "http://127.0.0.1:1/elsewhere")
			return response
		}, "is not followed"},
		"nested without end": {func(r *http.Request, _ map[string]any) *http.Response {
			return answered(r, http.StatusOK, strings.Repeat(`{"data":[`, 100_000))
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { getsNothingOntoTheNode(t, test.lie, test.says) })
		})
	}
}

func getsNothingOntoTheNode(t *testing.T, lie lie, says string) {
	server := array(t)
	control := newNode(t, server, "node-a", inMemory(t)).registered(t)
	none := newNode(t, server, "node-b", inMemory(t), attachMode(AttachNone))
	control.lies(lie)
	none.lies(lie)
	options := optionsWith(nil)
	patience, cancel := context.WithTimeout(t.Context(), 5*time.Second) // the driver waits as long as it may for a better state
	defer cancel()
	var said strings.Builder
	for _, call := range [][]string{
		{"attach", options, "node-a"}, {"isattached", options, "node-a"}, {"expandvolume", options, globalPath, fmt.Sprint(101 * gib), "1"}, {"detach", "pv-datera-0", "node-a"},
	} {
		reply := control.Serve(patience, call)
		control.shortAnswer(t, reply)
		if reply.Device != "" {
			_, err := ParseAttachment(reply.Device)
			require.NoError(t, err)
		}
		said.WriteString(reply.Message + "\n")
	}
	mounted := none.Serve(patience, []string{"mount", podPath, options})
	none.shortAnswer(t, mounted)
	require.NotContains(t, said.String()+mounted.Message, "fault in the driver")
	if says == "" {
		return
	}
	require.Contains(t, said.String(), says)
	require.Equal(t, Failure, mounted.Status)
	require.Empty(t, none.takeDone(), "a lie reached the host: %s", mounted.Message)
}

// The files that the driver writes are replaced, never written through: a link that somebody planted leads nowhere.
func TestPlantedLinksAreNotFollowed(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	victim := filepath.Join(t.TempDir(), "victim")
	require.NoError(t, os.WriteFile(victim, []byte("precious"), 0o644))
	device := n.ask(t, "attach", optionsWith(nil), "node-a").Device
	note := n.intentPath(intent{PV: "pv-datera-0", Group: groupName("kubernetes", "pv-datera-0", idOf(t, server, "kube-pv-datera-0"), "rw")})
	for _, path := range []string{n.journal().inUse("pv-datera-0"), note} {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, ignoreMissing(os.Remove(path)))
		require.NoError(t, os.Symlink(victim, path))
	}
	n.ask(t, "detach", "pv-datera-0", "node-a")
	n.ask(t, "attach", optionsWith(nil), "node-a")
	disk := n.ask(t, "waitforattach", device, optionsWith(nil)).Device
	n.ask(t, "mountdevice", globalPath, disk, optionsWith(nil))
	n.ask(t, "unmountdevice", globalPath)
	content, err := os.ReadFile(victim)
	require.NoError(t, err)
	require.Equal(t, "precious", string(content))

	// A lock's file is only opened; what it leads to stays as it is.
	require.NoError(t, os.Remove(filepath.Join(n.Config.RunDir, "lock", "volume-pv-datera-0")))
	require.NoError(t, os.Symlink(victim, filepath.Join(n.Config.RunDir, "lock", "volume-pv-datera-0")))
	n.ask(t, "detach", "pv-datera-0", "node-a")
	content, err = os.ReadFile(victim)
	require.NoError(t, err)
	require.Equal(t, "precious", string(content))
	info, err := os.Stat(victim)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o644), info.Mode().Perm(), fmt.Sprint(info.Mode()))
}
