package driver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

func noEnvironment(string) string { return "" }

func writeConfig(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), ".datera-config")
	require.NoError(t, os.WriteFile(path, []byte(content), mode))
	require.NoError(t, os.Chmod(path, mode))
	return path
}

func TestLoadConfig(t *testing.T) {
	universal := `{"mgmt_ip":"1.1.1.1","username":"admin","password":"password","tenant":"/root/dev","api_version":"2.3","ldap":""}`
	tests := map[string]struct {
		content string
		env     map[string]string
		check   func(*require.Assertions, Config)
	}{
		"the vendor's file": {universal, nil, func(r *require.Assertions, c Config) {
			r.Equal([]string{"1.1.1.1", "admin", "password", "/root/dev", "2.3"}, []string{c.ManagementIP, c.Username, c.Password, c.Tenant, c.APIVersion})
			r.Equal(AttachController, c.Attach)
		}},
		"YAML with the driver's own keys": {"mgmt_ip: array:7717\nattach: none\ncluster: prod\nchap: {username: usr, password: twelve-chars}\n", nil, func(r *require.Assertions, c Config) {
			r.Equal(AttachNone, c.Attach)
			r.Equal("prod", c.Cluster)
			r.Equal("twelve-chars", c.CHAP.Password)
		}},
		"a tenant and a version as the client takes them": {"tenant: /shop/\napi_version: v2.1\nlog: {path: ''}", nil, func(r *require.Assertions, c Config) {
			r.Equal([]string{"/shop/", "v2.1"}, []string{c.Tenant, c.APIVersion})
		}},
		"a pinned certificate": {"mgmt_ip: array\ntls_server_name: cn.array\ntls_fingerprint: " + strings.Repeat("AB", 32), nil, func(r *require.Assertions, c Config) {
			r.Equal([]string{strings.Repeat("AB", 32), "cn.array"}, []string{c.TLSFingerprint, c.TLSServerName})
		}},
		"no tenant and no version": {"tenant: ''\napi_version: ''", nil, func(r *require.Assertions, c Config) {
			r.Empty(c.Tenant + c.APIVersion)
		}},
		"an empty file": {"", nil, func(r *require.Assertions, c Config) { r.Equal(AttachController, c.Attach) }},
		"the environment wins": {universal, map[string]string{"DAT_MGMT": "2.2.2.2", "DAT_PASS": "other", "DAT_TENANT": "/root/x"}, func(r *require.Assertions, c Config) {
			r.Equal([]string{"2.2.2.2", "other", "/root/x"}, []string{c.ManagementIP, c.Password, c.Tenant})
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			config, err := LoadConfig([]string{writeConfig(t, test.content, 0o600)}, func(key string) string { return test.env[key] })
			require.NoError(t, err)
			test.check(require.New(t), config)
		})
	}
}

func TestLoadConfigWithoutAFile(t *testing.T) {
	config, err := LoadConfig([]string{"/no/such/file", "/nor/this"}, noEnvironment)
	require.NoError(t, err, "init must work without a configuration")
	require.Equal(t, AttachController, config.Attach)
	_, err = config.connectionFor(Volume{})
	require.ErrorContains(t, err, "no configuration was found")
	require.ErrorContains(t, err, ".datera-config")
}

