package access_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/driver"
)

// No field of any answer is trusted alone: whichever one is wrong, no call says Success of what is not so on the array.
func TestAWrongFieldInAnAnswerLeadsToNoFalseSuccess(t *testing.T) {
	holds := func(w *mutated, node string) bool {
		ai, found := w.server.AppInstance("/root", w.volume)
		return found && slices.Contains(ai.Allowed, iqnOf(node))
	}
	there := func(w *mutated) bool { _, found := w.server.AppInstance("/root", w.volume); return found }
	attached := func(w *mutated) { w.mustCall("attach", w.options("ro"), "node-a") }
	tests := map[string]struct {
		before func(w *mutated)
		call   func(w *mutated) (success bool, claims string)
		isSo   func(w *mutated, claims string) bool
	}{
		"attach, first ever": {
			call: func(w *mutated) (bool, string) { return w.call("attach", w.options("rw"), "node-a") },
			isSo: func(w *mutated, _ string) bool { return holds(w, "node-a") },
		},
		"attach beside a reader": {
			before: attached,
			call:   func(w *mutated) (bool, string) { return w.call("attach", w.options("ro"), "node-b") },
			isSo:   func(w *mutated, _ string) bool { return holds(w, "node-a") && holds(w, "node-b") },
		},
		"attach where another node reads": {
			before: attached,
			call:   func(w *mutated) (bool, string) { return w.call("attach", w.options("rw"), "node-b") },
			isSo:   func(w *mutated, _ string) bool { return !holds(w, "node-a") && holds(w, "node-b") },
		},
		"isattached": {
			before: attached,
			call:   func(w *mutated) (bool, string) { return w.call("isattached", w.options("ro"), "node-a") },
			isSo:   func(w *mutated, claims string) bool { return claims == "true" },
		},
		"isattached, of another node": {
			before: attached,
			call:   func(w *mutated) (bool, string) { return w.call("isattached", w.options("ro"), "node-b") },
			isSo:   func(w *mutated, claims string) bool { return claims == "false" },
		},
		"detach": {
			before: attached,
			call:   func(w *mutated) (bool, string) { return w.call("detach", w.pv, "node-a") },
			isSo:   func(w *mutated, _ string) bool { return !holds(w, "node-a") },
		},
		"detach of one of two": {
			before: func(w *mutated) { attached(w); w.mustCall("attach", w.options("ro"), "node-b") },
			call:   func(w *mutated) (bool, string) { return w.call("detach", w.pv, "node-a") },
			isSo:   func(w *mutated, _ string) bool { return !holds(w, "node-a") && holds(w, "node-b") },
		},
		"delete": {
			before: func(w *mutated) { attached(w); w.mustCall("detach", w.pv, "node-a") },
			call:   (*mutated).delete,
			isSo:   func(w *mutated, _ string) bool { return !there(w) },
		},
		"delete of a volume in use": {
			before: attached,
			call:   (*mutated).delete,
			isSo:   func(w *mutated, _ string) bool { return false },
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp(memory(), "mutation-")
			require.NoError(t, err)
			defer func() { require.NoError(t, os.RemoveAll(dir)) }()
			synctest.Test(t, func(t *testing.T) {
				var server *dateratest.Server
				plays := 0
				play := func(m mutation) (*mutated, bool, string) {
					if plays++; plays%25 == 1 { // each play has a volume of its own; a new array now and then keeps lists short
						server = newServer(t)
					}
					w := newMutated(t, server, filepath.Join(dir, fmt.Sprint(plays)), plays)
					if test.before != nil {
						test.before(w)
					}
					w.mutation, w.armed = m, true
					success, claims := test.call(w)
					w.armed = false
					return w, success, claims
				}
				clean, success, claims := play(mutation{answer: -1})
				require.Equal(t, test.isSo(clean, claims), success, "without a mutation: %s", claims)
				tried, played := 0, 0
				for i, answer := range clean.answers {
					for _, m := range mutations(i, answer) {
						if tried++; tried%everyMutation != 0 || isInvisible(answer, m.apply(answer)) {
							continue
						}
						played++
						w, success, claims := play(m)
						if success && !test.isSo(w, claims) {
							t.Errorf("answer %d (%s), %s: Success, and it is not so: %s", i, clean.requests[i], m, claims)
						}
					}
				}
				t.Logf("%d answers, %d mutations, %d of them visible", len(clean.answers), tried, played)
				require.Greater(t, tried, 50)
			})
		})
	}
}

// A mutation is one field of one answer with another value; removed if value is absent.
type mutation struct {
	answer int
	path   []any // keys and indices
	value  any
}

type absent struct{}

func (m mutation) String() string { return fmt.Sprintf("%v = %#v", m.path, m.value) }

