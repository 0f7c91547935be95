package datera

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDecodeAppInstance(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/app_instance.json")
	require.NoError(t, err)
	want := &AppInstance{
		Path: "/app_instances/b1ac5967-12aa-4959-b24c-c60dd40d0a13", Name: "shop_db1", ID: "b1ac5967-12aa-4959-b24c-c60dd40d0a13",
		AdminState: AdminOnline, AccessControlMode: "deny_all",
	}
	si := StorageInstance{
		Path: siPath, Name: "storage-1", OpState: OpStateAvailable,
		AccessControlMode: "deny_all", ActiveInitiators: []string{iqn}, Auth: Auth{Type: AuthCHAP, TargetUserName: "host"},
		ACL: ACL{
			Initiators:      []Reference{{Path: "/initiators/" + iqn, Name: iqn}},
			InitiatorGroups: []Reference{{Path: "/initiator_groups/shop_db1", Name: "shop_db1", Tenant: "/root"}},
		},
		Volumes: []Volume{{
			Path: volPath, Name: "volume-1", UUID: "6c26437d-0a7d-4f5e-9d0f-0f6a3d0f8a11", SizeGiB: 16, ReplicaCount: 3, CapacityInUseGiB: 2,
			PlacementMode: "hybrid", PlacementPolicy: Reference{Path: "/placement_policies/default", Name: "default"},
			LUN: new(0), PerformancePolicy: PerformancePolicy{1000, 1, 2, 10240, 3, 4},
		}},
	}
	si.Access.IPs, si.Access.IQN = []string{"172.28.41.43", "172.29.41.56"}, "iqn.2013-05.com.daterainc:tc:01:sn:9b8e220259a8a79f"
	want.StorageInstances = []StorageInstance{si}

	variants := map[string]string{
		"as documented":      string(text),
		"numbers as strings": strings.NewReplacer(`"size":16`, `"size":"16"`, `_count":3`, `_count":"3"`, `:10240`, `:"10240"`).Replace(string(text)),
		"numbers as floats":  strings.NewReplacer(`"size":16`, `"size":16.0`, `_in_use":2`, `_in_use":1.2`, `:1000`, `:1e3`).Replace(string(text)),
		"unknown fields":     strings.ReplaceAll(string(text), `"name":`, `"new":{"a":[1]},"name":`),
		"named LUN":          strings.ReplaceAll(string(text), `"size":16`, `"size":16,"lun":0`),
	}
	for name, body := range variants {
		ai, err := newArray(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }).client(t).AppInstance(t.Context(), "shop_db1")
		require.NoError(t, err, name)
		require.Equal(t, want, ai, name)
	}

	var other AppInstance
	require.NoError(t, decode([]byte(strings.ReplaceAll(string(text), `"size":16`, `"lun":"3","size":17,"performance_policy":null`)), &other))
	volume, err := other.Volume()
	require.NoError(t, err)
	require.Equal(t, 3, *volume.LUN)
	require.Error(t, decode([]byte(strings.ReplaceAll(string(text), `"size":16`, `"size":"big"`)), &other), "no number at all")
	other = AppInstance{}
	text = []byte(strings.NewReplacer(`"active_initiators":["iqn.1993-08.org.debian:01:abc123"],`, ``, `"initiator_groups":[{"path":"/initiator_groups/shop_db1","tenant":"/root","id":"7","name":"shop_db1"}]`,
		`"initiator_groups":[]`, `"initiators":[{"path":"/initiators/iqn.1993-08.org.debian:01:abc123"}]`, `"initiators":null`).Replace(string(text)))
	require.NoError(t, decode(text, &other))
	instance, err := other.StorageInstance()
	require.NoError(t, err)
	require.Nil(t, instance.ActiveInitiators, "not shown is not none")
	require.Nil(t, instance.ACL.Initiators, "null is not shown")
	require.NotNil(t, instance.ACL.InitiatorGroups)
	require.Empty(t, instance.ACL.Groups())
}

