package sdk

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

//go:embed calls.tsv
var table string

// call is one request of one exported call. What stands after "+" in its name tells it from others of the same call.
type call struct {
	name, since, method, target, body string
	status                            int
	reads                             string // what the client makes of the answer
	keep                              string // variable=field: what later requests need of the answer
	fault                             string // what the client does wrong here, so that it is refused or cannot read
}

// shape is the type that the client wants each field of an object to have, if it is there.
type shape map[string]string

func read(t *testing.T) (calls []call, shapes map[string]shape) {
	t.Helper()
	shapes = map[string]shape{}
	for number, line := range strings.Split(strings.TrimSpace(table), "\n") {
		cells := strings.Split(line, "\t")
		for i, cell := range cells {
			if cell == "-" {
				cells[i] = ""
			}
		}
		switch {
		case strings.HasPrefix(line, "#"):
		case cells[0] == "reads" && len(cells) == 4:
			if shapes[cells[1]] == nil {
				shapes[cells[1]] = shape{}
			}
			shapes[cells[1]][cells[2]] = cells[3]
		case cells[0] == "call" && len(cells) == 10:
			status, err := strconv.Atoi(cells[6])
			require.True(t, err == nil || cells[6] == "", "line %d: status %q", number+1, cells[6])
			calls = append(calls, call{cells[1], cells[2], cells[3], cells[4], cells[5], status, cells[7], cells[8], cells[9]})
		default:
			t.Fatalf("calls.tsv line %d: %q is neither a call nor what one reads", number+1, line)
		}
	}
	return calls, shapes
}

// TestClient makes every request of the vendor's client. A request that is sound has to succeed, and its answer has to be
// readable; one that is the client's own fault has to fail just as it says.
func TestClient(t *testing.T) {
	calls, shapes := read(t)
	require.Greater(t, len(calls), 130)
	for _, version := range []string{"v2.1", "v2.2", "v2.3"} {
		t.Run(version, func(t *testing.T) {
			c := &client{t: t, url: dateratest.Start(t).URL, version: version, values: map[string]string{}}
			c.login()
			for _, one := range calls {
				if one.method == "" {
					require.True(t, one.fault != "" || strings.HasSuffix(one.name, "Logout"), "%s: a call without a request needs a reason", one.name)
					continue
				}
				status, data, text := c.send(one)
				switch {
				case one.since > version:
					require.NotEqual(t, http.StatusOK, status, "%s exists since %s", one.name, one.since)
					continue
				case status != one.status:
					t.Errorf("%s: %s %s must end with status %d, not %d: %s", one.name, one.method, one.target, one.status, status, text)
					continue
				case one.status != http.StatusOK:
					require.NotEmpty(t, one.fault, "%s: a refusal needs a reason", one.name)
				}
				wanted, unreadable := strings.CutPrefix(one.reads, "not ")
				err := fits(shapes, wanted, data)
				switch {
				case wanted == "":
				case unreadable && err == nil:
					t.Errorf("%s can be read, although the client %s", one.name, one.fault)
				case !unreadable && err != nil:
					t.Errorf("%s: %s %s: the client cannot read the answer: %v", one.name, one.method, one.target, err)
				}
				c.keep(one, data)
			}
		})
	}
}

type client struct {
	t            *testing.T
	url, version string
	key          string
	values       map[string]string
}

func (c *client) login() {
	_, _, text := c.send(call{name: "login", method: "PUT", target: "/login", body: "name=admin&password=password"})
	var answer struct{ Key string }
	require.NoError(c.t, json.Unmarshal(text, &answer))
	require.NotEmpty(c.t, answer.Key)
	c.key = answer.Key
}

