package dateratest

// The patterns and limits are those of the schema that a v2.1 cluster serves at /api.
const (
	maxSize21 = 32768  // GiB
	maxSize   = 262144 // GiB
	lowerUUID = `[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}`
	// initiatorID is how a cluster writes the pattern; the length that it looks ahead for is checked by itself here.
	initiatorID = `((?=.{16,223}$)^iqn\.[0-9]{4}-[0-1][0-9]\.[^\/]*\.[^\/]*$)|(^eui\.[0-9A-Fa-f]{16}$)`
	emailText   = `^(([^<>()[\]\\.,;:\s@\"]+(\.[^<>()[\]\\.,;:\s@\"]+)*)|(\".+\"))@((\[[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\])|(([a-zA-Z\-0-9]+\.)+[a-zA-Z]{2,}))$`
	hostText    = `(^(([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])\.){3}([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])$)|(^(([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9])\.)*([A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9\-]*[A-Za-z0-9])$)`
)

// bodies holds the description of every request body by the name that the route table uses.
func bodies() map[string]property {
	var (
		name        = pattern(`^[a-zA-Z_][a-zA-Z0-9_\-\.]{2,63}$`)
		nameOrID    = pattern(`(^` + lowerUUID + `$)|(^[a-zA-Z_][a-zA-Z0-9_\-\.]{2,63}$)`)
		uuidText    = pattern(lowerUUID)
		userName    = pattern(`^[a-zA-Z0-9_]{3,32}$`)
		label       = pattern(`^[a-zA-Z_][a-zA-Z0-9_\-\s\.]{2,127}$`)
		hostID      = pattern(`(^iqn\.[0-9]{4}-[0-1][0-9]\.[^\/]*\.[^\/]*$)|(^eui\.[0-9A-Fa-f]{16}$)`).long(16, 223).shownAs(initiatorID)
		password    = pattern(`^[a-zA-Z_][a-zA-Z0-9_\-\.]{2,127}$`).hidden()
		email       = pattern(emailText).long(0, 254).orNull()
		chapWord    = property{kind: "string", min: 12, max: 16}
		descr       = label.orNull()
		moment      = property{kind: "string", format: "date-time"}
		remark      = pattern(`^[a-zA-Z_][^\\]{2,127}$`)
		state       = oneOf(online, offline)
		access      = oneOf(allowAll, denyAll)
		mode        = oneOf("hybrid", "single_flash", "all_flash")
		path        = pattern(`(^(\/)$)|(^(\/[^\/]+)+$)`).must()
		ref         = object(properties{"path": path})
		resolved    = object(properties{"path": path, "resolved_path": text(0), "resolved_tenant": text(0)})
		policyRef   = resolved.from(v22).newProduct()
		member      = object(properties{"path": path, "op": oneOf("add", "remove").must()}).withOthers()
		replicas    = integer(1, 5)
		size        = integer(1, maxSize).upTo21(maxSize21)
		count       = integer(0, 10_000_000)
		bandwidth   = integer(0, 10_240_000)
		aggregation = oneOf("single", "bonded")
		service     = oneOf("iscsi", "object").from(v22)
		ip          = pattern(`^(([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])\.){3}([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])$`)
	)
	policy := object(properties{
		"name": name.must(), "interval": oneOf("1min", "2min", "15min", "1hour", "1day", "1week", "1month", "1year").must(),
		"retention_count": integer(1, 256).must(), "start_time": moment,
	})
	policyUpdate := object(properties{"interval": oneOf("1min", "2min", "15min", "1hour", "1day", "1week", "1month", "1year"),
		"retention_count": integer(1, 256), "start_time": moment})
	performance := object(properties{"total_iops_max": count, "read_iops_max": count, "write_iops_max": count,
		"total_bandwidth_max": bandwidth, "read_bandwidth_max": bandwidth, "write_bandwidth_max": bandwidth})
	authUpdate := object(properties{"type": oneOf("none", "chap", "mchap"), "initiator_user_name": name,
		"initiator_pswd": chapWord, "target_user_name": name, "target_pswd": chapWord})
	auth := authUpdate.requiring("type")
	acl := object(properties{"initiators": arrayOf(ref), "initiator_groups": arrayOf(ref)})
	volume := object(properties{"name": name.must(), "size": size.must(), "replica_count": replicas, "placement_mode": mode,
		"placement_policy": policyRef, "snapshot_policies": arrayOf(policy), "performance_policy": performance})
	volumeUpdate := object(properties{"size": size, "replica_count": replicas, "placement_mode": mode,
		"placement_policy": policyRef, "restore_point": text(64)})
	storage := object(properties{"name": name.must(), "admin_state": state, "volumes": arrayOf(volume),
		"access_control_mode": access, "acl_policy": acl, "ip_pool": ref, "access": object(nil), "auth": auth,
		"service_configuration": service})
	storageUpdate := object(properties{"admin_state": state, "auth": authUpdate, "acl_policy": acl, "force": flag(),
		"access_control_mode": access, "ip_pool": ref, "volumes": arrayOf(volume)})
	override := mapOf(object(properties{"volumes": mapOf(object(properties{"size": pattern(`^[1-9]\d{0,5}$`)}))}))
	snapshot := object(properties{"uuid": uuidText, "type": oneOf("local").from(v22).newProduct()})
	volumeTemplateUpdate := object(properties{"size": integer(1, maxSize), "replica_count": replicas, "placement_mode": mode,
		"placement_policy": policyRef})
	volumeTemplate := volumeTemplateUpdate.with(properties{"name": name.must(), "size": integer(1, maxSize).must(),
		"snapshot_policies": arrayOf(policy), "performance_policy": performance})
	templatePool := object(properties{"path": text(1024)}).orText()
	storageTemplateUpdate := object(properties{"auth": authUpdate, "ip_pool": templatePool, "volume_templates": arrayOf(volumeTemplate)})
	storageTemplate := storageTemplateUpdate.with(properties{"name": name.must(), "auth": auth, "service_configuration": service})
	networkUpdate := object(properties{"start_ip": ip, "range": integer(6, 254), "netmask": integer(16, 29), "vlan": integer(0, 4094),
		"mtu": integer(1500, 9198), "gateway": ip})
	network := networkUpdate.with(properties{"name": text(64)}).requiring("start_ip", "range", "netmask")

	return map[string]property{
		"empty":  object(nil),
		"any":    mapOf(anything()),
		"delete": object(properties{"force": flag()}),
		"remove": object(properties{"force": flag().from(v22), "remote_provider_uuid": text(0).from(v22)}),
		"login":  object(properties{"name": userName.must(), "password": password.must(), "remote_server": text(0)}).withOthers(),
		"appInstance": object(properties{
			"name": nameOrID.must(), "descr": descr, "uuid": uuidText, "access_control_mode": access,
			"create_mode": oneOf("normal", "openstack", "internal", "docker", "cloudstack", "kubernetes", "mesos",
				"vmware_vro", "vmware_vcenter", "docker_swarm"),
			"storage_instances": arrayOf(storage), "app_template": ref, "snapshot_policies": arrayOf(policy),
			"clone_src": ref, "clone_volume_src": ref, "clone_snapshot_src": ref,
			"template_override": object(properties{"storage_instances": override}).from(v22),
			"repair_priority":   oneOf("default", "high").from(v22),
		}),
		"appInstanceUpdate": object(properties{"name": nameOrID, "descr": descr, "admin_state": state, "force": flag(),
			"provisioned": flag(), "restore_point": text(64), "storage_instances": arrayOf(storage),
			"snapshot_policies": arrayOf(policy), "repair_priority": oneOf("default", "high").from(v22)}),
		"storage": storage, "storageUpdate": storageUpdate, "acl": acl, "member": member, "auth": authUpdate,
		"volume": volume, "volumeUpdate": volumeUpdate, "performance": performance,
		"snapshot": snapshot, "snapshotPolicy": policy, "snapshotPolicyUpdate": policyUpdate,
		"ecosystem":       object(properties{"data": mapOf(anything()).must()}),
		"initiator":       object(properties{"id": hostID.must(), "name": label.must(), "force": flag().from(v22)}),
		"initiatorUpdate": object(properties{"name": label}),
		"group":           object(properties{"name": name.must(), "members": arrayOf(ref), "force": flag().from(v22)}),
		"groupUpdate":     object(properties{"members": arrayOf(ref)}),
		"pool":            object(properties{"name": name.must(), "descr": descr, "network_paths": arrayOf(network)}),
		"poolUpdate":      object(properties{"descr": descr, "network_paths": arrayOf(network)}),
		"template": object(properties{"name": name.must(), "descr": descr, "snapshot_policies": arrayOf(policy),
			"storage_templates": arrayOf(storageTemplate), "copy_from": ref}),
		"templateUpdate":  object(properties{"descr": descr, "snapshot_policies": arrayOf(policy), "storage_templates": arrayOf(storageTemplate)}),
		"tenant":          object(properties{"name": nameOrID.must(), "descr": descr, "parent_path": text(256)}),
		"tenantUpdate":    object(properties{"descr": descr}),
		"user":            object(properties{"user_id": userName.must(), "full_name": label.must(), "password": password.must(), "email": email, "enabled": flag(), "roles": arrayOf(ref), "tenants": arrayOf(ref)}),
		"userUpdate":      object(properties{"full_name": label, "password": password, "email": email, "enabled": flag(), "roles": arrayOf(ref), "tenants": arrayOf(ref)}),
		"placement":       object(properties{"name": name.must(), "descr": descr, "max": arrayOf(text(256)).must(), "min": arrayOf(text(256))}),
		"placementUpdate": object(properties{"descr": descr, "max": arrayOf(text(256)), "min": arrayOf(text(256))}),
		"media":           object(properties{"name": name.must(), "descr": descr, "priority": integer(0, 1000).must()}),
		"mediaUpdate":     object(properties{"descr": descr, "priority": integer(0, 1000)}),
		"vipUpdate":       object(properties{"netmask": integer(1, 32), "vlan": integer(0, 4094), "ip": ip, "gateway": ip, "mtu": integer(1500, 9198)}),
		"networkUpdate":   networkUpdate,
		"storageTemplate": storageTemplate, "storageTemplateUpdate": storageTemplateUpdate,
		"volumeTemplate": volumeTemplate, "volumeTemplateUpdate": volumeTemplateUpdate,
		"systemUpdate": object(properties{"callhome_enabled": flag(), "compression_enabled": flag(), "access_interface_aggr_type": aggregation,
			"internal_interface_aggr_type": aggregation, "network_devices": arrayOf(mapOf(anything())), "interface_aggregation_mode": oneOf("balance-rr",
				"active-backup", "balance-xor", "broadcast", "lacp", "balance-tlb", "balance-alb")}),
		"nodeUpdate": object(properties{"admin_state": oneOf(online, offline, "decommission"), "media_policy": text(256).from(v22)}),
		"operation":  object(properties{"action": oneOf("clear", "abort").must()}),
		"remote_providers": object(properties{"project_name": text(256), "account_id": text(256), "private_key": text(0).hidden(),
			"label": text(128), "host": text(256), "port": integer(1, 65535), "access_key": text(256).hidden(), "secret_key": text(256).hidden(),
			"remote_type": oneOf("AWS S3", "Google Cloud", "S3 Object Store")}),
		"storage_pools":                object(properties{"name": name, "members": arrayOf(ref)}),
		"/system/dns":                  object(properties{"domain": label}),
		"/system/http_proxy":           object(properties{"enabled": flag(), "host": pattern(hostText), "port": integer(1, 65535), "user": label, "password": password}),
		"/system/snmp_policy":          object(properties{"location": remark, "contact": remark, "enabled": flag()}),
		"/monitoring/policies/default": object(properties{"enabled": flag()}),
		"/monitoring/destinations/default": object(properties{"host": pattern(hostText), "port": integer(1, 65535), "facility": oneOf("Local0", "Local1",
			"Local2", "Local3", "Local4", "Local5", "Local6", "Local7")}),
	}
}
