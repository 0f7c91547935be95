package datera

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A mutation is a document in which one thing is not as it was.
type mutation struct {
	where, what string
	document    any
}

// mutations changes each field and each element of a document in each way, but for the numbers of an order.
func mutations(document any) []mutation {
	var all []mutation
	mutate(document, "", func(where, what string) { all = append(all, mutation{where, what, clone(document)}) })
	return all
}

// mutate changes a document in place, tells of it, and puts it right again.
func mutate(node any, where string, tell func(where, what string)) {
	change := func(where string, value any, set func(any), remove func()) {
		for what, other := range map[string]any{"null": nil, "{}": map[string]any{}, `""`: "", "another": "another", "similar": similar(value)} {
			if reflect.DeepEqual(other, value) {
				continue
			}
			set(other)
			tell(where, what)
		}
		if remove != nil {
			remove()
			tell(where, "removed")
		}
		set(value)
		mutate(value, where, tell)
	}
	switch n := node.(type) {
	case map[string]any:
		for key, value := range n {
			change(where+"."+key, value, func(v any) { n[key] = v }, func() { delete(n, key) })
		}
	case []any:
		for i, value := range n {
			change(fmt.Sprintf("%s[%d]", where, i), value, func(v any) { n[i] = v }, nil)
		}
	}
}

// similar is another value of the same kind: of a path, a UUID or an IQN, too.
func similar(value any) any {
	text, ok := value.(string)
	if !ok || text == "" {
		return value
	}
	last := text[len(text)-1]
	if last == '7' {
		return text[:len(text)-1] + "8"
	}
	return text[:len(text)-1] + "7"
}

func clone(document any) any {
	var copied any
	text, err := json.Marshal(document)
	if err != nil {
		panic(err)
	}
	if err := json.Unmarshal(text, &copied); err != nil {
		panic(err)
	}
	return copied
}

// scripted is an array whose answers are given, by method and path. What it does not know is not there.
type scripted struct {
	answers map[string]any
	// mutated is the answer to the first request of a kind, or to all of them.
	key     string
	mutated any
	once    bool
	asked   []string
}

func (s *scripted) RoundTrip(r *http.Request) (*http.Response, error) {
	key := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/v2.2")
	answer := func(status int, document any) (*http.Response, error) {
		text, err := json.Marshal(document)
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(text)), Request: r}, err
	}
	if key == "PUT /login" {
		return answer(200, map[string]any{"key": "k"})
	}
	first := !slices.Contains(s.asked, key)
	s.asked = append(s.asked, key)
	if key == s.key && (first || !s.once) {
		return answer(200, s.mutated)
	}
	if document, known := s.answers[key]; known {
		return answer(200, document)
	}
	return answer(404, map[string]any{"name": "NotFoundError", "message": r.URL.Path + " does not exist"})
}

func (s *scripted) client(t *testing.T) *Client {
	return connect(t, Config{Scheme: "http", Address: "array.test", Username: "admin", Password: password, Transport: s})
}

func document(t *testing.T, text string) any {
	var d any
	require.NoError(t, json.Unmarshal([]byte(text), &d))
	return d
}

const (
	appID    = "b1ac5967-12aa-4959-b24c-c60dd40d0a13"
	groupRef = `"path":"/initiator_groups/k8s_a_rw","name":"k8s_a_rw","tenant":"/root/shop"`
	envelope = `{"tenant":"/root","path":"/x","version":"v2.2","request_time":3,`
	theGroup = `{` + groupRef + `,"members":[{"path":"/initiators/` + iqn + `","id":"` + iqn + `","name":"node-1","tenant":"/root"}]}`
	without  = `{` + groupRef + `,"members":[]}`
	theNode  = `{"path":"/initiators/` + iqn + `","id":"` + iqn + `","name":"node-1","tenant":"/root"}`
	another  = `{"path":"/initiators/iqn.2020-01.org.other:1","id":"iqn.2020-01.org.other:1","name":"node-10","tenant":"/root"}`
	theAuth  = `{"path":"` + siPath + `/auth","type":"chap","target_user_name":"host","target_pswd":"(hidden)","initiator_user_name":"","initiator_pswd":"(hidden)"}`
	policy   = `{"path":"` + siPath + `/acl_policy","initiators":[],"initiator_groups":[{` + groupRef + `}]}`
	noPolicy = `{"path":"` + siPath + `/acl_policy","initiators":[],"initiator_groups":[]}`
	theVol   = `{"path":"` + volPath + `","name":"volume-1","uuid":"6c26437d-0a7d-4f5e-9d0f-0f6a3d0f8a11","size":32,"capacity_in_use":0}`
)

