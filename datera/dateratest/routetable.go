package dateratest

import "strings"

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
		{"DELETE " + vo, "remove", deleteVolume, false},
		{"GET " + vo + "/performance_policy", "", readPerformance, false},
		{"POST " + vo + "/performance_policy", "performance", createPerformance, false},
		{"PUT " + vo + "/performance_policy", "performance", updatePerformance, false},
		{"DELETE " + vo + "/performance_policy", "remove", deletePerformance, false},

		{"GET /initiators", "", listInitiators, false},
		{"POST /initiators", "initiator", createInitiator, false},
		{"GET /initiators/{name}", "", readInitiator, false},
		{"PUT /initiators/{name}", "initiatorUpdate", updateInitiator, false},
		{"DELETE /initiators/{name}", "remove", deleteInitiator, false},
		{"GET /initiator_groups", "", listGroups, false},
		{"POST /initiator_groups", "group", createGroup, false},
		{"GET /initiator_groups/{name}", "", readGroup, false},
		{"PUT /initiator_groups/{name}", "groupUpdate", updateGroup, false},
		{"DELETE /initiator_groups/{name}", "remove", deleteGroup, false},
		{"GET /initiator_groups/{name}/members", "", listMembers, false},
		{"PUT /initiator_groups/{name}/members", "member", changeMembers, false},

		{"GET /access_network_ip_pools", "", listPools, false},
		{"POST /access_network_ip_pools", "pool", createPool, false},
		{"GET /access_network_ip_pools/{name}", "", readPool, false},
		{"PUT /access_network_ip_pools/{name}", "poolUpdate", updatePool, false},
		{"DELETE /access_network_ip_pools/{name}", "remove", deletePool, false},
		{"GET /access_network_ip_pools/{name}/network_paths", "", listNetworkPaths, false},
		{"GET /access_network_ip_pools/{name}/network_paths/{path}", "", readNetworkPath, false},
		{"PUT /access_network_ip_pools/{name}/network_paths/{path}", "networkUpdate", updateNetworkPath, false},

		{"GET /app_templates", "", listTemplates, false},
		{"POST /app_templates", "template", createTemplate, false},
		{"GET /app_templates/{name}", "", readTemplate, false},
		{"PUT /app_templates/{name}", "templateUpdate", updateTemplate, false},
		{"DELETE /app_templates/{name}", "remove", deleteTemplate, false},

		{"GET /tenants", "", listTenants, false},
		{"POST /tenants", "tenant", createTenant, false},

		{"GET /users", "", listUsers, false},
		{"POST /users", "user", createUser, false},
		{"GET /users/{name}", "", readUser, false},
		{"PUT /users/{name}", "userUpdate", updateUser, false},
		{"DELETE /users/{name}", "remove", deleteUser, false},
		{"GET /users/{name}/roles", "", listUserRoles, false},
		{"PUT /users/{name}/roles", "member", changeRoles, false},
		{"GET /roles", "", listRoles, false},
		{"GET /roles/{name}", "", readRole, false},

		{"GET /placement_policies", "", since33(listPlacements), false},
		{"POST /placement_policies", "placement", since33(createPlacement), false},
		{"GET /placement_policies/{name}", "", since33(readPlacement), false},
		{"PUT /placement_policies/{name}", "placementUpdate", since33(updatePlacement), false},
		{"DELETE /placement_policies/{name}", "remove", since33(deletePlacement), false},
		{"GET /media_policies", "", since33(listMedia), false},
		{"POST /media_policies", "media", since33(createMedia), false},
		{"GET /media_policies/{name}", "", since33(readMedia), false},
		{"PUT /media_policies/{name}", "mediaUpdate", since33(updateMedia), false},
		{"DELETE /media_policies/{name}", "remove", since33(deleteMedia), false},

		{"GET /system", "", readSystem, false},
		{"PUT " + uploadPath, "any", uploadLogs, false},
		{"PUT /system", "systemUpdate", updateSystem, false},
		{"GET /system/network", "", readNetwork, false},
		{"GET /system/network/mapping", "", readMapping, false},
		{"GET /upgrade/available", "", readUpgrades, false},
		{"GET /storage_nodes", "", listNodes, false},
		{"GET /storage_nodes/{name}", "", readNode, false},
		{"PUT /storage_nodes/{name}", "nodeUpdate", updateNode, false},
		{"GET /storage_nodes/{name}/subsystem_states", "", readSubsystems, false},

		{"PUT /remote_providers/{name}/refresh", "any", since22(refreshRemote), false},
		{"PUT /remote_providers/{name}/operations/{operation}", "operation", since22(changeOperation), false},
	}
	for _, at := range []string{"/tenants/{tenant...}", rootTenant, rootTenant + "/{tenant...}"} {
		r = append(r, route{"GET " + at, "", readTenant, false}, route{"PUT " + at, "tenantUpdate", updateTenant, false},
			route{"DELETE " + at, "remove", deleteTenant, false})
	}
	r = append(r, templateRoutes()...)
	r = append(r, systemRoutes()...)
	for _, at := range []string{ai, vo} {
		r = append(r,
			route{"GET " + at + "/snapshots", "", listSnapshots, false},
			route{"POST " + at + "/snapshots", "snapshot", createSnapshot, false},
			route{"GET " + at + "/snapshots/{ts}", "", readSnapshot, false},
			route{"DELETE " + at + "/snapshots/{ts}", "remove", deleteSnapshot, false})
		r = append(r, policyRoutes(at)...)
	}
	return r
}

