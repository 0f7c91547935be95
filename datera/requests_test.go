package datera

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What goes over the wire, compared with testdata/requests.json: the array refuses every field that it does not know.
func TestRequests(t *testing.T) {
	t.Parallel()
	full := AppInstanceRequest{
		Name: "shop_db1", Descr: "data of a shop", CreateMode: "docker", AccessControlMode: "deny_all",
		SizeGiB: 16, ReplicaCount: 3, PlacementMode: "hybrid", PlacementPolicy: "default", IPPool: "default",
		Auth:              Auth{Type: AuthMutualCHAP, TargetUserName: "host", TargetPassword: "host-password", InitiatorUserName: "array", InitiatorPassword: "array-password"},
		PerformancePolicy: PerformancePolicy{TotalIOPSMax: 1000, TotalBandwidthMax: 10240},
	}
	with := func(change func(*AppInstanceRequest)) AppInstanceRequest {
		r := AppInstanceRequest{Name: "shop_db1", CreateMode: "docker", AccessControlMode: "deny_all"}
		change(&r)
		return r
	}
	create := func(r AppInstanceRequest) func(context.Context, *Client) error {
		return func(ctx context.Context, c *Client) error {
			_, _, err := c.CreateAppInstance(ctx, r)
			return err
		}
	}
	requests := make(map[string][]call)
	for _, test := range []struct {
		name    string
		version string
		do      func(context.Context, *Client) error
	}{
		{"create", "", create(full)},
		{"create-plain", "2.1", create(with(func(r *AppInstanceRequest) { r.SizeGiB = 1 }))},
		{"create-template", "", create(with(func(r *AppInstanceRequest) { r.Template = "basic" }))},
		{"create-template-size", "v2.2", create(with(func(r *AppInstanceRequest) { r.Template, r.SizeGiB = "basic", 32 }))},
		{"create-clone-volume", "", create(with(func(r *AppInstanceRequest) { r.CloneVolume = volPath }))},
		{"create-clone-snapshot", "", create(with(func(r *AppInstanceRequest) { r.CloneSnapshot = volPath + "/snapshots/1446076293.118600738" }))},
		{"read-app-instance", "", func(ctx context.Context, c *Client) error { _, err := c.AppInstance(ctx, "shop_db1"); return err }},
		{"online", "", func(ctx context.Context, c *Client) error {
			_, err := c.SetAdminState(ctx, "shop_db1", AdminOnline, false)
			return err
		}},
		{"delete-app-instance", "", func(ctx context.Context, c *Client) error { return c.DeleteAppInstance(ctx, "shop_db1") }},
		{"resize", "", func(ctx context.Context, c *Client) error { _, err := c.ResizeVolume(ctx, volPath, 32); return err }},
		{"performance-policy", "", func(ctx context.Context, c *Client) error {
			return c.SetPerformancePolicy(ctx, volPath, full.PerformancePolicy)
		}},
		{"auth-none", "", func(ctx context.Context, c *Client) error { return c.SetAuth(ctx, siPath, Auth{}) }},
		{"auth-chap", "", func(ctx context.Context, c *Client) error {
			return c.SetAuth(ctx, siPath, Auth{Type: AuthCHAP, TargetUserName: "host", TargetPassword: "host-password"})
		}},
		{"auth-mutual", "", func(ctx context.Context, c *Client) error { return c.SetAuth(ctx, siPath, full.Auth) }},
		{"read-metadata", "", func(ctx context.Context, c *Client) error { _, err := c.Metadata(ctx, "shop_db1"); return err }},
		{"set-metadata", "", func(ctx context.Context, c *Client) error {
			return c.SetMetadata(ctx, "shop_db1", map[string]string{"formatted": "true"})
		}},
		{"add-group", "", func(ctx context.Context, c *Client) error { return c.AddInitiatorGroup(ctx, siPath, "shop_db1") }},
		{"remove-group", "", func(ctx context.Context, c *Client) error { return c.RemoveInitiatorGroup(ctx, siPath, "shop_db1") }},
		{"register-initiator", "", func(ctx context.Context, c *Client) error {
			_, err := c.RegisterInitiator(ctx, iqn, "node 1")
			return err
		}},
		{"read-initiator", "", func(ctx context.Context, c *Client) error { _, err := c.Initiator(ctx, iqn); return err }},
		{"create-group", "", func(ctx context.Context, c *Client) error {
			_, _, err := c.CreateInitiatorGroup(ctx, "shop_db1", iqn)
			return err
		}},
		{"create-group-empty", "", func(ctx context.Context, c *Client) error {
			_, _, err := c.CreateInitiatorGroup(ctx, "shop_db1")
			return err
		}},
		{"add-member", "", func(ctx context.Context, c *Client) error { _, err := c.AddMember(ctx, "shop_db1", iqn); return err }},
		{"remove-member", "", func(ctx context.Context, c *Client) error { _, err := c.RemoveMember(ctx, "removed", iqn); return err }},
		{"delete-group", "", func(ctx context.Context, c *Client) error { return c.DeleteInitiatorGroup(ctx, "shop_db1") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newArray(t, answerAsked)
			config := a.config()
			config.APIVersion = test.version
			require.NoError(t, test.do(t.Context(), connect(t, config)))
			requests[test.name] = a.recorded()
		})
	}
	golden(t, "requests", requests)
}