func one(entity string) string { return envelope + `"data":` + entity + `}` }

func many(entities ...string) string {
	return fmt.Sprintf(`%s"data":[%s],"metadata":{"total_count":%d,"request_count":%[3]d,"limit":1000,"offset":0}}`, envelope, strings.Join(entities, ","), len(entities))
}

// believed are the answers that lead to another result than the truth, each with the reason why that does no harm.
var believed = []struct{ method, where, what, why string }{
	{"AppInstance by ID", `name`, `another|similar`, "read by its ID; the name is for messages"},
	{"AppInstance.*", `descr`, ``, "a volume that is not described as this one's is left alone"},
	{"AppInstance.*", `access_control_mode`, ``, "that of the storage instances counts, and must be one of two words"},
	{"AppInstance.*", `storage_instances\[0\].op_state`, ``, "it is waited for until it is available"},
	{"AppInstance.*", `storage_instances\[0\].access(\..*)?`, ``, "without portals and IQN it is waited for; with others the login fails, or the disk's serial number is another"},
	{"AppInstance.*", `storage_instances\[0\].auth(\..*)?`, ``, "it is set once more, or the login fails"},
	{"AppInstance.*", `storage_instances\[0\].active_initiators`, `null|removed`, "nil, which says that the array does not show them"},
	{"AppInstance.*", `storage_instances\[0\].active_initiators\[0\]`, `similar`, "nothing else says who has a session"},
	{"AppInstance.*", `storage_instances\[0\].acl_policy`, `null|removed|\{\}`, "nil, which says that the array does not show it"},
	{"AppInstance.*", `storage_instances\[0\].acl_policy.(initiators|initiator_groups)`, `null|removed`, "nil, which says that the array does not show them"},
	{"AppInstance.*", `storage_instances\[0\].acl_policy.initiators\[0\].path`, `similar`, "product 2.1 gives the path alone"},
	{"AppInstance.*", `storage_instances\[0\].acl_policy.initiator_groups\[0\].tenant`, ``, "a group is read in the tenant of the volume, and must be there"},
	{"AppInstance.*", `storage_instances\[0\].volumes\[0\].uuid`, `similar`, "it is the serial number, which the node compares with the disk's"},
	{"AppInstance.*", `storage_instances\[0\].volumes\[0\].(replica_count|placement_mode|placement_policy(\..*)?)`, ``, "nothing is decided by it"},
	{"AppInstance.*", `storage_instances\[0\].volumes\[0\].performance_policy(\..*)?`, ``, "the limits are set once more"},
	{"Initiator", `name`, `another|similar`, "a label, for messages"},
	{"Initiator", `tenant`, ``, "for messages"},
	{"InitiatorByName", `\[0\].tenant`, ``, "which of two of the same name is meant: both have it, or the caller is told of both"},
	{"InitiatorGroup(sContaining)?", `(\[.\].)?tenant`, ``, "a group was asked for in one tenant, and is changed there"},
	{"InitiatorGroupsOfAllTenants", `(\[.\].)?tenant`, `similar`, "nothing else says the tenant, in which a group that is not there is no error"},
	{"(Add|Remove)Member|CreateInitiatorGroup", `tenant`, ``, "it was changed in the client's tenant"},
	{"Tenants", `.*subtenants(\[.\])?`, ``, "a product that nests tenants says it once; new ones list all"},
	{"Metadata", `.*`, ``, "free text of any client; whether a disk is blank is looked at on the disk, too"},
}

func isBelieved(used map[int]bool, method string, m mutation) bool {
	where := strings.TrimPrefix(m.where, ".data")
	for i, b := range believed {
		matches := func(pattern, text string) bool { return regexp.MustCompile(`^(?:` + pattern + `)$`).MatchString(text) }
		if matches(b.method, method) && matches(b.where, strings.TrimPrefix(where, ".")) && (b.what == "" || matches(b.what, m.what)) {
			used[i] = true
			return true
		}
	}
	return false
}

