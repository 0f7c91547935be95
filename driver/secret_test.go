package driver

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
	"datera-flexvolume/datera/dateratest"
)

// The canaries are secrets that must be found nowhere.
const (
	canaryPassword = "canary-api-1"
	canaryCHAP     = "canary-chap-2"
	canaryMutual   = "canary-mutual-3"
)

func canaries() []string {
	all := []string{canaryPassword, canaryCHAP, canaryMutual}
	for _, secret := range all[:3] {
		all = append(all, strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(secret)), "="))
	}
	return all
}

// lockedBuffer takes the log of goroutines that a call has left behind, too.
type lockedBuffer struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.String()
}

// canaryNode is a node whose configuration holds the canaries, and all that it logs.
func canaryNode(t *testing.T, server *dateratest.Server, mode AttachMode) (*node, *lockedBuffer) {
	t.Helper()
	n := newNode(t, server, "node-a", inMemory(t), attachMode(mode), func(c *Config) {
		c.Password = canaryPassword
		c.CHAP = CHAPConfig{Username: "chap-user", Password: canaryCHAP, MutualUsername: "array-user", MutualPassword: canaryMutual}
	})
	logged := &lockedBuffer{}
	n.Log = slog.New(slog.NewJSONHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	n.OpenArray = func(scheme string, credentials Credentials, tenant string) (Array, error) {
		config := n.Config.ArrayClient(scheme, credentials, tenant)
		config.Logger, config.Transport = n.Log, n.way
		return datera.New(config)
	}
	return n, logged
}

// callAll makes every call once, in the order of a volume's life, whatever comes of it, and returns the replies.
func (n *node) callAll(t *testing.T, options string, patience time.Duration) string {
	t.Helper()
	var said strings.Builder
	device, disk := seedAttachment.String(), "/dev/sdb"
	for _, call := range [][]string{
		{"init"}, {"attach", options, n.name}, {"isattached", options, n.name}, {"waitforattach", "", options},
		{"mountdevice", globalPath, "", options}, {"mount", podPath, options}, {"expandvolume", options, globalPath, "1", "1"},
		{"expandfs", options, disk, globalPath, fmt.Sprint(101 * gib), "1"},
		{"unmount", podPath}, {"unmountdevice", globalPath}, {"detach", "pv-datera-0", n.name}, {"getvolumename", options}, {options},
	} {
		switch call[0] {
		case "waitforattach":
			call[1] = device
		case "mountdevice":
			call[2] = disk
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		reply := n.Serve(ctx, call)
		cancel()
		said.Write(reply.Line())
		if reply.Status == Success && reply.Device != "" {
			if call[0] == "attach" {
				device = reply.Device
			} else {
				disk = reply.Device
			}
		}
	}
	return said.String()
}

// keepsSecrets wants no canary in what was said, in the log or in a file, and no file that others may read.
func (n *node) keepsSecrets(t *testing.T, said string, logged *lockedBuffer) {
	t.Helper()
	for _, canary := range canaries() {
		require.NotContains(t, said, canary, "a reply shows a secret")
		require.NotContains(t, logged.String(), canary, "the log shows a secret")
	}
	for _, dir := range []string{n.Config.StateDir, n.Config.RunDir} {
		require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return ignoreMissing(err)
			}
			info, err := entry.Info()
			require.NoError(t, err)
			require.Zero(t, info.Mode().Perm()&0o077, "%s has mode %s", path, info.Mode())
			if entry.IsDir() {
				return nil
			}
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			for _, canary := range canaries() {
				require.NotContains(t, string(content), canary, path)
			}
			return nil
		}))
	}
}

// secretOptions are the volume's options, in attach mode none with the secret that kubelet adds.
func secretOptions(mode AttachMode) string {
	changes := map[string]string{optServer: "sim.test", optVolumeID: "pv-datera-0"} // in all modes the same claim
	if mode == AttachNone {
		changes[keySecret+"username"], changes[keySecret+"password"] = secretOf("admin"), secretOf(canaryPassword)
	}
	return optionsWith(changes)
}

func TestSecretsStaySecretInEveryCallModeAndFault(t *testing.T) {
	faults := map[string][]dateratest.Fault{
		"none":        nil,
		"busy":        {{Name: dateratest.Unavailable, Value: "2"}},
		"cut off":     {{Name: dateratest.Cut, Value: "20"}},
		"lost":        {{Name: dateratest.LoseAnswer, Value: "3"}},
		"expired":     {{Name: dateratest.Expire, Count: 5}},
		"failed":      {{Name: dateratest.OpState, Value: "failed"}},
		"no answer":   {{Name: dateratest.Slow, Value: "1m"}},
		"no login":    {{Name: dateratest.Unavailable, Path: "^/login"}},
		"no creation": {{Name: dateratest.Cut, Value: "0", Method: "POST|PUT"}},
	}
	for _, mode := range []AttachMode{AttachController, AttachKubelet, AttachNone} {
		for name, set := range faults {
			t.Run(string(mode)+", "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { keepsSecretsUnder(t, mode, set) })
			})
		}
	}
}

