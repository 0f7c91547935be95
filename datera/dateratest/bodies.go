package dateratest

import "regexp"

// The patterns and limits are those of the schema that a v2.1 cluster serves at /api.
const (
	maxSize21 = 32768  // GiB
	maxSize   = 262144 // GiB
)

// bodies holds the description of every request body by the name that the route table uses.
func bodies() map[string]property {
	var (
		name      = matching(regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_\-.]{2,63}$`))
		aiName    = matching(regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_\-.]{2,63}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$`))
		uuidText  = matching(regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`))
		userName  = matching(regexp.MustCompile(`^[a-zA-Z0-9_]{3,32}$`))
		hostName  = matching(regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_\-. ]{2,127}$`))
		hostID    = matching(regexp.MustCompile(`^(iqn\.\d{4}-\d{2}\.[^/\s]{4,211}|eui\.[0-9a-fA-F]{16})$`))
		password  = matching(regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_\-.]{2,127}$`)).hidden()
		chapUser  = matching(regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_\-.:]{2,63})?$`))
		chapWord  = property{kind: "string", min: 12, max: 16}
		descr     = text(128).orNull()
		state     = oneOf(online, offline)
		access    = oneOf(allowAll, denyAll)
		mode      = oneOf("hybrid", "single_flash", "all_flash")
		path      = text(1024).must()
		ref       = object(properties{"path": path})
		resolved  = object(properties{"path": path, "resolved_path": text(0), "resolved_tenant": text(0)})
		policyRef = resolved.from(v22).newProduct()
		member    = object(properties{"path": path, "op": oneOf("add", "remove").must()}).withOthers()
		replicas  = integer(1, 5)
		size      = integer(1, maxSize).upTo21(maxSize21)
		count     = integer(0, 10_000_000)
		bandwidth = integer(0, 10_240_000)
	)
	policy := object(properties{
		"name": name.must(), "interval": oneOf("1min", "2min", "15min", "1hour", "1day", "1week", "1month", "1year").must(),
		"retention_count": integer(1, 256).must(), "start_time": text(64),
	})
	policyUpdate := object(properties{"interval": oneOf("1min", "2min", "15min", "1hour", "1day", "1week", "1month", "1year"),
		"retention_count": integer(1, 256), "start_time": text(64)})
	performance := object(properties{"total_iops_max": count, "read_iops_max": count, "write_iops_max": count,
		"total_bandwidth_max": bandwidth, "read_bandwidth_max": bandwidth, "write_bandwidth_max": bandwidth})
	auth := object(properties{"type": oneOf("none", "chap", "mchap").must(), "initiator_user_name": chapUser,
		"initiator_pswd": chapWord, "target_user_name": chapUser, "target_pswd": chapWord})
	acl := object(properties{"initiators": arrayOf(ref), "initiator_groups": arrayOf(ref)})
	volume := object(properties{"name": name.must(), "size": size.must(), "replica_count": replicas, "placement_mode": mode,
		"placement_policy": policyRef, "snapshot_policies": arrayOf(policy), "performance_policy": performance})
	volumeUpdate := object(properties{"size": size, "replica_count": replicas, "placement_mode": mode,
		"placement_policy": policyRef, "restore_point": text(64)})
	storage := object(properties{"name": name.must(), "admin_state": state, "volumes": arrayOf(volume),
		"access_control_mode": access, "acl_policy": acl, "ip_pool": ref, "access": object(nil), "auth": auth,
		"service_configuration": oneOf("iscsi").from(v22)})
	storageUpdate := object(properties{"admin_state": state, "auth": auth, "acl_policy": acl, "force": flag(),
		"access_control_mode": access, "ip_pool": ref, "volumes": arrayOf(volume)})
	override := mapOf(object(properties{"volumes": mapOf(object(properties{"size": matching(regexp.MustCompile(`^[1-9]\d{0,5}$`))}))}))
	snapshot := object(properties{"uuid": uuidText, "type": oneOf("local").from(v22).newProduct()})
	volumeTemplate := object(properties{"name": name.must(), "size": integer(1, maxSize).must(), "replica_count": replicas,
		"placement_mode": mode, "placement_policy": policyRef, "snapshot_policies": arrayOf(policy), "performance_policy": performance})
	storageTemplate := object(properties{"name": name.must(), "auth": auth, "ip_pool": ref, "volume_templates": arrayOf(volumeTemplate)})
	network := object(properties{"name": name.must(), "start_ip": text(15).must(), "range": integer(6, 254).must(),
		"netmask": integer(16, 29).must(), "vlan": integer(0, 4094), "mtu": integer(1500, 9198), "gateway": text(15)})

	return map[string]property{
		"empty":  object(nil),
		"any":    mapOf(anything()),
		"delete": object(properties{"force": flag(), "remote_provider_uuid": text(0)}),
		"login":  object(properties{"name": text(0).must(), "password": text(0).must(), "remote_server": text(0)}).withOthers(),
		"appInstance": object(properties{
			"name": aiName.must(), "descr": descr, "uuid": uuidText, "access_control_mode": access,
			"create_mode": oneOf("normal", "openstack", "internal", "docker", "cloudstack", "kubernetes", "mesos",
				"vmware_vro", "vmware_vcenter", "docker_swarm"),
			"storage_instances": arrayOf(storage), "app_template": ref, "snapshot_policies": arrayOf(policy),
			"clone_src": ref, "clone_volume_src": ref, "clone_snapshot_src": ref,
			"template_override": object(properties{"storage_instances": override}).from(v22),
			"repair_priority":   oneOf("default", "high").from(v22),
		}),
		"appInstanceUpdate": object(properties{"name": aiName, "descr": descr, "admin_state": state, "force": flag(),
			"provisioned": flag(), "restore_point": text(64), "storage_instances": arrayOf(storage),
			"snapshot_policies": arrayOf(policy), "repair_priority": oneOf("default", "high").from(v22)}),
		"storage": storage, "storageUpdate": storageUpdate, "acl": acl, "member": member, "auth": auth,
		"volume": volume, "volumeUpdate": volumeUpdate, "performance": performance,
		"snapshot": snapshot, "snapshotPolicy": policy, "snapshotPolicyUpdate": policyUpdate,
		"ecosystem":       object(properties{"data": mapOf(anything()).must()}),
		"initiator":       object(properties{"id": hostID.must(), "name": hostName.must(), "force": flag().from(v22)}),
		"initiatorUpdate": object(properties{"name": hostName.must()}),
		"group":           object(properties{"name": hostName.must(), "members": arrayOf(ref), "force": flag().from(v22)}),
		"groupUpdate":     object(properties{"name": hostName, "members": arrayOf(ref)}),
		"pool":            object(properties{"name": name.must(), "descr": descr, "network_paths": arrayOf(network).must()}),
		"poolUpdate":      object(properties{"descr": descr, "network_paths": arrayOf(network)}),
		"template": object(properties{"name": name.must(), "descr": descr, "snapshot_policies": arrayOf(policy),
			"storage_templates": arrayOf(storageTemplate), "copy_from": ref}),
		"templateUpdate":  object(properties{"descr": descr, "snapshot_policies": arrayOf(policy), "storage_templates": arrayOf(storageTemplate)}),
		"tenant":          object(properties{"name": name.must(), "descr": descr, "parent_path": text(256)}),
		"tenantUpdate":    object(properties{"descr": descr}),
		"user":            object(properties{"user_id": userName.must(), "full_name": text(128).must(), "password": password.must(), "email": text(128), "enabled": flag(), "roles": arrayOf(ref), "tenants": arrayOf(ref)}),
		"userUpdate":      object(properties{"full_name": text(128), "password": password, "email": text(128), "enabled": flag()}),
		"placement":       object(properties{"name": name.must(), "descr": descr, "max": arrayOf(text(256)).must(), "min": arrayOf(text(256))}),
		"placementUpdate": object(properties{"descr": descr, "max": arrayOf(text(256)), "min": arrayOf(text(256))}),
		"media":           object(properties{"name": name.must(), "priority": integer(0, 1000).must()}),
		"mediaUpdate":     object(properties{"priority": integer(0, 1000).must()}),
	}
}