// answerAsked answers as the array does: the changes of a list's elements with the element.
func answerAsked(w http.ResponseWriter, r *http.Request) {
	if r.Method == post {
		w.WriteHeader(201) // any 2xx is success
	}
	_, path, _ := strings.Cut(r.URL.Path, "/v2.")
	path = path[1:]
	switch members := group(iqn); {
	case strings.HasSuffix(path, "/auth"):
		var auth map[string]any
		_ = json.NewDecoder(r.Body).Decode(&auth)
		data(w, auth)
	case strings.HasSuffix(path, "/acl_policy"):
		data(w, map[string]any{"path": path, "initiators": []any{}, "initiator_groups": []any{}})
	case strings.HasSuffix(path, "/volume-1"):
		data(w, map[string]any{"path": path, "name": "volume-1", "uuid": "6c26437d-0a7d-4f5e-9d0f-0f6a3d0f8a11", "size": 32, "capacity_in_use": 0})
	case strings.HasPrefix(path, "/initiators"), strings.HasSuffix(path, "/members"):
		data(w, initiator(iqn, "node 1", "/root"))
	case strings.HasPrefix(path, "/initiator_groups/removed"):
		members["members"] = []any{}
		fallthrough
	case strings.HasPrefix(path, "/initiator_groups"):
		members["path"], members["name"] = "/initiator_groups/shop_db1", "shop_db1"
		if strings.HasSuffix(path, "/removed") {
			members["path"], members["name"] = path, "removed"
		}
		data(w, members)
	default:
		data(w, appInstance("shop_db1"))
	}
}

func TestRequestsAreListedByFilter(t *testing.T) {
	t.Parallel()
	a := newArray(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v2.2/initiators":
			listOf(initiator(iqn, "node-1", "/root"), initiator("iqn.2020-01.org.other:1", "node-10", "/root"))(w, r)
		case "/v2.2/initiator_groups/db-2":
			refuse(w, 404, "NotFoundError", "does not exist")
		case "/v2.2/initiator_groups":
			listOf(map[string]any{"name": "db.1", "path": "/initiator_groups/db.1", "members": []any{}})(w, r)
		default:
			data(w, map[string]any{"name": "db.1", "path": "/initiator_groups/db.1", "members": []any{map[string]any{"path": "/initiators/" + iqn, "name": "node 1"}, "/initiators/iqn.2020-01.org.other:1"}})
		}
	})
	c := a.client(t)
	ctx := t.Context()

	group, err := c.InitiatorGroup(ctx, "db.1")
	require.NoError(t, err)
	require.Equal(t, &InitiatorGroup{Path: "/initiator_groups/db.1", Name: "db.1", Members: []string{iqn, "iqn.2020-01.org.other:1"}}, group)
	_, err = c.InitiatorGroup(ctx, "db-2")
	require.ErrorIs(t, err, ErrNotFound)

	initiator, err := c.InitiatorByName(ctx, "node-1")
	require.NoError(t, err)
	require.Equal(t, iqn, initiator.ID)

	listed, err := c.InitiatorGroupsContaining(ctx, "b.")
	require.NoError(t, err)
	require.Equal(t, []InitiatorGroup{{Path: "/initiator_groups/db.1", Name: "db.1", Members: []string{}}}, listed)
	golden(t, "list", a.recorded())
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	a := newArray(t, always(appInstance("shop_db1")))
	config := a.config()
	config.Driver, config.Tenant, config.RemoteServer = "driver 1.0", "shop", "ldap1"
	c := connect(t, config)
	_, err := c.AppInstance(t.Context(), "shop_db1")
	require.NoError(t, err)

	require.Len(t, a.calls, 2)
	login, first := a.calls[0], a.calls[1]
	require.JSONEq(t, `{"name":"admin","password":"`+password+`","remote_server":"ldap1"}`, string(login.Body))
	require.Empty(t, login.header.Values("Auth-Token"))
	require.Empty(t, login.header.Values("tenant"))
	require.Equal(t, "application/json", login.header.Get("Content-Type"))
	require.Equal(t, "driver 1.0", login.header.Get("Datera-Driver"))
	require.Equal(t, "/root/shop", first.header.Get("tenant"))
	require.Equal(t, a.key, first.header.Get("Auth-Token"))
	require.Empty(t, first.Body, "a GET has no body")
	require.EqualValues(t, 2, c.Requests())
}

