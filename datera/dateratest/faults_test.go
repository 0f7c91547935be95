package dateratest_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"datera-flexvolume/datera/dateratest"
)

func set(t *testing.T, s *dateratest.Server, f dateratest.Fault) {
	t.Helper()
	require.NoError(t, s.SetFault(f))
}

func TestFaultUnavailable(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	set(t, array, dateratest.Fault{Name: dateratest.Unavailable, Value: "2", Path: "^/system$"})
	c.ok("GET", "/storage_nodes", nil)
	for range 2 {
		a := c.do("GET", "/system", nil)
		require.Equal(t, 503, a.status)
		require.Len(t, a.body, 1, "nothing but a message: %s", a.raw)
	}
	c.ok("GET", "/system", nil)
	require.Empty(t, array.Faults())
}

func TestFaultForAWhile(t *testing.T) {
	now := time.Unix(1000, 0)
	array := dateratest.Start(t, dateratest.WithOptions(func(o *dateratest.Options) { o.Now = func() time.Time { return now } }))
	c := connect(t, array)
	set(t, array, dateratest.Fault{Name: dateratest.Unavailable, Value: "5s", Method: "PUT|POST"})
	c.ok("GET", "/system", nil)
	require.Equal(t, 503, c.do("PUT", "/logout", nil).status)
	now = now.Add(5 * time.Second)
	c.ok("PUT", "/logout", nil)
}

func TestFaultRefuse(t *testing.T) {
	for name, trigger := range map[string]dateratest.Fault{
		"at once":    {Name: dateratest.Refuse, Value: "100ms"},
		"at request": {Name: dateratest.Refuse, Value: "100ms", Path: "^/system$", Count: 1},
	} {
		t.Run(name, func(t *testing.T) {
			array := dateratest.Start(t)
			c := connect(t, array)
			c.ok("GET", "/storage_nodes", nil)
			set(t, array, trigger)
			_, err := c.send("GET", "/v2.2/system", http.NoBody, "")
			require.Error(t, err)
			_, err = tcp(array.Address())
			require.ErrorIs(t, err, unix.ECONNREFUSED)
			set(t, array, dateratest.Fault{Name: dateratest.Refuse, Value: "1ns"}) // while it refuses already: no harm
			require.Eventually(t, func() bool { _, err := tcp(array.Address()); return err == nil }, 5*time.Second, 5*time.Millisecond)
			c.ok("GET", "/system", nil)
		})
	}
}

func TestRefusingFromTheStart(t *testing.T) {
	array := dateratest.Start(t, dateratest.WithOptions(func(o *dateratest.Options) {
		o.Faults = []dateratest.Fault{{Name: dateratest.Refuse, Value: "1h"}}
	}))
	_, err := tcp(array.Address())
	require.ErrorIs(t, err, unix.ECONNREFUSED) // and the end of the test does not wait for the hour
}

func TestFaultSlow(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	set(t, array, dateratest.Fault{Name: dateratest.Slow, Value: "60ms", Path: "/system"})
	began := time.Now()
	c.ok("GET", "/system", nil)
	require.GreaterOrEqual(t, time.Since(began), 60*time.Millisecond)
	set(t, array, dateratest.Fault{Name: dateratest.Slow, Value: "1h", Path: "/system"})
	require.Len(t, array.Faults(), 1, "the same again replaces")
	c.web.Timeout = 50 * time.Millisecond
	_, err := c.send("GET", "/v2.2/system", http.NoBody, "")
	require.Error(t, err)
}

func TestFaultCut(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	set(t, array, dateratest.Fault{Name: dateratest.Cut, Value: "20", Count: 1})
	resp, err := c.send("GET", "/v2.2/system", http.NoBody, "")
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Len(t, text, 20)
	c.ok("GET", "/system", nil)
}

func TestFaultExpire(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	set(t, array, dateratest.Fault{Name: dateratest.Expire, Path: "^/app_instances"})
	c.ok("GET", "/system", nil)
	c.fails(401, "AuthFailedError", "GET", "/app_instances", nil)
	c.fails(401, "AuthFailedError", "GET", "/system", nil)
	c.login()
	c.ok("GET", "/app_instances", nil)
}