func TestLoadConfigRefuses(t *testing.T) {
	tests := map[string]struct {
		content string
		mode    os.FileMode
		says    []string
	}{
		"a file that others may read":           {`{"password":"canary"}`, 0o644, []string{"0644", "chmod 0600"}},
		"an unknown key":                        {"mgmnt_ip: x", 0o600, []string{"mgmnt_ip", "did you mean mgmt_ip"}},
		"a key with its section's name":         {"log.level: debug", 0o600, []string{`unknown key "log.level": write level in section log`}},
		"a key outside its section":             {"level: debug", 0o600, []string{`unknown key "level": write level in section log`}},
		"a misspelt key of a section":           {"chap: {mutual_pasword: canary}", 0o600, []string{`unknown key "mutual_pasword": did you mean mutual_password? Write it in section chap`}},
		"a key in a wrong section":              {"log: {username: canary}", 0o600, []string{`unknown key "username" in a section: write it at the top level`}},
		"no JSON and no YAML":                   {"{password: canary: x", 0o600, []string{"neither valid JSON nor valid YAML"}},
		"an unfinished document":                {"{{{", 0o600, []string{"neither valid JSON nor valid YAML"}},
		"a list":                                {"[canary]", 0o600, []string{"neither valid JSON nor valid YAML of keys and their values"}},
		"a password without a blank":            {"{mgmt_ip: a, password:canary}", 0o600, []string{"a key is unknown, and is not shown"}},
		"a password without a colon":            {"password canary: x", 0o600, []string{"a key is unknown, and is not shown"}},
		"a key that is cut short":               {"chap: {user: x}", 0o600, []string{`unknown key "user"`, "username"}},
		"a list of what is no text":             {"aliases: [{a: b}]", 0o600, []string{": aliases: accepted is a list of texts"}},
		"a number in quotes":                    {"replacement_timeout: '120'", 0o600, []string{": replacement_timeout: accepted is a whole number, without quotes"}},
		"a number with a fraction":              {"log: {max_backups: 1.5}", 0o600, []string{": log.max_backups: accepted is a whole number"}},
		"a list for a text":                     {"password: [canary]", 0o600, []string{": password: accepted is a text"}},
		"a text for a list":                     {"aliases: canary", 0o600, []string{": aliases: accepted is a list"}},
		"a text for a section":                  {"chap: canary", 0o600, []string{": chap: accepted is a section with the keys username, password, mutual_username, mutual_password"}},
		"a tenant":                              {"tenant: /root/a b", 0o600, []string{"tenant", "/root/a b", "/root/NAME"}},
		"a version":                             {"api_version: '9'", 0o600, []string{"api_version", `"9"`, "2.1, 2.2, 2.3"}},
		"a folder of state":                     {"state_dir: var/lib", 0o600, []string{"state_dir", `"var/lib"`, "an absolute path"}},
		"no folder of state":                    {"state_dir: ''", 0o600, []string{"state_dir", `""`, "an absolute path"}},
		"a folder of locks":                     {"run_dir: run", 0o600, []string{"run_dir", `"run"`, "an absolute path"}},
		"a log":                                 {"log: {path: iscsi.log}", 0o600, []string{"log.path", `"iscsi.log"`, "an absolute path"}},
		"a mode":                                {"attach: always", 0o600, []string{"attach", "always", "controller, kubelet or none"}},
		"a scheme":                              {"scheme: ftp", 0o600, []string{"scheme", "ftp", "https or http"}},
		"a cluster":                             {"cluster: a b", 0o600, []string{"cluster", "a b"}},
		"a server":                              {"mgmt_ip: http://x", 0o600, []string{"mgmt_ip", "http://x"}},
		"an alias":                              {"aliases: ['a b']", 0o600, []string{"aliases", "a b"}},
		"the vendor's template":                 {"mgmt_ip: REPLACE_ME_WITH_REAL_IP_OR_HOSTNAME", 0o600, []string{"mgmt_ip", "not filled in"}},
		"CHAP of no array":                      {"attach: none\nchap: {username: usr, password: twelve-chars}", 0o600, []string{"chap", "mgmt_ip"}},
		"half of CHAP":                          {"chap: {username: usr}", 0o600, []string{"chap"}},
		"half of mutual CHAP":                   {"chap: {mutual_username: usr, mutual_password: twelve-chars}", 0o600, []string{"needs both pairs"}},
		"a short CHAP secret":                   {"chap: {username: usr, password: canary}", 0o600, []string{"chap.password", "12 to 16"}},
		"a short CHAP user name":                {"chap: {username: us, password: twelve-chars}", 0o600, []string{`chap.username is "us": must be 3 to 64 letters`}},
		"a CHAP user name with a space":         {"chap: {username: host, password: twelve-chars, mutual_username: 'the array', mutual_password: twelve-chars}", 0o600, []string{`chap.mutual_username is "the array": must be`}},
		"a CHAP user name like an IQN":          {"chap: {username: 'iqn.2020-01.org:host', password: twelve-chars}", 0o600, []string{`chap.username is "iqn.2020-01.org:host": must be`}},
		"a CHAP user name of 65":                {"chap: {username: " + strings.Repeat("u", 65) + ", password: twelve-chars}", 0o600, []string{"chap.username", "3 to 64"}},
		"a CHAP user name from a digit":         {"chap: {username: 1host, password: twelve-chars}", 0o600, []string{"the first a letter or '_'"}},
		"a fingerprint of SHA-1":                {"mgmt_ip: array\ntls_fingerprint: " + strings.Repeat("ab", 20), 0o600, []string{"tls_fingerprint is", "must be the SHA-256", "openssl x509"}},
		"a server name with a port and a slash": {"mgmt_ip: array\ntls_server_name: array/x", 0o600, []string{`tls_server_name is "array/x": must be a host name`}},
		"a fingerprint without TLS":             {"mgmt_ip: array:7717\ntls_fingerprint: " + strings.Repeat("ab", 32), 0o600, []string{"the scheme is http, which has none"}},
		"a server name without TLS":             {"mgmt_ip: array\nscheme: http\ntls_server_name: array", 0o600, []string{"the scheme is http, which has none"}},
		"a fingerprint of no array":             {"attach: none\ntls_fingerprint: " + strings.Repeat("ab", 32), 0o600, []string{"the array mgmt_ip, which is not set"}},
		"a timeout":                             {"replacement_timeout: 0", 0o600, []string{"replacement_timeout", `"0"`, "1 to 3600"}},
		"a node":                                {"node: A B", 0o600, []string{"node", "A B"}},
		"an age":                                {"log: {max_age_days: -1}", 0o600, []string{"log.max_age_days", `"-1"`, "not negative"}},
		"a size":                                {"log: {max_size_mib: 0}", 0o600, []string{"log.max_size_mib", `"0"`, "1 or more"}},
		"a number of files":                     {"log: {max_backups: -1}", 0o600, []string{"log.max_backups", `"-1"`, "not negative"}},
		"a file of metrics":                     {"metrics: /var/lib/node_exporter/iscsi.txt", 0o600, []string{"metrics", "iscsi.txt", "ends in .prom"}},
		"a log level":                           {"log: {level: loud}", 0o600, []string{"log.level", "loud"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := writeConfig(t, test.content, test.mode)
			_, err := LoadConfig([]string{path}, noEnvironment)
			require.Error(t, err, "the configuration was accepted")
			require.ErrorContains(t, err, path)
			for _, words := range test.says {
				require.ErrorContains(t, err, words)
			}
			require.NotContains(t, err.Error(), "canary", "the message shows a secret")
		})
	}
}

