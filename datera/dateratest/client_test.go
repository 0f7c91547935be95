package dateratest_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

// caller is a client without any opinion: it sends what it is told.
type caller struct {
	t       *testing.T
	base    string
	version string
	tenant  string
	key     string
	web     *http.Client
}

type answer struct {
	status int
	raw    []byte
	body   map[string]any
}

type js = map[string]any

func connect(t *testing.T, s *dateratest.Server) *caller {
	t.Helper()
	c := &caller{t: t, base: s.URL, version: "v2.2", web: &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(c.web.CloseIdleConnections)
	c.login()
	return c
}

func (c *caller) login() {
	c.t.Helper()
	a := c.do("PUT", "/login", js{"name": "admin", "password": "password"})
	require.Equal(c.t, http.StatusOK, a.status, "login: %s", a.raw)
	c.key = a.body["key"].(string)
}

func (c *caller) send(method, path string, body io.Reader, contentType string) (*http.Response, error) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.base+path, body)
	require.NoError(c.t, err)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	if c.key != "" {
		r.Header.Set("auth-token", c.key)
	}
	if c.tenant != "" {
		r.Header.Set("tenant", c.tenant)
	}
	return c.web.Do(r)
}

func (c *caller) do(method, path string, body any) answer {
	c.t.Helper()
	var text io.Reader = http.NoBody
	if s, ok := body.(string); ok {
		text = strings.NewReader(s)
	} else if body != nil {
		b, err := json.Marshal(body)
		require.NoError(c.t, err)
		text = bytes.NewReader(b)
	}
	resp, err := c.send(method, "/"+c.version+path, text, "application/json")
	require.NoError(c.t, err)
	return c.read(resp)
}

func (c *caller) read(resp *http.Response) answer {
	c.t.Helper()
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	a := answer{status: resp.StatusCode, raw: raw}
	require.NoError(c.t, json.Unmarshal(raw, &a.body), "every answer is a JSON object, not %q", raw)
	return a
}

// ok makes a call that has to succeed and returns its data.
func (c *caller) ok(method, path string, body any) js {
	c.t.Helper()
	a := c.do(method, path, body)
	require.Equal(c.t, http.StatusOK, a.status, "%s %s: %s", method, path, a.raw)
	data, _ := a.body["data"].(js)
	return data
}

// items makes a call that has to answer a list.
func (c *caller) items(path string) []any {
	c.t.Helper()
	a := c.do("GET", path, nil)
	require.Equal(c.t, http.StatusOK, a.status, "GET %s: %s", path, a.raw)
	list, isList := a.body["data"].([]any)
	require.True(c.t, isList, "GET %s: %s", path, a.raw)
	return list
}

// fails makes a call that has to fail with a status and an error name, and returns the error.
func (c *caller) fails(status int, name, method, path string, body any) js {
	c.t.Helper()
	a := c.do(method, path, body)
	require.Equal(c.t, status, a.status, "%s %s: %s", method, path, a.raw)
	require.Equal(c.t, name, a.body["name"], "%s %s: %s", method, path, a.raw)
	require.EqualValues(c.t, status, a.body["http"])
	require.NotContains(c.t, a.body, "data")
	for _, strings := range []string{"params", "connInfo"} {
		for k, v := range a.body[strings].(js) {
			require.IsType(c.t, "", v, "%s.%s", strings, k)
		}
	}
	return a.body
}

// at follows members and indexes into a decoded answer.
func at(t *testing.T, v any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch s := step.(type) {
		case string:
			m, ok := v.(js)
			require.True(t, ok, "%v: %v is no object", path, v)
			require.Contains(t, m, s)
			v = m[s]
		case int:
			l, ok := v.([]any)
			require.True(t, ok && len(l) > s, "%v: no element %d in %v", path, s, v)
			v = l[s]
		}
	}
	return v
}

func simple(name string, size int) js {
	return js{"name": name, "create_mode": "kubernetes", "storage_instances": []js{{"name": "storage-1",
		"ip_pool": js{"path": "/access_network_ip_pools/default"}, "auth": js{"type": "none"},
		"volumes": []js{{"name": "volume-1", "size": size, "replica_count": 3, "placement_mode": "hybrid", "performance_policy": js{}}}}}}
}

const (
	iqn1 = "iqn.1993-08.org.debian:01:node1"
	iqn2 = "iqn.1993-08.org.debian:01:node2"
	si   = "/app_instances/pv-1/storage_instances/storage-1"
	vol  = si + "/volumes/volume-1"
)

func tcp(address string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		err = conn.Close()
	}
	return conn, err
}