func TestNoMutationIsBelieved(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/app_instance.json")
	require.NoError(t, err)
	app, otherGroup := string(text), strings.ReplaceAll(theGroup, "k8s_a_rw", "k8s_a_ro")
	small := one(`{"path":"/app_instances/` + appID + `","name":"shop_db1","id":"` + appID + `","admin_state":"online","storage_instances":[]}`)
	offline := strings.ReplaceAll(small, `"admin_state":"online"`, `"admin_state":"offline"`)
	chap := Auth{Type: AuthCHAP, TargetUserName: "host", TargetPassword: "host-password"}
	tenants := many(`{"path":"/root","name":"root","subtenants":["/root/shop"]}`, `{"path":"/root/shop","name":"shop","subtenants":[]}`)

	used := map[int]bool{}
	type object = map[string]string
	for _, test := range []struct {
		method, world string
		answers       object
		fails         bool // the truth is an error
		call          func(context.Context, *Client) (any, error)
	}{
		{"AppInstance", "by name", object{"GET /app_instances/shop_db1": app}, false, func(ctx context.Context, c *Client) (any, error) { return c.AppInstance(ctx, "shop_db1") }},
		{"AppInstance by ID", "", object{"GET /app_instances/" + appID: app}, false, func(ctx context.Context, c *Client) (any, error) { return c.AppInstance(ctx, appID) }},
		{"AppInstance", "of another name", object{"GET /app_instances/shop_db2": small}, true, func(ctx context.Context, c *Client) (any, error) { return c.AppInstance(ctx, "shop_db2") }},
		{"Metadata", "", object{"GET /app_instances/shop_db1/metadata": one(`{"formatted":"true"}`)}, false, func(ctx context.Context, c *Client) (any, error) { return c.Metadata(ctx, "shop_db1") }},
		{"InitiatorGroup", "", object{"GET /initiator_groups/k8s_a_rw": one(theGroup)}, false, func(ctx context.Context, c *Client) (any, error) { return c.InitiatorGroup(ctx, "k8s_a_rw") }},
		{"InitiatorGroup", "another answers", object{"GET /initiator_groups/k8s_a_rw": one(otherGroup)}, true, func(ctx context.Context, c *Client) (any, error) { return c.InitiatorGroup(ctx, "k8s_a_rw") }},
		{"InitiatorGroupsContaining", "", object{"GET /initiator_groups": many(theGroup, otherGroup)}, false, func(ctx context.Context, c *Client) (any, error) { return c.InitiatorGroupsContaining(ctx, "k8s_a_") }},
		{"InitiatorGroupsOfAllTenants", "", object{"GET /initiator_groups": many(theGroup, otherGroup)}, false, func(ctx context.Context, c *Client) (any, error) { return c.InitiatorGroupsOfAllTenants(ctx, "k8s_a_") }},
		{"Initiator", "", object{"GET /initiators/" + iqn: one(theNode)}, false, func(ctx context.Context, c *Client) (any, error) { return c.Initiator(ctx, iqn) }},
		{"InitiatorByName", "", object{"GET /initiators": many(theNode, another)}, false, func(ctx context.Context, c *Client) (any, error) { return c.InitiatorByName(ctx, "node-1") }},
		{"InitiatorByName", "none", object{"GET /initiators": many(another)}, true, func(ctx context.Context, c *Client) (any, error) { return c.InitiatorByName(ctx, "node-1") }},
		{"Tenants", "", object{"GET /tenants": tenants}, false, func(ctx context.Context, c *Client) (any, error) { return c.Tenants(ctx) }},

		{"AddMember", "the group answers", object{"PUT /initiator_groups/k8s_a_rw/members": one(theGroup), "GET /initiator_groups/k8s_a_rw": one(theGroup)}, false, addMember},
		{"AddMember", "the initiator answers", object{"PUT /initiator_groups/k8s_a_rw/members": one(theNode), "GET /initiator_groups/k8s_a_rw": one(theGroup)}, false, addMember},
		{"AddMember", "not carried out", object{"PUT /initiator_groups/k8s_a_rw/members": one(without), "GET /initiator_groups/k8s_a_rw": one(without)}, true, addMember},
		{"RemoveMember", "the group answers", object{"PUT /initiator_groups/k8s_a_rw/members": one(without), "GET /initiator_groups/k8s_a_rw": one(without)}, false, removeMember},
		{"RemoveMember", "the initiator answers", object{"PUT /initiator_groups/k8s_a_rw/members": one(theNode), "GET /initiator_groups/k8s_a_rw": one(without)}, false, removeMember},
		{"RemoveMember", "not carried out", object{"PUT /initiator_groups/k8s_a_rw/members": one(theGroup), "GET /initiator_groups/k8s_a_rw": one(theGroup)}, true, removeMember},
		{"RemoveMember", "not carried out, the initiator answers", object{"PUT /initiator_groups/k8s_a_rw/members": one(theNode), "GET /initiator_groups/k8s_a_rw": one(theGroup)}, true, removeMember},
		{"CreateInitiatorGroup", "", object{"POST /initiator_groups": one(theGroup), "GET /initiator_groups/k8s_a_rw": one(theGroup)}, false, func(ctx context.Context, c *Client) (any, error) {
			group, _, err := c.CreateInitiatorGroup(ctx, "k8s_a_rw", iqn)
			return group, err
		}},
		{"RemoveInitiatorGroup", "the policy answers", object{"PUT " + siPath + "/acl_policy/initiator_groups": one(noPolicy), "GET " + siPath + "/acl_policy": one(noPolicy)}, false, removeGroup},
		{"RemoveInitiatorGroup", "not carried out", object{"PUT " + siPath + "/acl_policy/initiator_groups": one(policy), "GET " + siPath + "/acl_policy": one(policy)}, true, removeGroup},
		{"RemoveInitiatorGroup", "not carried out, the group answers", object{"PUT " + siPath + "/acl_policy/initiator_groups": one(theGroup), "GET " + siPath + "/acl_policy": one(policy)}, true, removeGroup},
		{"RegisterInitiator", "", object{"POST /initiators": one(theNode), "GET /initiators/" + iqn: one(theNode)}, false, func(ctx context.Context, c *Client) (any, error) {
			node, err := c.RegisterInitiator(ctx, iqn, "node-1")
			return node != nil, err
		}},
		{"CreateAppInstance", "", object{"POST /app_instances": small, "GET /app_instances/shop_db1": small}, false, func(ctx context.Context, c *Client) (any, error) {
			ai, _, err := c.CreateAppInstance(ctx, AppInstanceRequest{Name: "shop_db1", SizeGiB: 16})
			return ai, err
		}},
		{"SetAdminState", "", object{"PUT /app_instances/" + appID: offline, "GET /app_instances/" + appID: offline}, false, takeOffline},
		{"SetAdminState", "not carried out", object{"PUT /app_instances/" + appID: small, "GET /app_instances/" + appID: small}, true, takeOffline},
		{"SetAuth", "", object{"PUT " + siPath + "/auth": one(theAuth), "GET " + siPath + "/auth": one(theAuth)}, false, func(ctx context.Context, c *Client) (any, error) { return nil, c.SetAuth(ctx, siPath, chap) }},
		{"SetAuth", "not carried out", object{"PUT " + siPath + "/auth": one(strings.ReplaceAll(theAuth, "chap", "none")), "GET " + siPath + "/auth": one(strings.ReplaceAll(theAuth, "chap", "none"))}, true, func(ctx context.Context, c *Client) (any, error) {
			return nil, c.SetAuth(ctx, siPath, chap)
		}},
		{"ResizeVolume", "", object{"PUT " + volPath: one(theVol)}, false, func(ctx context.Context, c *Client) (any, error) {
			volume, err := c.ResizeVolume(ctx, volPath, 32)
			return volume != nil, err
		}},
	} {
		t.Run(test.method+"/"+test.world, func(t *testing.T) {
			answers := map[string]any{}
			for key, text := range test.answers {
				answers[key] = document(t, text)
			}
			honest := &scripted{answers: answers}
			truth, err := test.call(t.Context(), honest.client(t))
			require.Equal(t, test.fails, err != nil, "%v", err)
			for _, key := range slices.Compact(slices.Sorted(slices.Values(honest.asked))) {
				if answers[key] == nil {
					continue
				}
				for _, m := range mutations(answers[key]) {
					for _, once := range []bool{true, false} {
						array := &scripted{answers: answers, key: key, mutated: m.document, once: once}
						result, err := test.call(t.Context(), array.client(t))
						if err == nil && (test.fails || !reflect.DeepEqual(truth, result)) && !isBelieved(used, test.method, m) {
							t.Errorf("%s with%s %s leads to %+v", key, m.where, m.what, result)
						}
						if slices.Index(array.asked, key) == len(array.asked)-1 {
							break // it was asked for once
						}
					}
				}
			}
		})
	}
	for i, b := range believed {
		require.True(t, used[i], "nothing of %s is believed any more: %s", b.method, b.where)
	}
}

func addMember(ctx context.Context, c *Client) (any, error) { return c.AddMember(ctx, "k8s_a_rw", iqn) }
func removeMember(ctx context.Context, c *Client) (any, error) {
	return c.RemoveMember(ctx, "k8s_a_rw", iqn)
}
func removeGroup(ctx context.Context, c *Client) (any, error) {
	return nil, c.RemoveInitiatorGroup(ctx, siPath, "k8s_a_rw")
}
func takeOffline(ctx context.Context, c *Client) (any, error) {
	ai, err := c.SetAdminState(ctx, appID, AdminOffline, false)
	return ai != nil && ai.AdminState == AdminOffline, err
}