// What cannot be a name never reaches the array.
func TestRequestsRefusedBeforehand(t *testing.T) {
	t.Parallel()
	a := newArray(t, always(nil))
	c := a.client(t)
	ctx := t.Context()
	for name, do := range map[string]func() error{
		"slash":            func() error { _, err := c.AppInstance(ctx, "a/b"); return err },
		"dots":             func() error { _, err := c.AppInstance(ctx, ".."); return err },
		"dots inside":      func() error { return c.DeleteInitiatorGroup(ctx, "a..b") },
		"empty":            func() error { return c.DeleteAppInstance(ctx, "") },
		"query":            func() error { return c.DeleteAppInstance(ctx, "a?force=true") },
		"escape":           func() error { return c.DeleteAppInstance(ctx, "a%2fb") },
		"line break":       func() error { _, err := c.Metadata(ctx, "a\nb"); return err },
		"relative path":    func() error { _, err := c.ResizeVolume(ctx, "app_instances/x", 3); return err },
		"path with dots":   func() error { _, err := c.ResizeVolume(ctx, "/app_instances/../x", 3); return err },
		"empty path":       func() error { return c.AddInitiatorGroup(ctx, "", "group") },
		"group to remove":  func() error { return c.RemoveInitiatorGroup(ctx, siPath, "a/b") },
		"group of ACL":     func() error { return c.AddInitiatorGroup(ctx, siPath, "a/b") },
		"member":           func() error { _, err := c.AddMember(ctx, "group", "iqn/../x"); return err },
		"members of new":   func() error { _, _, err := c.CreateInitiatorGroup(ctx, "group", "a/b"); return err },
		"new group":        func() error { _, _, err := c.CreateInitiatorGroup(ctx, "1group"); return err },
		"group filter":     func() error { _, err := c.InitiatorGroupsContaining(ctx, "a)|(b"); return err },
		"initiator filter": func() error { _, err := c.InitiatorByName(ctx, "a,b"); return err },
		"initiator":        func() error { _, err := c.RegisterInitiator(ctx, "iqn/x", "node1"); return err },
		"initiator's name": func() error { _, err := c.RegisterInitiator(ctx, iqn, "1"); return err },
		"auth type":        func() error { return c.SetAuth(ctx, siPath, Auth{Type: "kerberos"}) },
		"CHAP password":    func() error { return c.SetAuth(ctx, siPath, Auth{Type: AuthCHAP, TargetUserName: "host"}) },
		"mutual CHAP": func() error {
			return c.SetAuth(ctx, siPath, Auth{Type: AuthMutualCHAP, TargetUserName: "host", TargetPassword: "x"})
		},
	} {
		require.Error(t, do(), name)
	}
	require.Zero(t, c.Requests())
}