// send makes the request as the client does, which sends a body with GET, too.
func (c *client) send(one call) (status int, data any, text []byte) {
	target, body, kind := c.fill(one.target), c.fill(one.body), "application/json"
	switch one.target {
	case "/login":
		kind = "application/x-www-form-urlencoded"
	case "/logs_upload":
		body, kind = logs(c.t)
	}
	address := c.url + "/" + c.version + target
	if one.target == "/api_versions" {
		address = c.url + target
	}
	r, err := http.NewRequestWithContext(c.t.Context(), one.method, address, strings.NewReader(body))
	require.NoError(c.t, err)
	r.Header = http.Header{"Content-Type": {kind}, "Tenant": {"/root"}, "Auth-Token": {c.key}, "Datera-Driver": {"Golang-SDK-1.1.5"}}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(c.t, err)
	defer resp.Body.Close()
	text, err = io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	var envelope struct{ Data any }
	require.NoError(c.t, json.Unmarshal(text, &envelope), "%s: %s", one.name, text)
	return resp.StatusCode, envelope.Data, text
}

func (c *client) fill(text string) string {
	for name, value := range c.values {
		text = strings.ReplaceAll(text, "{"+name+"}", value)
	}
	return text
}

func (c *client) keep(one call, data any) {
	name, field, wanted := strings.Cut(one.keep, "=")
	if !wanted {
		return
	}
	if inFirst, isList := strings.CutPrefix(field, "[0]."); isList {
		items, _ := data.([]any)
		require.NotEmpty(c.t, items, one.name)
		field, data = inFirst, items[0]
	}
	value, isText := data.(map[string]any)[field].(string)
	require.True(c.t, isText, "%s: %s is missing", one.name, field)
	c.values[name] = value[strings.LastIndex(value, "/")+1:]
}

func logs(t *testing.T) (body, kind string) {
	var text bytes.Buffer
	w := multipart.NewWriter(&text)
	require.NoError(t, w.WriteField("ecosystem", "kubernetes"))
	file, err := w.CreateFormFile("logs.tar.gz", "logs.tar.gz")
	require.NoError(t, err)
	_, err = io.WriteString(file, strings.Repeat("x", 200))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return text.String(), w.FormDataContentType()
}

// fits tells why the client could not read a value. It is strict with types, ignores what it does not know, and takes
// null and what is missing for empty.
func fits(shapes map[string]shape, wanted string, v any) error {
	if inner, isList := strings.CutPrefix(wanted, "[]"); isList {
		items, ok := v.([]any)
		if !ok && v != nil {
			return fmt.Errorf("wanted is a list, not %v", v)
		}
		for i, item := range items {
			if err := fits(shapes, inner, item); err != nil {
				return fmt.Errorf("[%d] %w", i, err)
			}
		}
		return nil
	}
	if v == nil || wanted == "any" || wanted == "" {
		return nil
	}
	ok := false
	switch wanted {
	case "string":
		_, ok = v.(string)
	case "number":
		_, ok = v.(float64)
	case "boolean":
		_, ok = v.(bool)
	default:
		_, ok = v.(map[string]any)
	}
	if !ok {
		return fmt.Errorf("wanted is a %s, not %v", wanted, v)
	}
	for field, inner := range shapes[wanted] {
		if err := fits(shapes, inner, v.(map[string]any)[field]); err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
	}
	return nil
}

// TestFits: what the judgement of answers is worth.
func TestFits(t *testing.T) {
	shapes := map[string]shape{"thing": {"name": "string", "size": "number", "on": "boolean", "parts": "[]part", "free": "any"}, "part": {"name": "string"}}
	for _, c := range []struct {
		name, wanted, value string
		ok                  bool
	}{
		{"sound", "thing", `{"name":"a","size":5,"on":true,"parts":[{"name":"b"}],"free":[1],"more":1}`, true},
		{"nothing", "thing", `{"name":null,"parts":null}`, true},
		{"an empty list", "[]thing", `[]`, true},
		{"a list for one", "thing", `[]`, false},
		{"one for a list", "[]thing", `{}`, false},
		{"a number for text", "thing", `{"name":5}`, false},
		{"text for a number", "thing", `{"size":"5"}`, false},
		{"text for true", "thing", `{"on":"true"}`, false},
		{"an object for text, nested", "thing", `{"parts":[{"name":{}}]}`, false},
		{"an object for a list, nested", "thing", `{"parts":{"b":{}}}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var v any
			require.NoError(t, json.Unmarshal([]byte(c.value), &v))
			require.Equal(t, c.ok, fits(shapes, c.wanted, v) == nil)
		})
	}
}