func TestFaultLoseAnswer(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	array.ResetRequests()
	set(t, array, dateratest.Fault{Name: dateratest.LoseAnswer, Method: "POST", Path: "^/app_instances$"})
	body, err := json.Marshal(simple("pv-1", 1))
	require.NoError(t, err)
	_, err = c.send("POST", "/v2.2/app_instances", onlyReader{bytes.NewReader(body)}, "application/json")
	require.Error(t, err)
	require.Equal(t, []string{"pv-1"}, array.AppInstances("/root"), "the work was done")
	require.True(t, array.Requests()[0].Lost)
	c.fails(409, "ConflictError", "POST", "/app_instances", simple("pv-1", 1))
}

// onlyReader keeps the HTTP client from sending a body again by itself.
type onlyReader struct{ io.Reader }

func TestFaultOpState(t *testing.T) {
	for value, want := range map[string]string{"never": "unavailable", "failed": "failed", "1h": "unavailable", "0s": "available"} {
		t.Run(value, func(t *testing.T) {
			array := dateratest.Start(t)
			c := connect(t, array)
			set(t, array, dateratest.Fault{Name: dateratest.OpState, Value: value, Path: "^/app_instances"})
			c.ok("POST", "/app_instances", simple("pv-1", 1))
			require.Equal(t, want, c.ok("GET", si, nil)["op_state"])
			array.ClearFaults(dateratest.OpState)
			c.ok("PUT", "/app_instances/pv-1", js{"admin_state": "offline"})
			c.ok("PUT", "/app_instances/pv-1", js{"admin_state": "online"})
			require.Equal(t, "available", c.ok("GET", si, nil)["op_state"])
		})
	}
}

func TestFaultAccessAndCapacity(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	set(t, array, dateratest.Fault{Name: dateratest.AccessLate, Value: "1h", Count: 1})
	made := c.ok("POST", "/app_instances", simple("pv-1", 1))
	require.Empty(t, at(t, made, "storage_instances", 0, "access", "ips"))
	require.NotEmpty(t, at(t, made, "storage_instances", 0, "access", "iqn"))
	set(t, array, dateratest.Fault{Name: dateratest.Capacity, Value: "5"})
	require.EqualValues(t, 5, c.ok("GET", vol, nil)["capacity_in_use"])
	set(t, array, dateratest.Fault{Name: dateratest.PortalDown, Value: "172.28.41.43"})
	require.Len(t, array.Faults(), 2)
	array.ClearFaults()
	require.EqualValues(t, 0, c.ok("GET", vol, nil)["capacity_in_use"])
}

func TestParseFault(t *testing.T) {
	for text, want := range map[string]dateratest.Fault{
		"expire":                            {Name: "expire"},
		"unavailable=3":                     {Name: "unavailable", Value: "3"},
		"answer=429 too many,retry-after=2": {Name: "answer", Value: "429 too many", RetryAfter: "2"},
		"slow=1s,method=PUT,path=^/x=y$,count=2,for=1m": {Name: "slow", Value: "1s", Method: "PUT", Path: "^/x=y$", Count: 2, For: "1m"},
	} {
		f, err := dateratest.ParseFault(text)
		require.NoError(t, err, text)
		require.Equal(t, want, f, text)
	}
	for text, says := range map[string]string{"": "unknown", "slow": "invalid duration", "slow=x": "invalid duration", "cut=x": "invalid syntax",
		"unavailable=x": "invalid syntax", "slow=1s,count=x": "not a number", "slow=1s,count=-1": "negative", "slow=1s,x=y": "none of",
		"slow=1s,method=(": "missing", "slow=1s,path=(": "missing", "slow=1s,for=x": "invalid duration", "portal-down=x": "unable to parse",
		"lose-answer=x": "invalid syntax", "refuse=": "invalid duration", "op-state=x": "invalid duration", "capacity=x": "invalid syntax", "cut=-1": "negative",
		"answer": "invalid syntax", "answer=x": "invalid syntax", "answer=99": "not the status", "answer-after=600": "not the status",
		"short-list=x": "invalid syntax", "refuse-filter=1": "takes no value"} {
		_, err := dateratest.ParseFault(text)
		require.ErrorContains(t, err, says, text)
	}
	_, err := dateratest.New(dateratest.Options{Faults: []dateratest.Fault{{Name: "odd"}}})
	require.ErrorContains(t, err, "unknown")
}

