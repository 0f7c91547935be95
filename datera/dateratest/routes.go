package dateratest

import (
	"net/http"
	"path"
	"strings"
)

type handler func(*call) (any, error)

type route struct {
	pattern string
	body    string // name of the body's description
	handle  handler
	open    bool // needs no key
}

// operation is the word for a method in an error's "op".
var operation = map[string]string{"GET": "read", "POST": "create", "PUT": "update", "DELETE": "delete"}

func table() []route {
	const (
		ai = "/app_instances/{ai}"
		si = ai + "/storage_instances/{si}"
		vo = si + "/volumes/{vol}"
	)
	r := []route{
		{"PUT /login", "login", login, true},
		{"PUT /logout", "any", logout, false},
		{"GET /api", "", readAPI, false},
		{"GET /time", "", readTime, true},
		{"GET /init/config", "", readInitConfig, true},
		{"GET /userinfo", "", readUserInfo, false},

		{"GET /app_instances", "", listAppInstances, false},
		{"POST /app_instances", "appInstance", createAppInstance, false},
		{"GET " + ai, "", readAppInstance, false},
		{"PUT " + ai, "appInstanceUpdate", updateAppInstance, false},
		{"DELETE " + ai, "delete", deleteAppInstance, false},
		{"GET " + ai + "/metadata", "", readMetadata, false},
		{"PUT " + ai + "/metadata", "any", updateMetadata, false},
		{"GET " + ai + "/int_ecosystem_data", "", readEcosystemData, false},
		{"PUT " + ai + "/int_ecosystem_data", "ecosystem", updateEcosystemData, false},
		{"GET /app_instance_int_ecosystem_data", "", listEcosystemData, false},

		{"GET " + ai + "/storage_instances", "", listStorage, false},
		{"POST " + ai + "/storage_instances", "storage", createStorage, false},
		{"GET " + si, "", readStorage, false},
		{"PUT " + si, "storageUpdate", updateStorage, false},
		{"DELETE " + si, "delete", deleteStorage, false},
		{"GET " + si + "/metadata", "", readStorageMetadata, false},
		{"PUT " + si + "/metadata", "any", updateStorageMetadata, false},
		{"GET " + si + "/auth", "", readAuth, false},
		{"PUT " + si + "/auth", "auth", updateAuth, false},
		{"GET " + si + "/acl_policy", "", readACL, false},
		{"PUT " + si + "/acl_policy", "acl", updateACL, false},
		{"GET " + si + "/acl_policy/initiators", "", listACLInitiators, false},
		{"PUT " + si + "/acl_policy/initiators", "member", changeACLInitiators, false},
		{"GET " + si + "/acl_policy/initiator_groups", "", listACLGroups, false},
		{"PUT " + si + "/acl_policy/initiator_groups", "member", changeACLGroups, false},

		{"GET " + si + "/volumes", "", listVolumes, false},
		{"POST " + si + "/volumes", "volume", createVolume, false},
		{"GET " + vo, "", readVolume, false},
		{"PUT " + vo, "volumeUpdate", updateVolume, false},
		{"DELETE " + vo, "delete", deleteVolume, false},
		{"GET " + vo + "/performance_policy", "", readPerformance, false},
		{"POST " + vo + "/performance_policy", "performance", createPerformance, false},
		{"PUT " + vo + "/performance_policy", "performance", updatePerformance, false},
		{"DELETE " + vo + "/performance_policy", "delete", deletePerformance, false},

		{"GET /initiators", "", listInitiators, false},
		{"POST /initiators", "initiator", createInitiator, false},
		{"GET /initiators/{name}", "", readInitiator, false},
		{"PUT /initiators/{name}", "initiatorUpdate", updateInitiator, false},
		{"DELETE /initiators/{name}", "delete", deleteInitiator, false},
		{"GET /initiator_groups", "", listGroups, false},
		{"POST /initiator_groups", "group", createGroup, false},
		{"GET /initiator_groups/{name}", "", readGroup, false},
		{"PUT /initiator_groups/{name}", "groupUpdate", updateGroup, false},
		{"DELETE /initiator_groups/{name}", "delete", deleteGroup, false},
		{"GET /initiator_groups/{name}/members", "", listMembers, false},
		{"PUT /initiator_groups/{name}/members", "member", changeMembers, false},

		{"GET /access_network_ip_pools", "", listPools, false},
		{"POST /access_network_ip_pools", "pool", createPool, false},
		{"GET /access_network_ip_pools/{name}", "", readPool, false},
		{"PUT /access_network_ip_pools/{name}", "poolUpdate", updatePool, false},
		{"DELETE /access_network_ip_pools/{name}", "delete", deletePool, false},
		{"GET /access_network_ip_pools/{name}/network_paths", "", listNetworkPaths, false},
		{"GET /access_network_ip_pools/{name}/network_paths/{path}", "", readNetworkPath, false},

		{"GET /app_templates", "", listTemplates, false},
		{"POST /app_templates", "template", createTemplate, false},
		{"GET /app_templates/{name}", "", readTemplate, false},
		{"PUT /app_templates/{name}", "templateUpdate", updateTemplate, false},
		{"DELETE /app_templates/{name}", "delete", deleteTemplate, false},

		{"GET /tenants", "", listTenants, false},
		{"POST /tenants", "tenant", createTenant, false},
		{"GET /tenants/{tenant...}", "", readTenant, false},
		{"PUT /tenants/{tenant...}", "tenantUpdate", updateTenant, false},
		{"DELETE /tenants/{tenant...}", "delete", deleteTenant, false},

		{"GET /users", "", listUsers, false},
		{"POST /users", "user", createUser, false},
		{"GET /users/{name}", "", readUser, false},
		{"PUT /users/{name}", "userUpdate", updateUser, false},
		{"DELETE /users/{name}", "delete", deleteUser, false},
		{"PUT /users/{name}/roles", "member", changeRoles, false},
		{"GET /roles", "", listRoles, false},
		{"GET /roles/{name}", "", readRole, false},

		{"GET /placement_policies", "", since33(listPlacements), false},
		{"POST /placement_policies", "placement", since33(createPlacement), false},
		{"GET /placement_policies/{name}", "", since33(readPlacement), false},
		{"PUT /placement_policies/{name}", "placementUpdate", since33(updatePlacement), false},
		{"DELETE /placement_policies/{name}", "delete", since33(deletePlacement), false},
		{"GET /media_policies", "", since33(listMedia), false},
		{"POST /media_policies", "media", since33(createMedia), false},
		{"GET /media_policies/{name}", "", since33(readMedia), false},
		{"PUT /media_policies/{name}", "mediaUpdate", since33(updateMedia), false},
		{"DELETE /media_policies/{name}", "delete", since33(deleteMedia), false},

		{"GET /system", "", readSystem, false},
		{"PUT " + uploadPath, "any", uploadLogs, false},
		{"GET /storage_nodes", "", listNodes, false},
		{"GET /storage_nodes/{name}", "", readNode, false},
	}
	for _, at := range []string{ai, vo} {
		r = append(r,
			route{"GET " + at + "/snapshots", "", listSnapshots, false},
			route{"POST " + at + "/snapshots", "snapshot", createSnapshot, false},
			route{"GET " + at + "/snapshots/{ts}", "", readSnapshot, false},
			route{"DELETE " + at + "/snapshots/{ts}", "delete", deleteSnapshot, false},
			route{"GET " + at + "/snapshot_policies", "", listSnapshotPolicies, false},
			route{"POST " + at + "/snapshot_policies", "snapshotPolicy", createSnapshotPolicy, false},
			route{"GET " + at + "/snapshot_policies/{name}", "", readSnapshotPolicy, false},
			route{"PUT " + at + "/snapshot_policies/{name}", "snapshotPolicyUpdate", updateSnapshotPolicy, false},
			route{"DELETE " + at + "/snapshot_policies/{name}", "delete", deleteSnapshotPolicy, false})
	}
	for _, empty := range []string{"/alerts", "/audit_logs", "/event_logs", "/fault_logs", "/remote_providers", "/storage_pools"} {
		r = append(r, route{"GET " + empty, "", listNothing, false})
	}
	return r
}