// The installer writes the configuration that it was given for the nodes.
func TestAConfigurationIsTheSameOnceItIsWritten(t *testing.T) {
	for _, content := range []string{
		"{}", "log: {path: ''}", "log: {max_backups: 0}", "log: {level: debug, max_size_mib: 1, max_backups: 7, max_age_days: 3}", "attach: none\ntenant: /root/shop",
	} {
		t.Run(content, func(t *testing.T) {
			given, err := LoadConfig([]string{writeConfig(t, content, 0o600)}, noEnvironment)
			require.NoError(t, err)
			document, err := yaml.Marshal(given)
			require.NoError(t, err)
			onNode, err := LoadConfig([]string{writeConfig(t, string(document), 0o600)}, noEnvironment)
			require.NoError(t, err)
			given.Path, onNode.Path = "", ""
			require.Equal(t, given, onNode)
		})
	}
}

func TestLoadConfigThatIsNamedMustExist(t *testing.T) {
	_, err := LoadConfig([]string{"/no/such/file"}, noEnvironment)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = LoadConfig([]string{t.TempDir()}, noEnvironment)
	require.ErrorContains(t, err, "no regular file")

	getenv := func(string) string { return "/no/such/file" }
	_, err = LoadConfig(ConfigPlaces(getenv, "/plugins/iscsi"), getenv)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "configuration /no/such/file ($DATERA_CONFIG)")
	require.ErrorContains(t, err, "correct the variable or make the file")
}

func TestLoadConfigRefusesWhatTheEnvironmentSays(t *testing.T) {
	_, err := LoadConfig([]string{"/no/such/file", "/nor/this"}, func(key string) string { return map[string]string{"DAT_MGMT": "a b"}[key] })
	require.ErrorContains(t, err, `the environment (DAT_…): mgmt_ip is "a b"`)

	path := filepath.Join(t.TempDir(), "datera-config")
	require.NoError(t, os.WriteFile(path, []byte("mgmt_ip: a"), 0o600))
	_, err = LoadConfig([]string{path}, func(key string) string { return map[string]string{"DAT_TENANT": "a b", "DAT_API": "9"}[key] })
	require.ErrorContains(t, err, path+" or the environment (DAT_API, DAT_TENANT): tenant")
}

