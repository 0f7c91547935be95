package dateratest_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

func TestFaultAnswer(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	for value, test := range map[string]struct {
		retryAfter, contentType, says string
	}{
		"429":                  {"2", "application/json; charset=utf-8", `{"message":"Too Many Requests"}`},
		"500":                  {"", "application/json; charset=utf-8", "REST server is still initializing"},
		"500 the disk is full": {"", "application/json; charset=utf-8", "the disk is full"},
		"502":                  {"", "text/html", "<h1>502 Bad Gateway</h1>"},
		"504 upstream is away": {"", "text/html", "<h1>504 upstream is away</h1>"},
		"403":                  {"", "application/json; charset=utf-8", `"name":"PermissionDeniedError"`},
		"422 a field is wrong": {"", "application/json; charset=utf-8", `"message":"a field is wrong"`},
	} {
		t.Run(value, func(t *testing.T) {
			set(t, array, dateratest.Fault{Name: dateratest.Answer, Value: value, Path: "^/system$", Count: 1, RetryAfter: test.retryAfter})
			resp, err := c.send("GET", "/v2.2/system", http.NoBody, "")
			require.NoError(t, err)
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, value[:3], fmt.Sprint(resp.StatusCode))
			require.Equal(t, test.retryAfter, resp.Header.Get("Retry-After"))
			require.Equal(t, test.contentType, resp.Header.Get("Content-Type"))
			require.Contains(t, string(text), test.says)
			c.ok("GET", "/system", nil)
		})
	}
}

func TestFaultAnswerAfter(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	set(t, array, dateratest.Fault{Name: dateratest.Answer, Value: "503", Method: "POST", Count: 1})
	require.Equal(t, 503, c.do("POST", "/app_instances", simple("pv-1", 1)).status)
	require.Empty(t, array.AppInstances("/root"), "in place of the work")
	set(t, array, dateratest.Fault{Name: dateratest.AnswerAfter, Value: "429", Method: "POST", Count: 1})
	require.Equal(t, 429, c.do("POST", "/app_instances", simple("pv-1", 1)).status)
	require.Equal(t, []string{"pv-1"}, array.AppInstances("/root"), "after the work")
	set(t, array, dateratest.Fault{Name: dateratest.AnswerAfter, Value: "429", Method: "POST", Count: 1})
	require.Equal(t, 429, c.do("POST", "/app_instances", simple("pv-1", 1)).status, "in place of another error, too")
}

func TestFaultsOfLists(t *testing.T) {
	array := dateratest.Start(t)
	c := connect(t, array)
	for i := range 7 {
		c.ok("POST", "/app_instances", js{"name": fmt.Sprintf("pv-%d", i)})
	}
	names := func(query string) (names []any, about js) {
		a := c.do("GET", "/app_instances"+query, nil)
		require.Equal(t, 200, a.status, "%s", a.raw)
		for _, ai := range a.body["data"].([]any) {
			names = append(names, ai.(js)["name"])
		}
		return names, a.body["metadata"].(js)
	}
	set(t, array, dateratest.Fault{Name: dateratest.RefuseFilter})
	c.fails(400, "InvalidRequestError", "GET", "/app_instances?filter=name=pv-1", nil)
	got, _ := names("")
	require.Len(t, got, 7)

	array.ClearFaults()
	set(t, array, dateratest.Fault{Name: dateratest.ShortList, Value: "3", Path: "^/app_instances$"})
	got, about := names("?limit=2&offset=2")
	require.Equal(t, []any{"pv-2"}, got)
	require.EqualValues(t, 7, about["total_count"])
	got, _ = names("?offset=3")
	require.Empty(t, got)

	array.ClearFaults()
	set(t, array, dateratest.Fault{Name: dateratest.NoOffset})
	got, about = names("?limit=2&offset=2")
	require.Equal(t, []any{"pv-0", "pv-1"}, got)
	require.Equal(t, js{"total": 7.0}, about)

	c.ok("POST", "/app_instances", simple("pv-9", 1))
	set(t, array, dateratest.Fault{Name: dateratest.NoActiveInitiators})
	require.NotContains(t, c.ok("GET", "/app_instances/pv-9/storage_instances/storage-1", nil), "active_initiators")
	array.ClearFaults()
	require.Contains(t, c.ok("GET", "/app_instances/pv-9/storage_instances/storage-1", nil), "active_initiators")
}