func TestCreateAppInstanceRefusedBeforehand(t *testing.T) {
	t.Parallel()
	config := newArray(t, always(nil)).config()
	config.APIVersion = "2.1"
	c := connect(t, config)
	for name, test := range map[string]struct {
		request AppInstanceRequest
		why     string
	}{
		"name":             {AppInstanceRequest{Name: "a b", SizeGiB: 1}, "letters, digits"},
		"size":             {AppInstanceRequest{Name: "shop_db1"}, "0 GiB"},
		"two sources":      {AppInstanceRequest{Name: "shop_db1", Template: "basic", CloneVolume: volPath}, "not several"},
		"two clones":       {AppInstanceRequest{Name: "shop_db1", CloneVolume: volPath, CloneSnapshot: volPath}, "not several"},
		"source":           {AppInstanceRequest{Name: "shop_db1", CloneVolume: "shop_db2"}, "slash"},
		"snapshot":         {AppInstanceRequest{Name: "shop_db1", CloneSnapshot: "/a/../b"}, "not a name"},
		"template":         {AppInstanceRequest{Name: "shop_db1", Template: "a/b"}, "not a name"},
		"pool":             {AppInstanceRequest{Name: "shop_db1", SizeGiB: 1, IPPool: "a/b"}, "not a name"},
		"auth":             {AppInstanceRequest{Name: "shop_db1", SizeGiB: 1, Auth: Auth{Type: AuthCHAP}}, "CHAP needs"},
		"2.1 and policy":   {AppInstanceRequest{Name: "shop_db1", SizeGiB: 1, PlacementPolicy: "default"}, "API version 2.1"},
		"2.1 and override": {AppInstanceRequest{Name: "shop_db1", SizeGiB: 1, Template: "basic"}, "API version 2.1"},
	} {
		_, _, err := c.CreateAppInstance(t.Context(), test.request)
		require.ErrorContains(t, err, test.why, name)
	}
	require.Zero(t, c.Requests())
}

func TestNew(t *testing.T) {
	t.Parallel()
	for address, server := range map[string]string{
		"10.0.0.5":            "https://10.0.0.5:7718",
		"10.0.0.5:7717":       "https://10.0.0.5:7717",
		"array.example.com":   "https://array.example.com:7718",
		"[fd00::5]":           "https://[fd00::5]:7718",
		"[fd00::5]:443":       "https://[fd00::5]:443",
		"[fe80::1%25eth0]:99": "https://[fe80::1%25eth0]:99",
	} {
		c, err := New(Config{Address: address, Username: "admin", Password: password})
		require.NoError(t, err, address)
		require.Equal(t, server, c.Server())
	}
	c, err := New(Config{Address: "10.0.0.5", Scheme: "http", Username: "admin", Password: password})
	require.NoError(t, err)
	require.Equal(t, "http://10.0.0.5:7717", c.Server())
	for given, path := range map[string]string{"": "/root", "root": "/root", "x": "/root/x", "/root/x/": "/root/x"} {
		c, err := New(Config{Address: "10.0.0.5", Username: "admin", Password: password, Tenant: given})
		require.NoError(t, err)
		require.Equal(t, path, c.tenant)
	}

	for name, test := range map[string]struct {
		change func(*Config)
		why    string
	}{
		"no address":       {func(c *Config) { c.Address = "" }, "host or host:port"},
		"URL":              {func(c *Config) { c.Address = "https://array" }, "scheme is a setting"},
		"path":             {func(c *Config) { c.Address = "array/v2" }, "host or host:port"},
		"user":             {func(c *Config) { c.Address = "admin@array" }, "host or host:port"},
		"space":            {func(c *Config) { c.Address = "ar ray" }, "host or host:port"},
		"bare IPv6":        {func(c *Config) { c.Address = "fd00::5" }, "[fd00::5]"},
		"port":             {func(c *Config) { c.Address = "array:70000" }, "65535"},
		"scheme":           {func(c *Config) { c.Scheme = "ftp" }, "https or http"},
		"version":          {func(c *Config) { c.APIVersion = "2" }, "2.1, 2.2, 2.3"},
		"tenant":           {func(c *Config) { c.Tenant = "a b" }, "path of a tenant"},
		"no user":          {func(c *Config) { c.Username = "" }, "user name and password"},
		"driver":           {func(c *Config) { c.Driver = "a\nb" }, "name of the driver"},
		"CA file":          {func(c *Config) { c.CAFile = "/nowhere/ca.pem" }, "/nowhere/ca.pem"},
		"fingerprint":      {func(c *Config) { c.Fingerprint = "abc" }, "64 hexadecimal digits"},
		"pin without TLS":  {func(c *Config) { c.Fingerprint, c.Scheme = strings.Repeat("ab", 32), "http" }, "the scheme is http"},
		"server name":      {func(c *Config) { c.ServerName = "a b" }, "host name or an IP address"},
		"CA file, not PEM": {func(c *Config) { c.CAFile = "requests_test.go" }, "no certificate"},
	} {
		config := Config{Address: "array", Username: "admin", Password: password}
		test.change(&config)
		_, err := New(config)
		require.ErrorContains(t, err, test.why, name)
		require.NotContains(t, err.Error(), password)
	}
}
