package datera

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	password = "canary-Pa55word"
	iqn      = "iqn.1993-08.org.debian:01:abc123"
	siPath   = "/app_instances/b1ac5967-12aa-4959-b24c-c60dd40d0a13/storage_instances/storage-1"
	volPath  = siPath + "/volumes/volume-1"
)

// call is a request as the array got it.
type call struct {
	Method string          `json:"method"`
	Path   string          `json:"path"`
	Query  string          `json:"query,omitempty"`
	Body   json.RawMessage `json:"body,omitempty"`
	header http.Header
}

// array answers logins itself and everything else by answer, and records what it is asked.
type array struct {
	*httptest.Server
	answer http.HandlerFunc

	mu     sync.Mutex
	calls  []call
	logins int
	key    string // the only valid one
	anyKey bool   // do not check keys
}

func newArray(t testing.TB, answer http.HandlerFunc) *array {
	a := &array{answer: answer}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

func (a *array) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	a.mu.Lock()
	a.calls = append(a.calls, call{Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, Body: body, header: r.Header})
	switch {
	case r.URL.Path == "/v2.2/login" || r.URL.Path == "/v2.1/login":
		var credentials struct{ Name, Password string }
		_ = json.Unmarshal(body, &credentials)
		if credentials.Password != password {
			a.mu.Unlock()
			refuse(w, 401, "AuthFailedError", "no user "+credentials.Name+" with password "+credentials.Password)
			return
		}
		a.logins++
		if a.key == "" {
			a.key = "canary-key-" + string(rune('a'+a.logins))
		}
		key := a.key
		a.mu.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]any{"key": key, "version": "v2.2", "request_time": 12})
		return
	case r.Header.Get("Auth-Token") != a.key && !a.anyKey:
		a.mu.Unlock()
		refuse(w, 401, "AuthFailedError", "the key "+r.Header.Get("Auth-Token")+" does not correspond to a valid session")
		return
	}
	a.mu.Unlock()
	a.answer(w, r)
}

// expire makes the array forget its session.
func (a *array) expire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.key = ""
}

func (a *array) loginCount() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.logins
}

// recorded returns the calls but for logins.
func (a *array) recorded() []call {
	a.mu.Lock()
	defer a.mu.Unlock()
	var calls []call
	for _, c := range a.calls {
		if c.Path != "/v2.2/login" && c.Path != "/v2.1/login" {
			calls = append(calls, c)
		}
	}
	return calls
}

func refuse(w http.ResponseWriter, status int, name, message string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"name": name, "http": status, "code": 7, "message": message, "errors": []string{}})
}

func data(w http.ResponseWriter, v any) {
	_ = json.NewEncoder(w).Encode(map[string]any{"data": v, "version": "v2.2", "request_time": 3})
}

// listOf answers with a list and its length.
func listOf(elements ...any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"data": append([]any{}, elements...), "metadata": map[string]any{"total_count": len(elements)}})
	}
}

// always answers with the same data.
func always(v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { data(w, v) }
}

// appInstance is a whole app instance as the array shows it.
func appInstance(name string) map[string]any {
	const id = "b1ac5967-12aa-4959-b24c-c60dd40d0a13"
	return map[string]any{"path": "/app_instances/" + id, "name": name, "id": id, "admin_state": "online", "storage_instances": []any{}}
}

func initiator(id, name, tenant string) map[string]any {
	return map[string]any{"path": "/initiators/" + id, "id": id, "name": name, "tenant": tenant}
}

// inTurn answers the first request with the first handler and so on, the last one for ever.
func inTurn(handlers ...http.HandlerFunc) http.HandlerFunc {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		h := handlers[0]
		if len(handlers) > 1 {
			handlers = handlers[1:]
		}
		mu.Unlock()
		h(w, r)
	}
}

func refusing(status int, name, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { refuse(w, status, name, message) }
}

func busy(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(503)
	_, _ = io.WriteString(w, `{"message":"failing over"}`)
}

// hangUp closes the connection instead of answering.
func hangUp(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.Close()
	}
}

// cutShort announces more than it sends.
func cutShort(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	_, _ = io.WriteString(w, `{"data":{"name":"v`)
}

func (a *array) config() Config {
	return Config{Scheme: "http", Address: a.Listener.Addr().String(), Username: "admin", Password: password}
}

func (a *array) client(t testing.TB) *Client { return connect(t, a.config()) }

func connect(t testing.TB, config Config) *Client {
	c, err := New(config)
	require.NoError(t, err)
	return c
}

// virtual runs a test in virtual time, with an array that answers without sockets.
func virtual(t *testing.T, answer http.HandlerFunc, run func(*testing.T, *array, *Client)) {
	synctest.Test(t, func(t *testing.T) {
		a := &array{answer: answer}
		run(t, a, connect(t, Config{Scheme: "http", Address: "array.test", Username: "admin", Password: password, Transport: a}))
	})
}

// RoundTrip makes an array a transport to itself. A handler that gives up has broken the connection.
func (a *array) RoundTrip(r *http.Request) (answer *http.Response, err error) {
	sent := r.Clone(r.Context())
	if r.Body == nil {
		sent.Body = http.NoBody
	}
	done := make(chan *http.Response, 1)
	go func() {
		w := httptest.NewRecorder()
		defer func() {
			if recover() != nil {
				close(done)
				return
			}
			done <- w.Result()
		}()
		a.ServeHTTP(w, sent)
	}()
	select {
	case answer, whole := <-done:
		if !whole {
			return nil, io.EOF
		}
		return answer, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// breakOff ends the connection of a virtual array.
func breakOff(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// golden compares with a file; DATERA_UPDATE=1 writes it.
func golden(t *testing.T, name string, got any) {
	t.Helper()
	file := filepath.Join("testdata", name+".json")
	text, err := json.MarshalIndent(got, "", "  ")
	require.NoError(t, err)
	text = append(text, '\n')
	if os.Getenv("DATERA_UPDATE") != "" {
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, text, 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), string(text), "requests differ from %s; DATERA_UPDATE=1 writes it", file)
}
