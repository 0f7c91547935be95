package datera_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
	"datera-flexvolume/datera/dateratest"
)

// The whole life of a volume on an array that refuses every body it does not know.
func TestLifeOfAVolume(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"2.1", "2.2", "2.3"} {
		t.Run(version, func(t *testing.T) {
			array := dateratest.Start(t, dateratest.WithTLS())
			c, err := datera.New(datera.Config{
				Address: strings.TrimPrefix(array.URL, "https://"), CAFile: array.CAFile, APIVersion: version,
				Username: "admin", Password: "password", TokenDir: t.TempDir(), Driver: "driver",
			})
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			const iqn, other = "iqn.1993-08.org.debian:01:abc123", "iqn.1993-08.org.debian:01:def456"

			_, err = c.AppInstance(ctx, "shop_db1")
			require.ErrorIs(t, err, datera.ErrNotFound)
			request := datera.AppInstanceRequest{
				Name: "shop_db1", Descr: "test", CreateMode: "docker", AccessControlMode: "deny_all", SizeGiB: 2, ReplicaCount: 1, PlacementMode: "hybrid", IPPool: "default",
				Auth:              datera.Auth{Type: datera.AuthCHAP, TargetUserName: "host", TargetPassword: "host-password"},
				PerformancePolicy: datera.PerformancePolicy{TotalIOPSMax: 100},
			}
			if version != "2.1" {
				request.PlacementPolicy = "default"
			}
			ai, created, err := c.CreateAppInstance(ctx, request)
			require.NoError(t, err)
			require.True(t, created)
			_, created, err = c.CreateAppInstance(ctx, request)
			require.NoError(t, err)
			require.False(t, created)
			target, err := ai.StorageInstance()
			require.NoError(t, err)
			require.NotEmpty(t, target.Access.IPs)
			require.Equal(t, datera.AuthCHAP, target.Auth.Type)
			volume, err := ai.Volume()
			require.NoError(t, err)
			require.EqualValues(t, 2, volume.SizeGiB)
			require.EqualValues(t, 100, volume.PerformancePolicy.TotalIOPSMax)

			_, err = c.InitiatorByName(ctx, "node 1")
			require.ErrorIs(t, err, datera.ErrNotFound)
			for range 2 {
				initiator, err := c.RegisterInitiator(ctx, iqn, "node 1")
				require.NoError(t, err)
				require.Equal(t, iqn, initiator.ID)
			}
			var renamed *datera.InitiatorNameError
			_, err = c.RegisterInitiator(ctx, iqn, "node 2")
			require.ErrorAs(t, err, &renamed)
			_, err = c.RegisterInitiator(ctx, other, "node 2")
			require.NoError(t, err)
			initiator, err := c.InitiatorByName(ctx, "node 1")
			require.NoError(t, err)
			require.Equal(t, iqn, initiator.ID)

			for round := range 2 {
				group, created, err := c.CreateInitiatorGroup(ctx, "shop_db1", iqn)
				require.NoError(t, err)
				require.Equal(t, round == 0, created)
				require.Equal(t, []string{iqn}, group.Members)
				require.NoError(t, c.AddInitiatorGroup(ctx, target.Path, "shop_db1"))
				letIn, err := c.AppInstancesReferringTo(ctx, "shop_db1")
				require.NoError(t, err)
				require.Len(t, letIn, 1)
				require.Equal(t, target.Path, letIn[0].StorageInstances[0].Path)
				group, err = c.AddMember(ctx, "shop_db1", iqn)
				require.NoError(t, err)
				require.Equal(t, []string{iqn}, group.Members)
			}
			group, err := c.AddMember(ctx, "shop_db1", other)
			require.NoError(t, err)
			require.ElementsMatch(t, []string{iqn, other}, group.Members)
			groups, err := c.InitiatorGroups(ctx, "shop_db1", "shop_db2")
			require.NoError(t, err)
			require.Len(t, groups, 1)
			for range 2 {
				group, err = c.RemoveMember(ctx, "shop_db1", other)
				require.NoError(t, err)
				require.Equal(t, []string{iqn}, group.Members)
			}
			group, err = c.RemoveMember(ctx, "shop_db2", iqn)
			require.NoError(t, err)
			require.Empty(t, group.Members)

			_, err = c.ResizeVolume(ctx, volume.Path, 3)
			require.NoError(t, err)
			for limit := range int64(3) {
				require.NoError(t, c.SetPerformancePolicy(ctx, volume.Path, datera.PerformancePolicy{TotalBandwidthMax: limit}))
			}
			require.NoError(t, c.SetAuth(ctx, target.Path, datera.Auth{
				Type: datera.AuthMutualCHAP, TargetUserName: "host", TargetPassword: "host-password", InitiatorUserName: "array", InitiatorPassword: "array-password",
			}))
			require.NoError(t, c.SetAuth(ctx, target.Path, datera.Auth{}))
			require.NoError(t, c.SetMetadata(ctx, ai.ID, map[string]string{"formatted": "true"}))
			require.NoError(t, c.SetMetadata(ctx, ai.ID, map[string]string{"by": "node 1"}))
			pairs, err := c.Metadata(ctx, "shop_db1")
			require.NoError(t, err)
			require.Equal(t, map[string]string{"formatted": "true", "by": "node 1"}, pairs)

			_, created, err = c.CreateAppInstance(ctx, datera.AppInstanceRequest{Name: "shop_clone", CreateMode: "docker", AccessControlMode: "deny_all", CloneVolume: volume.Path})
			require.NoError(t, err)
			require.True(t, created)
			array.ExpireKeys()
			ai, err = c.AppInstance(ctx, "shop_db1")
			require.NoError(t, err)
			volume, err = ai.Volume()
			require.NoError(t, err)
			require.EqualValues(t, 3, volume.SizeGiB)
			require.EqualValues(t, datera.PerformancePolicy{TotalBandwidthMax: 2}, volume.PerformancePolicy)

			ai, err = c.SetAdminState(ctx, ai.ID, datera.AdminOffline, true)
			require.NoError(t, err)
			require.Equal(t, datera.AdminOffline, ai.AdminState)
			require.ErrorContains(t, c.DeleteInitiator(ctx, iqn), "in use by /initiator_groups/shop_db1")
			for range 2 {
				require.NoError(t, c.DeleteAppInstance(ctx, "shop_db1"))
				require.NoError(t, c.DeleteInitiatorGroup(ctx, "shop_db1"))
				require.NoError(t, c.DeleteInitiator(ctx, iqn))
			}
			require.NotContains(t, array.Initiators("/root"), iqn)
			tenants, err := c.Tenants(ctx)
			require.NoError(t, err)
			require.Equal(t, []string{"/root"}, tenants)
		})
	}
}

