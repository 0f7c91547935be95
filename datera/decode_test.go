package datera

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
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
		IPPool: Reference{Path: "/access_network_ip_pools/default", Name: "default"},
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
		ai, err := newArray(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }).client(t).AppInstance(within(t, 5e9), "shop_db1")
		require.NoError(t, err, name)
		require.Equal(t, want, ai, name)
	}

	var other AppInstance
	require.NoError(t, decode([]byte(strings.ReplaceAll(string(text), `"size":16`, `"lun":"3","size":null,"performance_policy":null`)), &other))
	volume, err := other.Volume()
	require.NoError(t, err)
	require.Equal(t, 3, *volume.LUN)
	require.Zero(t, volume.SizeGiB)
	require.Error(t, decode([]byte(strings.ReplaceAll(string(text), `"size":16`, `"size":"big"`)), &other), "no number at all")
}

func TestOnlyStorageInstanceAndVolume(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ instances, want string }{
		"null":             {`null`, "app instance shop_db1 has 0 storage instances and none named storage-1"},
		"several":          {`[{"name":"a"},{"name":"b"}]`, "has 2 storage instances"},
		"no volume":        {`[{"name":"a","volumes":null}]`, "storage instance a of app instance shop_db1 has 0 volumes"},
		"only ones":        {`[{"name":"a","volumes":[{"name":"b"}]}]`, ""},
		"the named ones":   {`[{"name":"x"},{"name":"storage-1","volumes":[{"name":"y"},{"name":"volume-1"}]}]`, ""},
		"several volumes":  {`[{"name":"storage-1","volumes":[{"name":"x"},{"name":"y"}]}]`, "has 2 volumes"},
		"null in the list": {`[null]`, "has 0 volumes"},
	} {
		var ai AppInstance
		require.NoError(t, json.Unmarshal([]byte(`{"name":"shop_db1","storage_instances":`+test.instances+`}`), &ai), name)
		volume, err := ai.Volume()
		if test.want != "" {
			require.ErrorContains(t, err, test.want, name)
			continue
		}
		require.NoError(t, err, name)
		if name == "the named ones" {
			require.Equal(t, 1, *volume.LUN, "the array numbers LUNs in the order of volumes")
		}
	}
}

// A server may give fewer elements at once than it was asked for, and need not tell how many there are.
func TestListsArePaged(t *testing.T) {
	t.Parallel()
	var initiators []map[string]any
	for i := range 7 {
		initiators = append(initiators, map[string]any{"path": fmt.Sprintf("/initiators/iqn.2020-01.org:%d", i), "name": "node"})
	}
	for name, test := range map[string]struct {
		metadata   func(offset, count int) any
		pageless   bool
		wantCalls  int
		wantTotals int
	}{
		"v2.2": {func(offset, count int) any {
			return map[string]any{"total_count": 7, "request_count": count, "limit": 3, "offset": offset}
		}, false, 3, 7},
		"v2.1":                         {func(int, int) any { return map[string]any{"total": "7"} }, false, 3, 7},
		"no metadata":                  {func(int, int) any { return nil }, false, 4, 7},
		"empty metadata":               {func(int, int) any { return []int{} }, false, 4, 7},
		"a total without the filter":   {func(int, int) any { return map[string]any{"total_count": 99} }, false, 4, 7},
		"a server that ignores offset": {func(int, int) any { return nil }, true, 2, 3},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArray(t, func(w http.ResponseWriter, r *http.Request) {
				offset, _ := strconv.Atoi(r.URL.Query().Get("offset"))
				if test.pageless {
					offset = 0
				}
				page := initiators[min(offset, 7):min(offset+3, 7)]
				_ = json.NewEncoder(w).Encode(map[string]any{"data": page, "metadata": test.metadata(offset, len(page))})
			})
			found, err := list[Initiator](within(t, 5e9), a.client(t), at("initiators"), "", 0)
			require.NoError(t, err)
			require.Len(t, found, test.wantTotals)
			require.Equal(t, "iqn.2020-01.org:2", found[2].ID, "the IQN comes from the path")
			require.Len(t, a.recorded(), test.wantCalls)
		})
	}
	t.Run("an element that is none", func(t *testing.T) {
		_, err := newArray(t, always([]any{7})).client(t).Tenants(within(t, 5e9))
		require.ErrorContains(t, err, "understand an element of http://")
	})
	t.Run("refused", func(t *testing.T) {
		c := newArray(t, refusing(403, "PermissionDeniedError", "no")).client(t)
		_, err := c.Tenants(within(t, 5e9))
		require.ErrorContains(t, err, "403")
		_, err = c.InitiatorGroups(within(t, 5e9), "group")
		require.ErrorContains(t, err, "403")
		_, err = c.InitiatorByName(within(t, 5e9), "node")
		require.ErrorContains(t, err, "403")
	})
}

func TestTenants(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]any{
		"flat":   []any{map[string]any{"path": "/root", "subtenants": []any{"/root/a"}}, map[string]any{"path": "/root/b"}, map[string]any{"path": "/root/a", "subtenants": nil}},
		"nested": []any{map[string]any{"path": "/tenants/root", "subtenants": []any{map[string]any{"path": "/tenants/root/a"}, map[string]any{"path": "/tenants/root/b"}}}},
	} {
		tenants, err := newArray(t, always(answer)).client(t).Tenants(within(t, 5e9))
		require.NoError(t, err, name)
		require.Equal(t, []string{"/root", "/root/a", "/root/b"}, tenants, name)
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	a := newArray(t, always(map[string]any{"formatted": true, "size": 16, "fs": "xfs", "gone": nil, "odd": []int{1}}))
	pairs, err := a.client(t).Metadata(within(t, 5e9), "shop_db1")
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
			if v, err := ai.Volume(); err == nil && v.LUN == nil {
				t.Error("a volume of a storage instance without a LUN")
			}
		}
		for _, out := range []any{new(Volume), new(Initiator), new(InitiatorGroup), new(PerformancePolicy), new([]tenant), new([]Reference), new(map[string]json.RawMessage)} {
			_ = decode(body, out)
		}
		_ = answeredGroup(body, "group")
		_ = total(body)
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
		text := c.apiError(request{method: get, at: at("x"), key: "canary-key"}, answer{status: status, body: body, location: string(body)}).Error()
		if strings.Contains(text, "canary-key") || strings.Contains(text, password) {
			t.Errorf("a secret in %q", text)
		}
		if strings.ContainsAny(text, "\n\r\x00\x1b") || len(text) > 4*(maxName+maxMessage+(maxDetails+1)*maxDetail)+500 {
			t.Errorf("not fit to be shown: %q", text)
		}
	})
}
