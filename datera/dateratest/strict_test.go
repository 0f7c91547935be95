package dateratest_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

// TestValuesThatAClusterRefuses has the names, addresses and texts that look right and are not.
func TestValuesThatAClusterRefuses(t *testing.T) {
	c := connect(t, dateratest.Start(t))
	c.ok("POST", "/app_instances", simple("pv-1", 1))
	chap := func(user string) js {
		return js{"type": "chap", "target_user_name": user, "target_pswd": "123456789012"}
	}
	host := func(id string) js { return js{"id": id, "name": "node"} }
	group := func(name string) js { return js{"name": name} }
	const upper = "0F2A0E1C-0000-4000-8000-000000000001"
	for name, test := range map[string]struct {
		method, path string
		body         js
		taken        bool
	}{
		"CHAP user":                       {"PUT", si + "/auth", chap("_host-1.x"), true},
		"CHAP user with a colon":          {"PUT", si + "/auth", chap("host:1"), false},
		"CHAP user that is an IQN":        {"PUT", si + "/auth", chap(iqn1), false},
		"CHAP user that is too short":     {"PUT", si + "/auth", chap("ab"), false},
		"CHAP user that is empty":         {"PUT", si + "/auth", js{"type": "none", "target_user_name": ""}, false},
		"CHAP user that is too long":      {"PUT", si + "/auth", chap(strings.Repeat("x", 65)), false},
		"description":                     {"PUT", "/app_instances/pv-1", js{"descr": "volume pv-1 of a cluster."}, true},
		"no description":                  {"PUT", "/app_instances/pv-1", js{"descr": nil}, true},
		"description that is short":       {"PUT", "/app_instances/pv-1", js{"descr": "ab"}, false},
		"description with a colon":        {"PUT", "/app_instances/pv-1", js{"descr": "volume: pv-1"}, false},
		"description with quotes":         {"PUT", "/app_instances/pv-1", js{"descr": `volume "pv-1"`}, false},
		"group":                           {"POST", "/initiator_groups", group("k8s_" + strings.Repeat("x", 60)), true},
		"group with a space":              {"POST", "/initiator_groups", group("group 1"), false},
		"group that is too long":          {"POST", "/initiator_groups", group("k8s_" + strings.Repeat("x", 61)), false},
		"group that is too short":         {"POST", "/initiator_groups", group("ab"), false},
		"group that begins with digits":   {"POST", "/initiator_groups", group("1group"), false},
		"IQN":                             {"POST", "/initiators", host(iqn1), true},
		"IQN without a domain":            {"POST", "/initiators", host("iqn.2000-01.localhost:host"), false},
		"IQN of month 21":                 {"POST", "/initiators", host("iqn.2000-21.org.debian:host"), false},
		"IQN that is too short":           {"POST", "/initiators", host("iqn.2000-01.a.b"), false},
		"IQN that is too long":            {"POST", "/initiators", host("iqn.2000-01.a.b:" + strings.Repeat("x", 208)), false},
		"IQN that just fits":              {"POST", "/initiators", host("iqn.2000-01.a.b:" + strings.Repeat("x", 207)), true},
		"IQN in capitals":                 {"POST", "/initiators", host("IQN.2000-01.org.debian:host"), false},
		"UUID in capitals":                {"POST", vol + "/snapshots", js{"uuid": upper}, false},
		"UUID":                            {"POST", vol + "/snapshots", js{"uuid": strings.ToLower(upper)}, true},
		"name that is a UUID in capitals": {"POST", "/app_instances", js{"name": upper}, false},
		"name that is a UUID":             {"POST", "/app_instances", js{"name": strings.ToLower(upper)}, true},
		"a time that is none":             {"POST", vol + "/snapshot_policies", js{"name": "daily", "interval": "1day", "retention_count": 1, "start_time": "noon"}, false},
		"path without a slash":            {"PUT", si + "/acl_policy", js{"initiators": []js{{"path": "initiators/x"}}}, false},
		"user's name that cannot be":      {"PUT", "/login", js{"name": "a b", "password": "password"}, false},
		"password that cannot be":         {"PUT", "/login", js{"name": "admin", "password": "1234"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c.t = t
			if test.taken {
				c.ok(test.method, test.path, test.body)
				return
			}
			c.fails(422, "ValidationFailedError", test.method, test.path, test.body)
		})
	}
	c.t = t
	require.Equal(t, `((?=.{16,223}$)^iqn\.[0-9]{4}-[0-1][0-9]\.[^\/]*\.[^\/]*$)|(^eui\.[0-9A-Fa-f]{16}$)`,
		at(t, c.do("GET", "/api", nil).body, "/initiators", "create", "bodyParamSchema", "properties", "id", "pattern"), "in the words of a cluster")
}