// Initiators are inherited from the parent tenant. A tenant may have its own name for one, since 2.2.
func TestInheritedInitiator(t *testing.T) {
	t.Parallel()
	for version, may := range map[string]bool{"2.1": false, "2.2": true} {
		t.Run(version, func(t *testing.T) {
			array := dateratest.Start(t)
			_, err := array.Do("/root", "POST", "/tenants", map[string]string{"name": "shop"})
			require.NoError(t, err)
			in := func(tenant string) *datera.Client {
				c, err := datera.New(datera.Config{
					Scheme: "http", Address: strings.TrimPrefix(array.URL, "http://"), APIVersion: version, Username: "admin", Password: "password", Tenant: tenant,
				})
				require.NoError(t, err)
				return c
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			const iqn = "iqn.1993-08.org.debian:01:abc123"
			_, err = in("").RegisterInitiator(ctx, iqn, "node 1")
			require.NoError(t, err)

			shop := in("shop")
			initiator, err := shop.RegisterInitiator(ctx, iqn, "node 1")
			require.NoError(t, err)
			require.Equal(t, "/root", initiator.Tenant)
			group, _, err := shop.CreateInitiatorGroup(ctx, "shop_db1", iqn)
			require.NoError(t, err)
			require.Equal(t, []string{iqn}, group.Members)

			_, err = shop.RegisterInitiator(ctx, iqn, "node 2")
			var name *datera.InitiatorNameError
			require.Equal(t, !may, errors.As(err, &name), "%v", err)
			if may {
				initiator, err = shop.InitiatorByName(ctx, "node 2")
				require.NoError(t, err)
				require.Equal(t, "/root/shop", initiator.Tenant)
			}
			tenants, err := shop.Tenants(ctx)
			require.NoError(t, err)
			require.Equal(t, []string{"/root/shop"}, tenants)

			_, err = in("nowhere").AppInstance(ctx, "shop_db1")
			require.ErrorContains(t, err, "in tenant /root/nowhere")
		})
	}
}

func TestGroupsWithAPrefix(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"2.1", "2.2", "2.3"} {
		t.Run(version, func(t *testing.T) {
			array := dateratest.Start(t)
			c, err := datera.New(datera.Config{Scheme: "http", Address: array.Address(), APIVersion: version, Username: "admin", Password: "password"})
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			const iqn = "iqn.1993-08.org.debian:01:abc123"
			require.NoError(t, array.RegisterInitiator(iqn, "node-1"))
			for name, members := range map[string][]string{
				"k8s_a_pv-2": nil, "k8s_a_pv-1": {iqn}, "k8s_b_pv-1": {iqn}, "k8s-ro_a_pv-1": {iqn}, "other_k8s_a_pv-1": {iqn},
			} {
				_, _, err := c.CreateInitiatorGroup(ctx, name, members...)
				require.NoError(t, err)
			}
			groups, err := c.InitiatorGroupsWithPrefix(ctx, "k8s_a_")
			require.NoError(t, err)
			require.Equal(t, []datera.InitiatorGroup{
				{Path: "/initiator_groups/k8s_a_pv-1", Name: "k8s_a_pv-1", Tenant: groups[0].Tenant, Members: []string{iqn}},
				{Path: "/initiator_groups/k8s_a_pv-2", Name: "k8s_a_pv-2", Tenant: groups[1].Tenant, Members: []string{}},
			}, groups)
		})
	}
}
