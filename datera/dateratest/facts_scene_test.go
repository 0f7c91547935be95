package dateratest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

// scene is a cluster that has at least one of everything, and a client of API v2.1 that knows the facts.
type scene struct {
	*caller
	facts facts
}

const factsInitiator = "/initiators/iqn.1993-08.org.debian:01:facts"

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{connect(t, dateratest.Start(t)), readFacts(t)}
	s.version = "v2.1"
	policy := js{"name": "facts-policy", "interval": "1day", "retention_count": 3, "start_time": "2026-01-02T03:04:05Z"}
	template := js{"name": "facts-template", "snapshot_policies": []any{policy}, "storage_templates": []any{js{"name": "facts-storage",
		"auth": js{"type": "none"}, "volume_templates": []any{js{"name": "facts-volume", "size": 1, "replica_count": 1, "snapshot_policies": []any{policy}, "performance_policy": js{"total_iops_max": 100}}}}}}
	volume := js{"name": "facts-volume", "size": 1, "replica_count": 1, "snapshot_policies": []any{policy}, "performance_policy": js{"total_iops_max": 100}}
	access := js{"initiators": []any{js{"path": factsInitiator}}, "initiator_groups": []any{js{"path": "/initiator_groups/facts-group"}}}
	for _, made := range []struct {
		path string
		body js
	}{
		{"/initiators", js{"id": "iqn.1993-08.org.debian:01:facts", "name": "facts initiator"}},
		{"/initiator_groups", js{"name": "facts-group", "members": []any{js{"path": factsInitiator}}}},
		{"/tenants", js{"name": "facts", "descr": "A tenant"}},
		{"/users", js{"user_id": "facts", "full_name": "Facts", "password": "facts_facts", "email": "facts@example.org", "roles": []any{js{"path": "/roles/admin"}}, "tenants": []any{js{"path": "/root"}}}},
		{"/access_network_ip_pools", js{"name": "facts-pool", "network_paths": []any{js{"name": "facts-path", "start_ip": "192.0.2.10", "range": 6, "netmask": 24}}}},
		{"/app_templates", template},
		{"/app_instances", js{"name": "facts-app", "create_mode": "kubernetes", "descr": "An app instance", "snapshot_policies": []any{policy},
			"storage_instances": []any{js{"name": "facts-storage", "acl_policy": access, "auth": js{"type": "none"}, "volumes": []any{volume}}}}},
		{"/app_instances", js{"name": "facts-of-template", "app_template": js{"path": "/app_templates/facts-template"}}},
		{"/app_instances/facts-app/snapshots", js{}},
		{"/app_instances/facts-app/storage_instances/facts-storage/volumes/facts-volume/snapshots", js{}},
	} {
		s.ok("POST", made.path, made.body)
	}
	source, err := s.resolve("/app_instances/{uuid}")
	require.NoError(t, err)
	s.ok("POST", "/app_instances", js{"name": "facts-clone", "clone_src": js{"path": source}})
	return s
}

// resolve puts something that exists, of the scene if possible, in the place of each parameter of a path.
func (s *scene) resolve(path string) (string, error) {
	at := ""
	for _, part := range strings.Split(strings.TrimPrefix(path, "/"), "/") {
		p := parameter.FindStringSubmatch(part)
		switch {
		case p == nil:
			at += "/" + part
		case at == "/tenants":
			at += "/root/facts"
		case strings.HasPrefix(at, "/metrics/"):
			at += "/" + s.facts.kinds[p[1]].good
		default:
			name, err := s.name(at, "facts")
			if err != nil {
				return "", err
			}
			at += "/" + name
		}
	}
	return at, nil
}

// name is the last part of the path of an element that has this name, or else of one whose path has it, or of the first.
func (s *scene) name(collection, like string) (string, error) {
	a := s.do("GET", collection, nil)
	items, _ := a.body["data"].([]any)
	if len(items) == 0 {
		return "", fmt.Errorf("nothing to be had in GET %s: %d %s", collection, a.status, a.raw)
	}
	rank := func(item any) int {
		path, _ := item.(js)["path"].(string)
		switch {
		case item.(js)["name"] == like+"-app", strings.HasSuffix(path, "/"+like):
			return 0
		case strings.Contains(path, like):
			return 1
		}
		return 2
	}
	best := slices.MinFunc(items, func(a, b any) int { return rank(a) - rank(b) })
	path, isText := best.(js)["path"].(string)
	if !isText {
		return "", fmt.Errorf("GET %s: an element without a path: %v", collection, best)
	}
	return path[strings.LastIndex(path, "/")+1:], nil
}

// valid is a body that a route takes: what must be there, and what the scene needs.
func (s *scene) valid(shape string) js {
	body := js{}
	for _, one := range s.facts.shapes[shape] {
		if one.must {
			body[one.name] = s.good(one.kind)
		}
	}
	if shape == "change_member" {
		body["op"], body["path"] = "remove", factsInitiator
	}
	return body
}

func (s *scene) good(name string) any {
	inner := strings.TrimPrefix(name, "[]")
	var v any
	if k, isKind := s.facts.kind(inner); isKind {
		v = k.value(k.good)
	} else {
		v = s.valid(inner)
	}
	if inner != name {
		return []any{v}
	}
	return v
}

// bodyOf is what a route is sent to succeed.
func (s *scene) bodyOf(r factRoute) js {
	body := s.valid(r.request)
	switch {
	case strings.HasSuffix(r.path, "/acl_policy/initiator_groups"):
		body["path"] = "/initiator_groups/facts-group"
	case strings.HasSuffix(r.path, "/roles"):
		body["path"] = "/roles/admin"
	case r.path == "/login":
		body["name"], body["password"] = "admin", "password"
	}
	return body
}