// mutations are all of an answer: each field null, {}, "", another name, or removed.
func mutations(i int, answer []byte) []mutation {
	var document any
	if json.Unmarshal(answer, &document) != nil {
		return nil
	}
	var all []mutation
	var walk func(value any, path []any)
	walk = func(value any, path []any) {
		if len(path) > 0 {
			for _, other := range []any{nil, map[string]any{}, "", "another-name"} {
				all = append(all, mutation{i, path, other})
			}
			if _, inObject := path[len(path)-1].(string); inObject {
				all = append(all, mutation{i, path, absent{}})
			}
		}
		switch value := value.(type) {
		case map[string]any:
			for _, key := range slices.Sorted(maps.Keys(value)) {
				walk(value[key], append(slices.Clone(path), key))
			}
		case []any:
			for index := range value {
				walk(value[index], append(slices.Clone(path), index))
			}
		}
	}
	walk(document, nil)
	return all
}

func (m mutation) apply(answer []byte) []byte {
	var document any
	if json.Unmarshal(answer, &document) != nil {
		return answer
	}
	at := document
	for _, key := range m.path[:len(m.path)-1] {
		switch key := key.(type) {
		case string:
			at = at.(map[string]any)[key]
		case int:
			at = at.([]any)[key]
		}
	}
	switch last := m.path[len(m.path)-1].(type) {
	case string:
		if _, removed := m.value.(absent); removed {
			delete(at.(map[string]any), last)
		} else {
			at.(map[string]any)[last] = m.value
		}
	case int:
		at.([]any)[last] = m.value
	}
	changed, err := json.Marshal(document)
	if err != nil {
		panic(err)
	}
	return changed
}

// isInvisible reports whether two answers read as the same app instance, so that no caller of the client can tell them apart.
func isInvisible(a, b []byte) bool {
	var one, other struct{ Data *datera.AppInstance }
	if json.Unmarshal(a, &one) != nil || json.Unmarshal(b, &other) != nil || one.Data == nil || one.Data.ID == "" {
		return false
	}
	return reflect.DeepEqual(one, other)
}

// mutated is a control plane whose way to the array changes one answer.
type mutated struct {
	t          *testing.T
	server     *dateratest.Server
	driver     *driver.Driver
	pv, volume string
	mutation   mutation
	armed      bool
	requests   []string
	answers    [][]byte
}

func iqnOf(node string) string { return "iqn.1993-08.org.debian:01:" + node }

func newServer(t *testing.T) *dateratest.Server {
	server, err := dateratest.New(dateratest.Options{})
	require.NoError(t, err)
	for _, node := range []string{"node-a", "node-b"} {
		require.NoError(t, server.RegisterInitiator(iqnOf(node), driver.InitiatorName("kubernetes", node)))
	}
	return server
}

func newMutated(t *testing.T, server *dateratest.Server, dir string, n int) *mutated {
	w := &mutated{t: t, server: server, pv: fmt.Sprintf("pv-%d", n), volume: fmt.Sprintf("vol-%d", n)}
	config, err := driver.LoadConfig([]string{filepath.Join(dir, "none"), filepath.Join(dir, "none-either")}, func(name string) string {
		return map[string]string{"DAT_MGMT": "sim.test", "DAT_USER": "admin", "DAT_PASS": "password"}[name]
	})
	require.NoError(t, err)
	config.RunDir, config.StateDir, config.Scheme = dir, dir, "http"
	w.driver = &driver.Driver{Config: config, Log: slog.New(slog.DiscardHandler), OpenArray: func(scheme string, c driver.Credentials, tenant string) (driver.Array, error) {
		return datera.New(datera.Config{Address: c.Server.String(), Scheme: scheme, Username: c.Username, Password: c.Password, Tenant: tenant, Transport: w})
	}}
	return w
}

// RoundTrip notes the answers of the call under test, and changes one.
func (w *mutated) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := w.server.Transport().RoundTrip(r)
	if err != nil || !w.armed || strings.HasSuffix(r.URL.Path, "/login") {
		return answer, err
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if len(w.answers) == w.mutation.answer {
		body = w.mutation.apply(body)
		answer.ContentLength = int64(len(body))
		answer.Header.Del("Content-Length")
	}
	w.requests, w.answers = append(w.requests, r.Method+" "+r.URL.RequestURI()), append(w.answers, body)
	answer.Body = io.NopCloser(bytes.NewReader(body))
	return answer, nil
}

func (w *mutated) options(access string) string {
	return fmt.Sprintf(`{"kubernetes.io/fsType":"xfs","kubernetes.io/pvOrVolumeName":%q,"kubernetes.io/readwrite":%q,"volumeID":%q,"size":"1","replica":"1","retainPolicy":"never"}`, w.pv, access, w.volume)
}

func (w *mutated) call(words ...string) (success bool, claims string) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 100*time.Second)
	defer cancel()
	reply := w.driver.Serve(ctx, words)
	if reply.Attached != nil {
		return reply.Status == driver.Success, fmt.Sprint(*reply.Attached)
	}
	return reply.Status == driver.Success, reply.Message
}

func (w *mutated) mustCall(words ...string) {
	success, message := w.call(words...)
	require.True(w.t, success, "%v: %s", words, message)
}

func (w *mutated) delete() (success bool, claims string) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 100*time.Second)
	defer cancel()
	volume, err := driver.ParseVolume(w.options("rw"), "kubernetes")
	require.NoError(w.t, err)
	err = w.driver.Delete(ctx, volume)
	return err == nil, fmt.Sprint(err)
}