func TestOnlyStorageInstanceAndVolume(t *testing.T) {
	t.Parallel()
	storage := func(name string, volumes ...string) StorageInstance {
		si := StorageInstance{Name: name}
		for i, v := range volumes {
			si.Volumes = append(si.Volumes, Volume{Name: v, LUN: &i})
		}
		return si
	}
	for name, test := range map[string]struct {
		instances []StorageInstance
		lun       int
		want      string
	}{
		"none":             {nil, 0, "app instance shop_db1 has 0 storage instances and none named storage-1"},
		"several":          {[]StorageInstance{storage("a"), storage("b")}, 0, "has 2 storage instances"},
		"no volume":        {[]StorageInstance{storage("a")}, 0, "storage instance a of app instance shop_db1 has 0 volumes"},
		"only ones":        {[]StorageInstance{storage("a", "b")}, 0, ""},
		"the named ones":   {[]StorageInstance{storage("x"), storage("storage-1", "y", "volume-1")}, 1, ""},
		"several volumes":  {[]StorageInstance{storage("storage-1", "x", "y")}, 0, "has 2 volumes"},
		"the first is not": {[]StorageInstance{storage("storage-2", "volume-1"), storage("storage-1", "volume-1")}, 0, ""},
	} {
		ai := AppInstance{Name: "shop_db1", StorageInstances: test.instances}
		volume, err := ai.Volume()
		if test.want != "" {
			require.ErrorContains(t, err, test.want, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, test.lun, *volume.LUN, name)
	}
}

func TestTenants(t *testing.T) {
	t.Parallel()
	type object = map[string]any
	for name, test := range map[string]struct {
		answer []any
		fails  string
	}{
		"flat":            {[]any{object{"path": "/root", "name": "root", "subtenants": []any{"/root/a"}}, object{"path": "/root/b"}, object{"path": "/root/a", "subtenants": nil}}, ""},
		"nested":          {[]any{object{"path": "/tenants/root", "subtenants": []any{object{"path": "/tenants/root/a"}, object{"path": "/tenants/root/b"}}}}, ""},
		"bare names":      {[]any{object{"path": "/root", "subtenants": []any{"a", "b"}}}, ""},
		"bare paths":      {[]any{"/root", "/root/a", "/root/b"}, ""},
		"two names":       {[]any{object{"path": "/root/a", "name": "b"}}, `tenant /root/a has the name "b"`},
		"no path":         {[]any{object{"name": "a"}}, `"" is not the path of a tenant`},
		"an app instance": {[]any{object{"path": "/app_instances/a"}}, "is not the path of a tenant"},
		"no tenant":       {[]any{7}, "an element of the list tenants of http://"},
	} {
		tenants, err := newArray(t, listOf(test.answer...)).client(t).Tenants(t.Context())
		if test.fails != "" {
			require.ErrorContains(t, err, test.fails, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, []string{"/root", "/root/a", "/root/b"}, tenants, name)
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	a := newArray(t, always(map[string]any{"formatted": true, "size": 16, "fs": "xfs", "gone": nil, "odd": []int{1}}))
	pairs, err := a.client(t).Metadata(t.Context(), "shop_db1")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"formatted": "true", "size": "16", "fs": "xfs", "gone": "", "odd": "[1]"}, pairs)
}

func TestAPIError(t *testing.T) {
	t.Parallel()
	c := newArray(t, nil).client(t)
	r := request{method: get, at: at("app_instances", "x"), tenant: "/root/shop", key: "k"}
	body := `{"name":"NotFoundError","code":1,"http":404,"message":"/app_instances/x does\n not\u001b[31m exist","errors":["first",{"second":2},null,"3","4","5","6"],"params":{"a":1}}`
	err := c.apiError(r, answer{status: 404, body: []byte(body)})
	require.Equal(t, &APIError{
		Method: "GET", Server: c.Server(), Path: "/v2.2/app_instances/x", Tenant: "/root/shop", Status: 404, Name: "NotFoundError", Code: "1",
		Message: "/app_instances/x does not [31m exist", Details: []string{"first", `{"second":2}`, "3", "4"},
	}, err)
	require.EqualError(t, err, "GET "+c.Server()+`/v2.2/app_instances/x: 404 NotFoundError: /app_instances/x does not [31m exist (first; {"second":2}; 3; 4), in tenant /root/shop`)
	require.True(t, IsNotFound(fmt.Errorf("wrapped: %w", err)))
	require.False(t, IsConflict(err))
	require.False(t, IsAuth(err))

	for body, want := range map[string]string{
		``:                           "500 Internal Server Error",
		`{}`:                         "500 Internal Server Error",
		`[]`:                         "500 Internal Server Error: []; this is not an answer of the array's API: check address and port",
		`{"message":7,"errors":"x"}`: "500 Internal Server Error: 7",
		`{"name":null,"message":"` + strings.Repeat("ä", 1000) + `"}`: strings.Repeat("ä", maxMessage) + "…",
	} {
		require.ErrorContains(t, c.apiError(r, answer{status: 500, body: []byte(body)}), want)
	}
	require.NotErrorIs(t, c.apiError(r, answer{status: 404, body: []byte(`{"name":"InvalidRouteError"}`)}), ErrNotFound)
}

func FuzzDecode(f *testing.F) {
	text, err := os.ReadFile("testdata/app_instance.json")
	require.NoError(f, err)
	for _, seed := range []string{
		string(text), ``, `{`, `null`, `{"data":null}`, `{"data":[]}`, `{"data":{}}`, `{"data":[null,1,{"path":"x","members":["a",null]}],"metadata":{"total":"2"}}`,
		`{"data":{"storage_instances":[{"volumes":[null,{"size":"1e400","lun":-1}]}]},"metadata":[]}`, `{"data":{"size":9e18,"members":{}}}`,
		`{"data":[{"path":"/root","subtenants":["/root/a",{"subtenants":[]}]}],"metadata":{"total_count":1e99}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var ai AppInstance
		if decode(body, &ai) == nil {
			if v, err := ai.Volume(); err == nil && (v.LUN == nil || !strings.HasPrefix(v.Path, "/app_instances/"+ai.ID+"/")) {
				t.Errorf("a volume without a LUN, or of another app instance: %+v", v)
			}
		}
		for _, out := range []any{new(Volume), new(Initiator), new(InitiatorGroup), new(PerformancePolicy), new([]tenant), new([]Reference), new(map[string]json.RawMessage), new(ACL)} {
			_ = decode(body, out)
		}
		var g InitiatorGroup
		if decode(body, &g) == nil && (g.Members == nil || g.Path != "/initiator_groups/"+g.Name || slices.ContainsFunc(g.Members, func(m string) bool { return !isIQN(m) })) {
			t.Errorf("a group that is none: %+v", g)
		}
		p := page{total: notSaid, limit: pageSize}
		if p.readMetadata(body); p.total < notSaid || p.limit < 0 {
			t.Errorf("a list of fewer than no elements: %+v", p)
		}
		_ = identity(body)
		if cutOff(body) && json.Valid(body) {
			t.Error("a whole document is not cut off")
		}
	})
}

func FuzzAPIError(f *testing.F) {
	for _, seed := range []string{
		``, `{"name":"NotFoundError","code":1,"message":"no","errors":["a"]}`, `{"name":7,"errors":{}}`, "\x00\x1b[2J\u202e", `[]`,
		`{"message":"canary-key"}`, `{"message":"canary\u002dkey"}`, `"canary-key"`,
	} {
		f.Add(404, []byte(seed))
	}
	c, err := New(Config{Address: "array", Username: "admin", Password: password})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		text := c.apiError(request{method: get, at: at("x"), key: "canary-key"}, answer{status: status, body: body, header: http.Header{"Location": {string(body)}}}).Error()
		if strings.Contains(text, "canary-key") || strings.Contains(text, password) {
			t.Errorf("a secret in %q", text)
		}
		if strings.ContainsAny(text, "\n\r\x00\x1b") || len(text) > 4*(maxName+maxMessage+(maxDetails+1)*maxDetail)+500 {
			t.Errorf("not fit to be shown: %q", text)
		}
	})
}
