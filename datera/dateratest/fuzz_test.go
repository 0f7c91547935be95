package dateratest

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzParseFilter(f *testing.F) {
	for _, seed := range []string{"", "name=x", "match(name,.*X.*)", "match(name,^a$|^b$)", "match(name,[)", "match(,)", "=", "name==", "match(name,x",
		"a.b=c", "name=a|name=b", "(name=a&size>=5)|in(name,(a,b))", "name=ge=5", "size=string:5", "name=%2561", "((((", "))", "name!=x,size<7"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		parsed, err := parseFilter(expression)
		if err != nil {
			require.Equal(t, 400, asFailure(err).http)
			return
		}
		require.NotRegexp(t, `[\^\\$\s"']`, expression, "what the array refuses")
		items := []entity{{"name": "pv-1", "size": 5}, {"name": "pv-2", "size": 5}}
		if kept, err := parsed.apply(items); err == nil {
			require.Subset(t, items, append([]entity{}, kept...))
		}
	})
}

func FuzzBodies(f *testing.F) {
	for _, seed := range [][3]string{
		{"POST", "/app_instances", `{"name":"pv-2","storage_instances":[{"name":"storage-1","volumes":[{"name":"volume-1","size":5}]}]}`},
		{"POST", "/app_instances", `{"name":"pv-2","clone_volume_src":{"path":"/app_instances/pv-1/storage_instances/storage-1/volumes/volume-1"}}`},
		{"POST", "/app_instances", `{"name":"pv-2","app_template":{"path":"/app_templates/basic"},"template_override":{"storage_instances":{"storage-1":{"volumes":{"volume-1":{"size":"7"}}}}}}`},
		{"PUT", "/app_instances/pv-1", `{"admin_state":"offline","force":true,"restore_point":"1.2","snapshot_policies":[]}`},
		{"PUT", "/app_instances/pv-1/storage_instances/storage-1/acl_policy", `{"initiators":[{"path":"/initiators/x"}]}`},
		{"PUT", "/app_instances/pv-1/storage_instances/storage-1/auth", `{"type":"chap","target_user_name":"user","target_pswd":"123456789012"}`},
		{"PUT", "/app_instances/pv-1/metadata", `{"a":{"b":[1,null]}}`},
		{"POST", "/access_network_ip_pools", `{"name":"fast","network_paths":[{"name":"net_1","start_ip":"10.0.0.1","range":10,"netmask":24}]}`},
		{"PUT", "/login", `name=admin&password=x`},
		{"POST", "/users", `{"user_id":"abc","full_name":null,"password":"abc"}`},
		{"DELETE", "/app_instances/pv-1", `null`},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, method, path, body string) {
		if operation[method] == "" || !strings.HasPrefix(path, "/") || strings.ContainsAny(path, " \r\n\x00") {
			return
		}
		s, err := New(Options{})
		require.NoError(t, err)
		_, err = s.CreateAppInstance("pv-1", 1)
		require.NoError(t, err)
		s.keys["key"] = &key{"admin", s.now().Add(s.options.SessionLifetime)}
		for _, v := range versions {
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/"+v.String(), strings.NewReader(body))
			r.Method, r.URL.Path = method, "/"+v.String()+path
			r.Header.Set("Auth-Token", "key")
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			require.True(t, json.Valid(w.Body.Bytes()), "answers are JSON: %s", w.Body)
			require.Less(t, w.Code, 500, "nothing a client sends is an internal error: %s", w.Body)
		}
	})
}