func TestConfigPlaces(t *testing.T) {
	places := ConfigPlaces(noEnvironment, "/plugins/datera~iscsi/iscsi")
	require.Equal(t, "/plugins/datera~iscsi/.datera-config", places[0])
	for _, place := range places {
		if filepath.Dir(place) == "/plugins/datera~iscsi" {
			require.Equal(t, byte('.'), filepath.Base(place)[0], "kubelet would probe again at every change of %s", place)
		}
	}
	require.Contains(t, places, "/etc/datera/datera-config")
	require.Equal(t, []string{"/x/y"}, ConfigPlaces(func(string) string { return "/x/y" }, "/plugins/iscsi"))
}

func TestConnectionFor(t *testing.T) {
	configured := Config{ManagementIP: "array", Username: "admin", Password: "password", Aliases: []string{"tlx170.tlx.daterainc.com"}}
	plain := configured
	plain.ManagementIP = "127.0.0.1:7717"
	http := configured
	http.Scheme = "http"
	server := func(text string) Server {
		s, err := ParseServer(text)
		require.NoError(t, err)
		return s
	}
	secret := &Credentials{Username: "u", Password: "p"}
	tests := map[string]struct {
		config Config
		volume Volume
		want   string // scheme, server, user
		fails  string
	}{
		"the configured array":               {configured, Volume{}, "https array admin", ""},
		"its plain port in the option":       {configured, Volume{Server: server("array:7717")}, "https array admin", ""},
		"an alias":                           {configured, Volume{Server: server("tlx170.tlx.daterainc.com:7717")}, "https array admin", ""},
		"a configured plain port":            {plain, Volume{Server: server("127.0.0.1:7717")}, "http 127.0.0.1:7717 admin", ""},
		"a configured scheme":                {http, Volume{}, "http array admin", ""},
		"another server":                     {configured, Volume{Server: server("evil:7717")}, "", "sent nowhere else"},
		"another server than DAT_MGMT":       {configured, Volume{Server: server("evil:7717")}, "", "the credentials of the environment (DAT_…) belong to"},
		"another port":                       {configured, Volume{Server: server("array:9999")}, "", "sent nowhere else"},
		"a secret with the option's server":  {configured, Volume{Server: server("other:7717"), Secret: secret}, "http other:7717 u", ""},
		"a secret with its own server":       {configured, Volume{Secret: &Credentials{Server: server("other"), Username: "u", Password: "p"}}, "https other u", ""},
		"a secret without any server":        {configured, Volume{Secret: secret}, "", "names no server"},
		"a secret and option that differ":    {configured, Volume{Server: server("a1"), Secret: &Credentials{Server: server("a2"), Username: "u", Password: "p"}}, "", "make them equal"},
		"a configuration without a password": {Config{Path: "/x", ManagementIP: "array", Username: "u"}, Volume{}, "", "the configuration /x has no"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := test.config.connectionFor(test.volume)
			if test.fails != "" {
				require.ErrorContains(t, err, test.fails)
				require.NotContains(t, err.Error(), "password is")
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, c.Scheme+" "+c.Credentials.Server.String()+" "+c.Credentials.Username)
		})
	}
}

// What is said of the configured array's certificate is said of no other array's.
func TestCertificateOfTheConfiguredArray(t *testing.T) {
	pin := strings.Repeat("ab", 32)
	config := Config{ManagementIP: "array", Aliases: []string{"alias"}, TLSFingerprint: pin, TLSServerName: "cn.array", CAFile: "/ca.pem"}
	for text, own := range map[string]bool{"array": true, "array:7718": true, "alias": true, "other": false, "array:9999": false} {
		server, err := ParseServer(text)
		require.NoError(t, err)
		client := config.ArrayClient("https", Credentials{Server: server, Username: "u", Password: "p"}, "")
		require.Equal(t, "/ca.pem", client.CAFile)
		if own {
			require.Equal(t, []string{pin, "cn.array"}, []string{client.Fingerprint, client.ServerName}, text)
		} else {
			require.Empty(t, client.Fingerprint+client.ServerName, text)
		}
	}
}

func FuzzLoadConfig(f *testing.F) {
	f.Add(`{"mgmt_ip":"1.1.1.1"}`)
	f.Add("attach: none\nchap: {username: u}")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content string) {
		path := filepath.Join(dir, "config")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		config, err := LoadConfig([]string{path}, noEnvironment)
		if err == nil {
			require.Contains(t, []AttachMode{AttachController, AttachKubelet, AttachNone}, config.Attach)
		}
	})
}