// policyRoutes are those of the snapshot policies of something.
func policyRoutes(at string) []route {
	return []route{
		{"GET " + at + "/snapshot_policies", "", listSnapshotPolicies, false},
		{"POST " + at + "/snapshot_policies", "snapshotPolicy", createSnapshotPolicy, false},
		{"GET " + at + "/snapshot_policies/{name}", "", readSnapshotPolicy, false},
		{"PUT " + at + "/snapshot_policies/{name}", "snapshotPolicyUpdate", updateSnapshotPolicy, false},
		{"DELETE " + at + "/snapshot_policies/{name}", "remove", deleteSnapshotPolicy, false},
	}
}

// templateRoutes are those below an app template.
func templateRoutes() []route {
	const (
		at = "/app_templates/{template}"
		st = at + "/storage_templates/{st}"
		vt = st + "/volume_templates/{vt}"
	)
	r := []route{
		{"GET " + at + "/storage_templates", "", listStorageTemplates, false},
		{"POST " + at + "/storage_templates", "storageTemplate", createStorageTemplate, false},
		{"GET " + st, "", readStorageTemplate, false},
		{"PUT " + st, "storageTemplateUpdate", updateStorageTemplate, false},
		{"DELETE " + st, "remove", deleteStorageTemplate, false},
		{"GET " + st + "/auth", "", readTemplateAuth, false},
		{"PUT " + st + "/auth", "auth", updateTemplateAuth, false},
		{"GET " + st + "/volume_templates", "", listVolumeTemplates, false},
		{"POST " + st + "/volume_templates", "volumeTemplate", createVolumeTemplate, false},
		{"GET " + vt, "", readVolumeTemplate, false},
		{"PUT " + vt, "volumeTemplateUpdate", updateVolumeTemplate, false},
		{"DELETE " + vt, "remove", deleteVolumeTemplate, false},
		{"GET " + vt + "/performance_policy", "", readPerformance, false},
		{"POST " + vt + "/performance_policy", "performance", createPerformance, false},
		{"PUT " + vt + "/performance_policy", "performance", updatePerformance, false},
		{"DELETE " + vt + "/performance_policy", "remove", deletePerformance, false},
	}
	return append(append(r, policyRoutes(at)...), policyRoutes(vt)...)
}

// systemRoutes are those of the cluster's own parts, of what is measured and of what is only kept.
func systemRoutes() []route {
	var r []route
	for _, n := range networkNames() {
		at := "/system/network/" + n
		r = append(r,
			route{"GET " + at, "", onNetwork(n, readVIP), false},
			route{"GET " + at + "/network_paths", "", onNetwork(n, listVIPPaths), false},
			route{"GET " + at + "/network_paths/{name}", "", onNetwork(n, readVIPPath), false})
		if strings.HasSuffix(n, "_vip") {
			r = append(r, route{"PUT " + at + "/network_paths/{name}", "vipUpdate", onNetwork(n, updateVIPPath), false})
		}
	}
	for _, path := range sortedKeys(standardSettings()) {
		r = append(r, route{"GET " + path, "", readSetting, false}, route{"PUT " + path, path, updateSetting, false})
	}
	for _, collection := range partCollections() {
		at := "/storage_nodes/{name}/" + collection
		r = append(r, route{"GET " + at, "", listParts(collection), false}, route{"GET " + at + "/{part}", "", readPart(collection), false})
	}
	for kind, known := range map[string][]string{"io": ioMetrics(), "hw": hwMetrics()} {
		at := "/metrics/" + kind + "/{metric}"
		list := listMetrics(known, kind == "hw")
		r = append(r, route{"GET " + at, "", list, false}, route{"GET " + at + "/latest", "", list, false})
	}
	for collection, fixed := range map[string]func() entity{"remote_providers": newRemote, "storage_pools": newStoragePool} {
		at := "/" + collection
		r = append(r,
			route{"GET " + at, "", since22(listDocuments(collection)), false},
			route{"POST " + at, collection, since22(createDocument(collection, fixed)), false},
			route{"GET " + at + "/{name}", "", since22(readDocument(collection)), false},
			route{"PUT " + at + "/{name}", collection, since22(updateDocument(collection)), false},
			route{"DELETE " + at + "/{name}", "remove", since22(deleteDocument(collection)), false})
	}
	for _, log := range []string{"/audit_logs", "/event_logs", "/fault_logs"} {
		r = append(r, route{"GET " + log, "", listNothing, false}, route{"GET " + log + "/{name}", "", readNothing, false})
	}
	for _, empty := range []string{"/alerts", "/events/debug", "/events/system", "/events/user", "/monitoring/alerts", "/privileges",
		"/system/dns/search_domains", "/system/dns/servers", "/system/ntp_servers", "/system/snmp_policy/users"} {
		r = append(r, route{"GET " + empty, "", listNothing, false})
	}
	return r
}