// newRoutes builds the router. Its handlers only find the route; [Server.dispatch] runs it.
func newRoutes(s *Server) *http.ServeMux {
	mux := http.NewServeMux()
	described := bodies()
	for _, r := range table() {
		body := described[r.body]
		mux.Handle(r.pattern, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			w.(*dispatcher).run(req, r, body)
		}))
	}
	return mux
}

// dispatcher carries a call through the router.
type dispatcher struct {
	http.ResponseWriter
	call   *call
	answer any
	err    error
}

// dispatch finds the route of a call and runs it.
func (s *Server) dispatch(c *call, r *http.Request) (any, error) {
	if c.method == http.MethodGet && r.URL.Path == "/api_versions" {
		return bare{"api_versions": versionNames()}, nil
	}
	versionless := r.Clone(r.Context())
	versionless.URL.Path, versionless.URL.RawPath = c.path, strings.TrimPrefix(r.URL.EscapedPath(), "/"+c.dialect.api.String())
	_, pattern := s.routes.Handler(versionless)
	if c.dialect.api == 0 || pattern == "" || operation[c.method] == "" || c.path != path.Clean(c.path) {
		return nil, invalidRoute(r.Method, r.URL.Path)
	}
	d := &dispatcher{call: c}
	s.routes.ServeHTTP(d, versionless)
	return d.answer, d.err
}

// run checks the key, the tenant and the body, in this order, and lets the route do its work.
func (d *dispatcher) run(req *http.Request, r route, body property) {
	c := d.call
	c.variable = req.PathValue
	d.err = func() error {
		if err := c.enter(r.open); err != nil {
			return err
		}
		if c.method != http.MethodGet {
			if err := body.check(c.dialect, "", c.body); err != nil {
				return err
			}
			c.force, _ = c.body["force"].(bool)
		}
		answer, err := r.handle(c)
		d.answer = answer
		return err
	}()
}

// enter checks the key and then the tenant. What needs no key is the same for all tenants, also for those that are yet
// to be made.
func (c *call) enter(open bool) error {
	if open {
		c.tenant = c.cluster.Tenants[rootTenant]
		return nil
	}
	if err := c.authenticate(); err != nil {
		return err
	}
	name := firstOf(c.tenantHeader, rootTenant)
	if c.tenant = c.cluster.Tenants[name]; c.tenant == nil {
		return notFound("tenant " + name)
	}
	return nil
}

func versionNames() []string {
	var names []string
	for _, v := range versions {
		names = append(names, v.String())
	}
	return names
}
