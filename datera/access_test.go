package datera

import (
	"errors"
	"net/http"
	"strings"
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

func otherGroup(members ...string) map[string]any {
	g := group(members...)
	g["path"], g["name"] = "/initiator_groups/other", "other"
	return g
}

var silentGroup = map[string]any{"path": "/initiator_groups/group", "name": "group"}

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
		"added, the group answers":           {false, []http.HandlerFunc{always(group(other, iqn))}, []string{other, iqn}, 1, ""},
		"added, in other letters":            {false, []http.HandlerFunc{always(group(strings.ToUpper(iqn)))}, []string{strings.ToUpper(iqn)}, 1, ""},
		"added, the list answers":            {false, []http.HandlerFunc{always([]any{"/initiators/" + iqn}), always(group(iqn))}, []string{iqn}, 2, ""},
		"added, the initiator answers":       {false, []http.HandlerFunc{always(initiator(iqn, "node1", "/root")), always(group(iqn))}, []string{iqn}, 2, ""},
		"added, another group answers":       {false, []http.HandlerFunc{always(otherGroup(iqn)), always(group(iqn))}, []string{iqn}, 2, ""},
		"not added, whatever it says":        {false, []http.HandlerFunc{always(group(other)), always(group(other))}, nil, 2, "initiator group group does not contain " + iqn},
		"not added, another group answers":   {false, []http.HandlerFunc{always(otherGroup(iqn)), always(otherGroup(iqn))}, nil, 2, `it is initiator group "other", not "group"`},
		"added, the group of before":         {false, []http.HandlerFunc{always(group(other)), always(group(other, iqn))}, []string{other, iqn}, 2, ""},
		"added, no data":                     {false, []http.HandlerFunc{always(nil), always(group(iqn))}, []string{iqn}, 2, ""},
		"there already":                      {false, []http.HandlerFunc{conflict, always(group(iqn))}, []string{iqn}, 2, ""},
		"there already, by another error":    {false, []http.HandlerFunc{invalid, always(group(iqn))}, []string{iqn}, 2, ""},
		"another conflict":                   {false, []http.HandlerFunc{conflict, always(group(other))}, nil, 2, "409 ConflictError"},
		"no group to add to":                 {false, []http.HandlerFunc{gone, gone}, nil, 2, "404 NotFoundError"},
		"not allowed":                        {false, []http.HandlerFunc{refusing(403, "PermissionDeniedError", "no")}, nil, 1, "403"},
		"unreadable":                         {false, []http.HandlerFunc{conflict, refusing(500, "InternalError", "no")}, nil, 2, "500"},
		"removed, the group answers":         {true, []http.HandlerFunc{always(group())}, []string{}, 1, ""},
		"removed, the initiator answers":     {true, []http.HandlerFunc{always(initiator(iqn, "node1", "/root")), always(group(other))}, []string{other}, 2, ""},
		"removed, another group answers":     {true, []http.HandlerFunc{always(otherGroup()), always(group(other))}, []string{other}, 2, ""},
		"removed, a list answers":            {true, []http.HandlerFunc{always([]any{}), always(group(other))}, []string{other}, 2, ""},
		"removed, nothing answers":           {true, []http.HandlerFunc{always(nil), always(group(other))}, []string{other}, 2, ""},
		"removed, the group is silent":       {true, []http.HandlerFunc{always(silentGroup), always(group(other))}, []string{other}, 2, ""},
		"removed, the group is silent twice": {true, []http.HandlerFunc{always(silentGroup), always(silentGroup)}, nil, 2, "does not say who is in it"},
		"not there":                          {true, []http.HandlerFunc{gone, always(group(other))}, []string{other}, 2, ""},
		"no group to remove from":            {true, []http.HandlerFunc{gone, gone}, []string{}, 2, ""},
		"an answer without a removal":        {true, []http.HandlerFunc{always(group(iqn)), always(group())}, []string{}, 2, ""},
		"no removal, an empty list answers":  {true, []http.HandlerFunc{always([]any{}), always(group(iqn))}, nil, 2, "initiator group group still contains " + iqn},
		"no removal, in other letters":       {true, []http.HandlerFunc{always(group(strings.ToUpper(iqn))), always(group(strings.ToUpper(iqn)))}, nil, 2, "still contains"},
		"422 and it is gone":                 {true, []http.HandlerFunc{refusing(422, "ValidationFailedError", "no"), always(group())}, []string{}, 2, ""},
		"not removed":                        {true, []http.HandlerFunc{invalid, always(group(iqn))}, nil, 2, "400 InvalidRequestError"},
		"there though the array denies it":   {true, []http.HandlerFunc{gone, always(group(iqn))}, nil, 2, "404 NotFoundError"},
		"removed, says the array, twice not": {true, []http.HandlerFunc{always(group(iqn)), always(group(iqn))}, nil, 2, "initiator group group still contains " + iqn},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArray(t, inTurn(test.answers...))
			change := a.client(t).AddMember
			if test.remove {
				change = a.client(t).RemoveMember
			}
			g, err := change(t.Context(), "group", iqn)
			require.Len(t, a.recorded(), test.calls)
			if test.fails != "" {
				require.ErrorContains(t, err, test.fails)
				require.ErrorContains(t, err, "/v2.2/initiator_groups/group")
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
	policy := func(groups ...string) http.HandlerFunc {
		references := []any{}
		for _, g := range groups {
			references = append(references, map[string]any{"path": "/initiator_groups/" + g})
		}
		return always(map[string]any{"path": siPath + "/acl_policy", "initiators": []any{}, "initiator_groups": references})
	}
	gone := refusing(404, "NotFoundError", "no")
	conflict, fault := refusing(409, "ConflictError", "there"), refusing(422, "ValidationFailedError", "no such element")
	for name, test := range map[string]struct {
		remove  bool
		answers []http.HandlerFunc
		calls   int
		fails   string
	}{
		"added":                               {false, []http.HandlerFunc{always(group())}, 1, ""},
		"there already":                       {false, []http.HandlerFunc{conflict, policy("group")}, 2, ""},
		"a conflict about something else":     {false, []http.HandlerFunc{conflict, policy("other")}, 2, "409"},
		"no target":                           {false, []http.HandlerFunc{gone}, 1, "404"},
		"removed, the policy answers":         {true, []http.HandlerFunc{policy("other")}, 1, ""},
		"removed, the group answers":          {true, []http.HandlerFunc{always(group()), policy()}, 2, ""},
		"removed, the policy is silent":       {true, []http.HandlerFunc{always(map[string]any{"path": "x"}), policy()}, 2, ""},
		"not there, 404":                      {true, []http.HandlerFunc{gone, policy("other")}, 2, ""},
		"not there, 400":                      {true, []http.HandlerFunc{refusing(400, "InvalidRequestError", "no"), policy()}, 2, ""},
		"not there, 409":                      {true, []http.HandlerFunc{conflict, policy()}, 2, ""},
		"not there, 422":                      {true, []http.HandlerFunc{fault, policy()}, 2, ""},
		"no target to remove from":            {true, []http.HandlerFunc{gone, gone}, 2, ""},
		"still there, though the array says":  {true, []http.HandlerFunc{always(group()), policy("other", "group")}, 2, "still names initiator group group"},
		"still there, and a fault":            {true, []http.HandlerFunc{fault, policy("group")}, 2, "422"},
		"still there, though it is not there": {true, []http.HandlerFunc{gone, policy("group")}, 2, "404"},
		"the policy does not say":             {true, []http.HandlerFunc{fault, always(map[string]any{"path": "x", "initiator_groups": nil})}, 2, "does not show its initiator groups"},
		"the policy cannot be read":           {true, []http.HandlerFunc{fault, refusing(500, "InternalError", "no")}, 2, "500"},
		"not allowed":                         {true, []http.HandlerFunc{refusing(403, "PermissionDeniedError", "no")}, 1, "403"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArray(t, inTurn(test.answers...))
			change := a.client(t).AddInitiatorGroup
			if test.remove {
				change = a.client(t).RemoveInitiatorGroup
			}
			err := change(t.Context(), siPath, "group")
			require.Len(t, a.recorded(), test.calls)
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
	ctx := t.Context()
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
	ctx := t.Context()
	conflict := refusing(409, "ConflictError", "name is taken")
	c := newArray(t, inTurn(conflict, always(appInstance("shop_db1")))).client(t)
	ai, created, err := c.CreateAppInstance(ctx, AppInstanceRequest{Name: "shop_db1", SizeGiB: 1})
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, "shop_db1", ai.Name)

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
		return always(initiator(iqn, name, tenant))
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
			i, err := connect(t, config).RegisterInitiator(t.Context(), iqn, "node1")
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
	_, err := newArray(t, inTurn(conflict, is("node2", "/root"))).client(t).RegisterInitiator(t.Context(), iqn, "node1")
	require.ErrorAs(t, err, &named)
	require.Equal(t, InitiatorNameError{IQN: iqn, Tenant: "/root", Have: "node2", Want: "node1"}, *named)
}

func TestInitiatorByName(t *testing.T) {
	t.Parallel()
	const other = "iqn.2020-01.org.other:1"
	nameless := map[string]any{"path": "/initiators/" + other, "id": other}
	for name, test := range map[string]struct {
		answer []any
		want   string
		calls  int
		fails  string
	}{
		"found":                {[]any{initiator(other, "node10", "/root"), initiator(iqn, "node1", "/root")}, iqn, 1, ""},
		"own before inherited": {[]any{initiator(other, "node1", "/root"), initiator(iqn, "node1", "/root/shop")}, iqn, 1, ""},
		"none":                 {[]any{initiator(other, "node10", "/root")}, "", 2, `initiator named "node1" in tenant /root/shop`},
		"filter not applied":   {[]any{initiator(other, "other", "/root"), initiator(iqn, "node1", "/root")}, iqn, 2, ""},
		"two":                  {[]any{initiator(other, "node1", "/root"), initiator(iqn, "node1", "/root")}, "", 1, "initiators " + other + " and " + iqn + " of"},
		"one without a name":   {[]any{nameless, initiator(iqn, "node1", "/root")}, "", 2, "does not say its name"},
		"without an IQN":       {[]any{map[string]any{"name": "node1"}}, "", 1, "is not the path of one of /initiators"},
		"two IQNs":             {[]any{map[string]any{"path": "/initiators/" + other, "id": iqn, "name": "node1"}}, "", 1, "has the id"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArray(t, listOf(test.answer...))
			config := a.config()
			config.Tenant = "shop"
			i, err := connect(t, config).InitiatorByName(t.Context(), "node1")
			require.Len(t, a.recorded(), test.calls)
			if test.fails != "" {
				require.ErrorContains(t, err, test.fails)
				require.Equal(t, name == "none", IsNotFound(err))
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, i.ID)
		})
	}
	t.Run("a filter that finds nothing proves nothing", func(t *testing.T) {
		i, err := newArray(t, inTurn(listOf(), listOf(initiator(iqn, "node1", "/root")))).client(t).InitiatorByName(t.Context(), "node1")
		require.NoError(t, err)
		require.Equal(t, iqn, i.ID)
	})
	t.Run("a name that no filter can hold", func(t *testing.T) {
		a := newArray(t, listOf(initiator(iqn, "node 1", "/root")))
		_, err := a.client(t).InitiatorByName(t.Context(), "node 1")
		require.NoError(t, err)
		require.Equal(t, "limit=1000&offset=0", a.recorded()[0].Query)
	})
	t.Run("refused filters, and not allowed", func(t *testing.T) {
		for status, calls := range map[int]int{400: 2, 422: 2, 403: 1} {
			a := newArray(t, refusing(status, "SomeError", "no"))
			_, err := a.client(t).InitiatorByName(t.Context(), "node1")
			require.ErrorIs(t, err, ErrRefused)
			require.False(t, IsNotFound(err))
			require.Len(t, a.recorded(), calls)
		}
	})
}

func TestInitiatorsAreThoseAskedFor(t *testing.T) {
	t.Parallel()
	const other = "iqn.2020-01.org.other:1"
	_, err := newArray(t, always(initiator(other, "node1", "/root"))).client(t).Initiator(t.Context(), iqn)
	require.ErrorContains(t, err, "it is initiator "+other+", not "+iqn)
	i, err := newArray(t, always(initiator(strings.ToUpper(iqn), "node1", "/root"))).client(t).Initiator(t.Context(), iqn)
	require.NoError(t, err)
	require.Equal(t, strings.ToUpper(iqn), i.ID)

	_, _, err = newArray(t, inTurn(always(otherGroup(iqn)), always(group(iqn)))).client(t).CreateInitiatorGroup(t.Context(), "group", iqn)
	require.NoError(t, err)
	a := newArray(t, inTurn(always(group()), always(group())))
	_, created, err := a.client(t).CreateInitiatorGroup(t.Context(), "group", iqn)
	require.NoError(t, err)
	require.False(t, created, "it is without its member")
	require.Equal(t, []string{"POST", "GET"}, methods(a))
	_, _, err = newArray(t, always(otherGroup(iqn))).client(t).CreateInitiatorGroup(t.Context(), "group", iqn)
	require.ErrorContains(t, err, `it is initiator group "other", not "group"`)
}

func TestGroupsOfAllTenants(t *testing.T) {
	t.Parallel()
	of := func(tenant any) map[string]any {
		g := group(iqn)
		g["tenant"] = tenant
		return g
	}
	for name, test := range map[string]struct {
		answer  http.HandlerFunc
		refused bool
		fails   string
	}{
		"found":              {listOf(of("/root"), of("/root/shop")), false, ""},
		"none":               {listOf(), false, ""},
		"without a tenant":   {listOf(of("/root"), of(nil)), false, "group group does not say its tenant"},
		"with no tenant":     {listOf(of("shop")), false, "group group does not say its tenant"},
		"no such tenant":     {refusing(404, "NotFoundError", "tenant all does not exist"), true, "404"},
		"no such route":      {refusing(404, "InvalidRouteError", "no"), true, "404"},
		"a fault":            {refusing(400, "InvalidRequestError", "no"), true, "400"},
		"invalid":            {refusing(422, "ValidationFailedError", "no"), true, "422"},
		"not allowed":        {refusing(403, "PermissionDeniedError", "no"), true, "403"},
		"not allowed, 401":   {refusing(401, "PermissionDeniedError", "no"), true, "401"},
		"the session is old": {refusing(401, "AuthFailedError", "no"), false, "401"},
		"broken":             {refusing(500, "InternalError", "no"), false, "500"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArray(t, test.answer)
			groups, err := a.client(t).InitiatorGroupsOfAllTenants(t.Context(), "group")
			for _, call := range a.recorded() {
				require.Equal(t, "all", call.header.Get("tenant"))
			}
			require.Equal(t, test.refused, errors.Is(err, ErrRefused), "%v", err)
			if test.fails != "" {
				require.ErrorContains(t, err, test.fails)
				return
			}
			require.NoError(t, err)
			for i, g := range groups {
				require.Equal(t, []string{"/root", "/root/shop"}[i], g.Tenant)
			}
		})
	}
	for _, part := range []string{"a b", "a,b", "a*", "a/b", "a)", "ä", "a^"} {
		a := newArray(t, listOf())
		_, err := a.client(t).InitiatorGroupsOfAllTenants(t.Context(), part)
		require.ErrorContains(t, err, "letters, digits")
		require.Empty(t, a.recorded())
	}
	_, err := newArray(t, refusing(403, "PermissionDeniedError", "no")).client(t).Tenants(t.Context())
	require.ErrorIs(t, err, ErrRefused)
}