func TestSimAPI(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	sim := func(method, path, body string) (int, string) {
		t.Helper()
		resp, err := c.send(method, "/sim"+path, bytes.NewReader([]byte(body)), "")
		require.NoError(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(text)
	}
	for _, step := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/faults", "", 200, `[]`},
		{"PUT", "/faults/unavailable", `{"path":"^/system$","count":1}`, 200, `[{"name":"unavailable","path":"^/system$","count":1}]`},
		{"PUT", "/faults/expire", ``, 200, `[{"name":"unavailable","path":"^/system$","count":1},{"name":"expire","count":1}]`},
		{"DELETE", "/faults/expire", "", 200, `[{"name":"unavailable","path":"^/system$","count":1}]`},
		{"PUT", "/faults", `[{"name":"slow","value":"1ms"},{"name":"odd"}]`, 400, ""},
		{"PUT", "/faults", `{}`, 400, ""},
		{"PUT", "/faults/slow", `{"value":"1ms","colour":"red"}`, 400, ""},
		{"PUT", "/faults/slow", `{"value":"fast"}`, 400, ""},
		{"GET", "/faults", "", 200, `[{"name":"unavailable","path":"^/system$","count":1}]`},
		{"PUT", "/faults", `[{"name":"slow","value":"1ms"}]`, 200, `[{"name":"slow","value":"1ms"}]`},
		{"DELETE", "/faults", "", 200, `[]`},
		{"GET", "/requests", "", 200, `[{"method":"PUT","version":"v2.2","path":"/login","body":{"name":"admin"},"status":200}]`},
		{"DELETE", "/requests", "", 200, `[]`},
		{"POST", "/faults", "", 404, ""},
		{"GET", "", "", 404, ""},
	} {
		status, text := sim(step.method, step.path, step.body)
		require.Equal(t, step.status, status, "%s %s: %s", step.method, step.path, text)
		if step.want != "" {
			require.JSONEq(t, step.want, text, "%s %s", step.method, step.path)
		}
	}
	for _, remote := range []string{"10.0.0.9:1234", "nonsense"} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/sim/faults", nil)
		r.RemoteAddr = remote
		w := httptest.NewRecorder()
		array.ServeHTTP(w, r)
		require.Equal(t, http.StatusForbidden, w.Code, "from %s", remote)
	}
}

func TestRequests(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	c.tenant = "/root"
	array.ResetRequests()
	c.do("GET", "/app_instances?limit=1", nil)
	c.do("GET", "/app_instances/pv-1", nil)
	body := simple("pv-1", 1)
	body["storage_instances"].([]js)[0]["auth"] = js{"type": "chap", "target_user_name": "user", "target_pswd": "123456789012"}
	c.do("POST", "/app_instances", body)
	calls := array.Requests()
	require.Equal(t, []string{"GET /app_instances 200", "GET /app_instances/pv-1 404", "POST /app_instances 200"},
		[]string{calls[0].String(), calls[1].String(), calls[2].String()})
	require.Equal(t, "limit=1", calls[0].Query)
	require.Equal(t, "/root", calls[2].Tenant)
	require.Equal(t, "v2.2", calls[2].Version)
	require.Equal(t, js{"type": "chap", "target_user_name": "user"}, at(t, calls[2].Body, "storage_instances", 0, "auth"))
	_, err := array.Do("/root", "GET", "/app_instances/pv-1", nil)
	require.NoError(t, err)
	require.Len(t, array.Requests(), 3, "what the test itself does is not recorded")
	_, err = array.Do("/root", "GET", "/nothing", nil)
	require.ErrorContains(t, err, "GET /nothing")
	for _, wrong := range []struct {
		method, path string
		body         any
	}{{"GET", "/x", func() {}}, {"G E T", "/x", nil}, {"PUT", "/app_instances/pv-1", "text"}} {
		_, err = array.Do("/root", wrong.method, wrong.path, wrong.body)
		require.Error(t, err)
	}
	_, err = array.CreateAppInstance("pv-1", 1)
	require.ErrorContains(t, err, "ConflictError")
}