func keepsSecretsUnder(t *testing.T, mode AttachMode, faults []dateratest.Fault) {
	server, err := dateratest.New(dateratest.Options{Password: canaryPassword})
	require.NoError(t, err)
	n, logged := canaryNode(t, server, mode)
	if mode == AttachController {
		require.NoError(t, server.RegisterInitiator(n.iqn, InitiatorName(n.Config.Cluster, n.name)))
	}
	for _, fault := range faults {
		require.NoError(t, server.SetFault(fault))
	}
	said := n.callAll(t, secretOptions(mode), 10*time.Second)
	if len(faults) == 0 {
		require.Contains(t, logged.String(), "request to the array", "the log is off")
		require.NotContains(t, said, `"Failure","message":"volume`, "the calls do not reach their end: %s", said)
		auth, err := server.Do("/root", "GET", "/app_instances/pv-datera-0", nil)
		require.NoError(t, err)
		require.Contains(t, fmt.Sprint(auth), "chap-user", "CHAP was never set")
	}
	n.keepsSecrets(t, said, logged)
	require.NoError(t, server.Close(context.WithoutCancel(t.Context()))) // whoever waits for a slow answer need not any more
}

// An array, or whoever stands in its place, repeats all that it was sent, in every way that there is.
func TestSecretsStaySecretWhenTheArrayRepeatsThem(t *testing.T) {
	answers := map[string]func(http.ResponseWriter, string){
		"in an error": func(w http.ResponseWriter, sent string) {
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(map[string]any{"name": "ValidationFailedError", "message": sent, "errors": []string{sent}})
		},
		"as text": func(w http.ResponseWriter, sent string) { http.Error(w, sent, http.StatusInternalServerError) },
		"in a redirect": func(w http.ResponseWriter, sent string) {
			w.Header().Set("Location", "http://other.example/"+sent)
			w.WriteHeader(http.StatusFound)
		},
		"as data": func(w http.ResponseWriter, sent string) { _ = json.NewEncoder(w).Encode(map[string]any{"data": sent}) },
		"as a name": func(w http.ResponseWriter, sent string) {
			_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{"name": sent, "id": sent, "path": sent, "admin_state": sent, "op_state": sent}})
		},
	}
	for name, answer := range answers {
		for _, mode := range []AttachMode{AttachController, AttachNone} {
			t.Run(string(mode)+", "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					n, logged := canaryNode(t, array(t), mode)
					n.way = handled(func(w http.ResponseWriter, r *http.Request) {
						body, _ := io.ReadAll(r.Body)
						if strings.HasSuffix(r.URL.Path, "/login") && strings.Contains(string(body), canaryPassword) && name != "as text" {
							fmt.Fprint(w, `{"key":"canary-key"}`)
							return
						}
						answer(w, fmt.Sprint(r.Header)+string(body)+canaryPassword)
					})
					said := n.callAll(t, secretOptions(mode), time.Second)
					n.keepsSecrets(t, said, logged)
					if name != "as a name" { // what the array calls a name is one
						require.NotContains(t, said+logged.String(), "canary-key", "the session's key is shown")
					}
				})
			})
		}
	}
}

// handled is the way to an array that is a function.
func handled(array http.HandlerFunc) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		if r.Body == nil {
			r.Body = http.NoBody
		}
		array(w, r)
		response := w.Result()
		response.Request = r
		return response, nil
	})
}

// Whoever may make Secrets may name a server in one. The secrets of CHAP open all volumes of the configured array.
func TestCHAPIsToldToNoOtherArray(t *testing.T) {
	own, foreign := array(t), array(t)
	n := newNode(t, own, "node-a", attachMode(AttachNone), func(c *Config) { c.CHAP = CHAPConfig{Username: "chap-user", Password: "chap-secret-1"} })
	n.reaches("foreign.test", foreign)
	n.ask(t, "mount", podPath, optionsOn("foreign.test"))
	require.Empty(t, chapUser(t, foreign), "a server that a pod's secret names was told the secrets of CHAP")
	n.ask(t, "mount", otherPod, optionsOn("sim.test"))
	require.Equal(t, "chap-user", chapUser(t, own))
}

// chapUser is whom the volume on an array asks for.
func chapUser(t *testing.T, server *dateratest.Server) string {
	t.Helper()
	ai, err := mustArray(t, newNode(t, server, "onlooker")).AppInstance(t.Context(), "kube-pv-datera-0")
	require.NoError(t, err)
	instance, err := ai.StorageInstance()
	require.NoError(t, err)
	return instance.Auth.TargetUserName
}
