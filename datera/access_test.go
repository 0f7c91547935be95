package datera

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func group(members ...string) map[string]any {
	paths := []any{}
	for _, m := range members {
		paths = append(paths, map[string]any{"path": "/initiators/" + m})
	}
	return map[string]any{"path": "/initiator_groups/group", "name": "group", "members": paths}
}

func TestGroupMembers(t *testing.T) {
	t.Parallel()
	const other = "iqn.2020-01.org.other:1"
	gone := refusing(404, "NotFoundError", "does not exist")
	conflict := refusing(409, "ConflictError", "is there already")
	invalid := refusing(400, "InvalidRequestError", "no")
	for name, test := range map[string]struct {
		remove  bool
		answers []http.HandlerFunc
		members []string
		calls   int
		fails   string
	}{
		"added, the group answers":          {false, []http.HandlerFunc{always(group(other, iqn))}, []string{other, iqn}, 1, ""},
		"added, the list answers":           {false, []http.HandlerFunc{always([]any{"/initiators/" + iqn})}, []string{iqn}, 1, ""},
		"added, something else answers":     {false, []http.HandlerFunc{always(map[string]any{"path": "/x"}), always(group(iqn))}, []string{iqn}, 2, ""},
		"added, the group of before":        {false, []http.HandlerFunc{always(group(other)), always(group(other, iqn))}, []string{other, iqn}, 2, ""},
		"added, no data":                    {false, []http.HandlerFunc{always(nil), always(group(iqn))}, []string{iqn}, 2, ""},
		"there already":                     {false, []http.HandlerFunc{conflict, always(group(iqn))}, []string{iqn}, 2, ""},
		"there already, by another error":   {false, []http.HandlerFunc{invalid, always(group(iqn))}, []string{iqn}, 2, ""},
		"another conflict":                  {false, []http.HandlerFunc{conflict, always(group(other))}, nil, 2, "409 ConflictError"},
		"no group to add to":                {false, []http.HandlerFunc{gone}, nil, 1, "404 NotFoundError"},
		"not allowed":                       {false, []http.HandlerFunc{refusing(403, "PermissionDeniedError", "no")}, nil, 1, "403"},
		"unreadable":                        {false, []http.HandlerFunc{conflict, refusing(500, "InternalError", "no")}, nil, 2, "500"},
		"removed, the group answers":        {true, []http.HandlerFunc{always(group())}, nil, 1, ""},
		"removed, something else answers":   {true, []http.HandlerFunc{always(map[string]any{"path": "/x"}), always(group(other))}, []string{other}, 2, ""},
		"not there":                         {true, []http.HandlerFunc{gone, always(group(other))}, []string{other}, 2, ""},
		"no group to remove from":           {true, []http.HandlerFunc{gone, gone}, nil, 2, ""},
		"not removed":                       {true, []http.HandlerFunc{invalid, always(group(iqn))}, nil, 2, "400 InvalidRequestError"},
		"there though the array denies it":  {true, []http.HandlerFunc{gone, always(group(iqn))}, nil, 2, "404 NotFoundError"},
		"removed, and added again meantime": {true, []http.HandlerFunc{always(group(iqn)), always(group(iqn))}, []string{iqn}, 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArray(t, inTurn(test.answers...))
			change := a.client(t).AddMember
			if test.remove {
				change = a.client(t).RemoveMember
			}
			g, err := change(within(t, 5e9), "group", iqn)
			require.Len(t, a.recorded(), test.calls)
			if test.fails != "" {
				require.ErrorContains(t, err, test.fails)
				require.Nil(t, g)
				return
			}
			require.NoError(t, err)
			require.Equal(t, "group", g.Name)
			require.Equal(t, test.members, g.Members)
		})
	}
}

func TestACLGroups(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		fails  string
	}{
		"added":         {always(map[string]any{"path": "x", "initiators": nil, "initiator_groups": []any{}}), ""},
		"there already": {refusing(409, "ConflictError", "there"), ""},
		"no target":     {refusing(404, "NotFoundError", "no"), "404"},
	} {
		t.Run(name, func(t *testing.T) {
			err := newArray(t, test.answer).client(t).AddInitiatorGroup(within(t, 5e9), siPath, "group")
			if test.fails == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, test.fails)
			}
		})
	}
}

func TestDeletionsOfWhatIsGone(t *testing.T) {
	t.Parallel()
	ctx := within(t, 5e9)
	gone := refusing(404, "NotFoundError", "does not exist")
	a := newArray(t, gone)
	require.NoError(t, a.client(t).DeleteAppInstance(ctx, "shop_db1"))
	require.Equal(t, []string{"DELETE"}, methods(a))
	require.NoError(t, a.client(t).DeleteInitiatorGroup(ctx, "group"))
	require.NoError(t, a.client(t).DeleteInitiator(ctx, iqn))
	require.NoError(t, newArray(t, inTurn(hangUp, gone)).client(t).DeleteAppInstance(ctx, "shop_db1"), "deleted, but the answer was lost")

	foreign := newArray(t, http.NotFound).client(t)
	require.Error(t, foreign.DeleteAppInstance(ctx, "shop_db1"), "another server's 404 proves nothing")
	require.Error(t, foreign.DeleteInitiatorGroup(ctx, "group"))
	require.Error(t, foreign.DeleteInitiator(ctx, iqn))
	require.Error(t, newArray(t, refusing(400, "InvalidRequestError", "online")).client(t).DeleteAppInstance(ctx, "shop_db1"))
}

