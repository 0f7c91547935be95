package dateratest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"datera-flexvolume/datera/dateratest"
)

// TestBodiesOfAnyContentType sends what curl and the vendor's clients send. No password comes back, whatever is wrong with
// a body, and none is in the log.
func TestBodiesOfAnyContentType(t *testing.T) {
	const form, secret = "application/x-www-form-urlencoded", "PaSs-w0rd"
	var log bytes.Buffer
	array := dateratest.Start(t, dateratest.WithUser("admin", secret), dateratest.WithOptions(func(o *dateratest.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}))
	c := &caller{t: t, base: array.URL, version: "v2.2", web: &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(c.web.CloseIdleConnections)
	for name, test := range map[string]struct {
		contentType, body string
		status            int
	}{
		"JSON without a header":  {"", `{"name":"admin","password":"` + secret + `"}`, 200},
		"JSON called a form":     {form, ` {"name":"admin","password":"` + secret + `"}`, 200},
		"JSON called text":       {"text/plain", `{"name":"admin","password":"` + secret + `"}`, 200},
		"JSON, odd header":       {"///;;;", `{"name":"admin","password":"` + secret + `"}`, 200},
		"a form":                 {form + "; charset=utf-8", `name=admin&password=` + secret, 200},
		"others beside":          {"", `{"name":"admin","password":"` + secret + `","tenant":"` + secret + `"}`, 200},
		"half, called a form":    {form, `{"name":"admin","password":"` + secret, 400},
		"half":                   {"", `{"name":"admin","password":"` + secret, 400},
		"a list":                 {form, `[{"name":"admin","password":"` + secret + `"}]`, 400},
		"two":                    {"", `{"name":"admin","password":"` + secret + `"}{}`, 400},
		"quoted, called a form":  {form, `"{"name":"admin","password":"` + secret + `"}"`, 422},
		"a broken form":          {form, `name=admin&password=` + secret + `%`, 400},
		"only the password":      {form, secret, 422},
		"the password as object": {"", `{"name":"admin","password":{"` + secret + `":"` + secret + `"}}`, 422},
		"a broken multipart":     {"multipart/form-data", secret, 400},
		"an empty form":          {form, "", 422},
	} {
		t.Run(name, func(t *testing.T) {
			c.t = t
			resp, err := c.send("PUT", "/v2.2/login", strings.NewReader(test.body), test.contentType)
			require.NoError(t, err)
			a := c.read(resp)
			require.Equal(t, test.status, a.status, "%s", a.raw)
			require.NotContains(t, string(a.raw), secret)
		})
	}
	c.t = t
	resp, err := c.send("POST", "/v2.2/app_instances", strings.NewReader("name="+secret), form)
	require.NoError(t, err)
	require.Equal(t, 400, c.read(resp).status, "only a login comes as a form")
	c.key = c.do("PUT", "/login", js{"name": "admin", "password": secret}).body["key"].(string)
	for name, test := range map[string]struct{ method, path, body string }{
		"unknown property":         {"POST", "/app_instances", `{"name":"pv-1","pass word ` + secret + `":"x"}`},
		"value of an unknown one":  {"POST", "/app_instances", `{"name":"pv-1","colour":"` + secret + `"}`},
		"a user's password":        {"POST", "/users", `{"user_id":"operator","full_name":"Operator","password":"1` + secret + `"}`},
		"CHAP password too long":   {"PUT", si + "/auth", `{"type":"chap","target_user_name":"user","target_pswd":"` + secret + secret + secret + `"}`},
		"a key of object storage":  {"PUT", "/app_instances/none/metadata", `{"secret_key":"` + secret + `"}`},
		"an unknown name, too big": {"PUT", "/app_instances/none/metadata", `{"` + strings.Repeat(secret, 9) + `":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			c.t = t
			a := c.do(test.method, test.path, test.body)
			require.GreaterOrEqual(t, a.status, 400)
			require.NotContains(t, string(a.raw), secret)
		})
	}
	shown, err := json.Marshal(array.Requests())
	require.NoError(t, err)
	require.Contains(t, string(shown), "/login")
	require.NotContains(t, strings.ReplaceAll(string(shown), `"colour":"`+secret, ""), secret, "what has a name is shown")
	require.Contains(t, log.String(), "path=/login")
	require.NotContains(t, log.String(), secret)
}

// TestUploadOfLogs is what the vendor's Go client does with the logs of a node.
func TestUploadOfLogs(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	require.NoError(t, w.WriteField("ecosystem", "kubernetes"))
	part, err := w.CreateFormFile("logs.tar.gz", "/var/log/logs.tar.gz")
	require.NoError(t, err)
	_, err = part.Write(make([]byte, 2<<20))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	resp, err := c.send("PUT", "/v2.2/logs_upload", &body, w.FormDataContentType())
	require.NoError(t, err)
	a := c.read(resp)
	require.Equal(t, 200, a.status, "%s", a.raw)
	calls := array.Requests()
	require.Equal(t, js{"ecosystem": "kubernetes", "logs.tar.gz": "2097152"}, calls[len(calls)-1].Body)
}

func TestExpiredKeyIsRefusedInTheWordsOfTheArray(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	array.ExpireKeys()
	require.Equal(t, "The key provided with the request does not correspond to a valid session.",
		c.fails(401, "AuthFailedError", "GET", "/system", nil)["message"])
}

// TestRefusalAnswersFirst sets the fault that closes all connections over one of them.
func TestRefusalAnswersFirst(t *testing.T) {
	for name, test := range map[string]struct{ path, body, want string }{
		"one":  {"/sim/faults/refuse", `{"value":"1h"}`, `[{"name":"slow","value":"0s"}]`},
		"many": {"/sim/faults", `[{"name":"cut","value":"0","path":"^/nowhere$"},{"name":"refuse","value":"1h"}]`, `[{"name":"cut","value":"0","path":"^/nowhere$"}]`},
	} {
		t.Run(name, func(t *testing.T) {
			array := dateratest.Start(t)
			c := connect(t, array)
			set(t, array, dateratest.Fault{Name: dateratest.Slow, Value: "0s"})
			resp, err := c.send("PUT", test.path, strings.NewReader(test.body), "")
			require.NoError(t, err)
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err, "the answer is whole")
			require.Equal(t, 200, resp.StatusCode)
			require.JSONEq(t, test.want, string(text))
			for !errors.Is(err, unix.ECONNREFUSED) { // the refusal begins right behind the answer
				_, err = tcp(array.Address())
			}
		})
	}
}