func TestConflictingCreations(t *testing.T) {
	t.Parallel()
	ctx := within(t, 5e9)
	conflict := refusing(409, "ConflictError", "name is taken")
	c := newArray(t, inTurn(conflict, always(map[string]any{"name": "shop_db1", "id": "1"}))).client(t)
	ai, created, err := c.CreateAppInstance(ctx, AppInstanceRequest{Name: "shop_db1", SizeGiB: 1})
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, "1", ai.ID)

	g, created, err := newArray(t, inTurn(conflict, always(group(iqn)))).client(t).CreateInitiatorGroup(ctx, "group")
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, []string{iqn}, g.Members)

	// A conflict about something else.
	a := newArray(t, inTurn(conflict, refusing(404, "NotFoundError", "does not exist")))
	_, _, err = a.client(t).CreateAppInstance(ctx, AppInstanceRequest{Name: "shop_db1", SizeGiB: 1})
	require.ErrorIs(t, err, ErrConflict)
	require.Equal(t, []string{"POST", "GET"}, methods(a))

	a = newArray(t, inTurn(conflict, always(map[string]any{})))
	require.NoError(t, a.client(t).SetPerformancePolicy(ctx, volPath, PerformancePolicy{}))
	require.Equal(t, []string{"POST", "PUT"}, methods(a))
}

func TestRegisterInitiator(t *testing.T) {
	t.Parallel()
	conflict := refusing(409, "ConflictError", "is there")
	inherited := refusing(400, "InvalidRequestError", "is inherited; use force to override this warning")
	is := func(name, tenant string) http.HandlerFunc {
		return always(map[string]any{"id": iqn, "name": name, "tenant": tenant, "path": "/initiators/" + iqn})
	}
	for name, test := range map[string]struct {
		version string
		answers []http.HandlerFunc
		methods []string
		fails   string
	}{
		"new":                                {"2.2", []http.HandlerFunc{is("node1", "/root/shop")}, []string{"POST"}, ""},
		"there":                              {"2.2", []http.HandlerFunc{conflict, is("node1", "/root/shop")}, []string{"POST", "GET"}, ""},
		"there, inherited":                   {"2.2", []http.HandlerFunc{inherited, is("node1", "/root")}, []string{"POST", "GET"}, ""},
		"another name":                       {"2.2", []http.HandlerFunc{conflict, is("node2", "/root/shop")}, []string{"POST", "GET"}, `"node2", not as "node1"`},
		"another name, inherited":            {"2.2", []http.HandlerFunc{inherited, is("node2", "/root"), is("node1", "/root/shop")}, []string{"POST", "GET", "POST"}, ""},
		"another name, inherited, v2.1":      {"2.1", []http.HandlerFunc{inherited, is("node2", "/root")}, []string{"POST", "GET"}, `in tenant /root of the array as "node2"`},
		"refused":                            {"2.2", []http.HandlerFunc{refusing(422, "ValidationFailedError", "no")}, []string{"POST"}, "422"},
		"inherited and unreadable":           {"2.2", []http.HandlerFunc{inherited, refusing(500, "InternalError", "no")}, []string{"POST", "GET"}, "500"},
		"answer lost and it was carried out": {"2.2", []http.HandlerFunc{hangUp, is("node1", "/root")}, []string{"POST", "GET"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArray(t, inTurn(test.answers...))
			config := a.config()
			config.APIVersion, config.Tenant = test.version, "shop"
			i, err := connect(t, config).RegisterInitiator(within(t, 5e9), iqn, "node1")
			require.Equal(t, test.methods, methods(a))
			if len(test.methods) == 3 {
				require.JSONEq(t, `{"id":"`+iqn+`","name":"node1","force":true}`, string(a.recorded()[2].Body))
			}
			if test.fails != "" {
				require.ErrorContains(t, err, test.fails)
				return
			}
			require.NoError(t, err)
			require.Equal(t, "node1", i.Name)
		})
	}
	var named *InitiatorNameError
	_, err := newArray(t, inTurn(conflict, is("node2", "/root"))).client(t).RegisterInitiator(within(t, 5e9), iqn, "node1")
	require.ErrorAs(t, err, &named)
	require.Equal(t, InitiatorNameError{IQN: iqn, Tenant: "/root", Have: "node2", Want: "node1"}, *named)
}

func TestInitiatorByName(t *testing.T) {
	t.Parallel()
	const other = "iqn.2020-01.org.other:1"
	initiator := func(id, name, tenant string) any { return map[string]any{"id": id, "name": name, "tenant": tenant} }
	for name, test := range map[string]struct {
		answer []any
		want   string
		fails  string
	}{
		"found":                {[]any{initiator(other, "node10", "/root"), initiator(iqn, "node1", "/root")}, iqn, ""},
		"own before inherited": {[]any{initiator(other, "node1", "/root"), initiator(iqn, "node1", "/root/shop")}, iqn, ""},
		"none":                 {[]any{initiator(other, "node10", "/root")}, "", `initiator named "node1" in tenant /root/shop`},
		"two":                  {[]any{initiator(other, "node1", "/root"), initiator(iqn, "node1", "/root")}, "", "initiators " + other + " and " + iqn + " of"},
	} {
		t.Run(name, func(t *testing.T) {
			config := newArray(t, always(test.answer)).config()
			config.Tenant = "shop"
			i, err := connect(t, config).InitiatorByName(within(t, 5e9), "node1")
			if test.fails != "" {
				require.ErrorContains(t, err, test.fails)
				require.Equal(t, name == "none", IsNotFound(err))
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, i.ID)
		})
	}
}
