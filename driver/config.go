package driver

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"datera-flexvolume/datera"
)

// AttachMode says who attaches volumes.
type AttachMode string

// The three ways to attach.
const (
	// AttachController: kube-controller-manager calls attach and detach.
	AttachController AttachMode = "controller"
	// AttachKubelet: kubelet calls them on the node (enableControllerAttachDetach: false).
	AttachKubelet AttachMode = "kubelet"
	// AttachNone: nobody does; mount goes the whole way and unmount back.
	AttachNone AttachMode = "none"
)

// Config is the Universal Datera Config that the vendor's tools share, with this driver's
// own keys beside it. JSON and YAML are both read.
type Config struct {
	ManagementIP string `json:"mgmt_ip,omitempty"` // host[:port]
	Username     string `json:"username,omitempty"`
	Password     string `json:"password,omitempty"`
	Tenant       string `json:"tenant,omitempty"`
	APIVersion   string `json:"api_version,omitempty"`
	LDAP         string `json:"ldap,omitempty"`

	Scheme string `json:"scheme,omitempty"`  // https or http
	CAFile string `json:"ca_file,omitempty"` // PEM; default: the system's authorities
	// TLSFingerprint is the SHA-256 of the certificate of the array mgmt_ip: it is trusted whatever it says, and no other one.
	TLSFingerprint string `json:"tls_fingerprint,omitempty"`
	// TLSServerName is the name in the certificate of the array mgmt_ip, where that is not the name it is addressed by.
	TLSServerName string `json:"tls_server_name,omitempty"`

	Aliases []string   `json:"aliases,omitempty"` // other names under which volumes may name the same array
	Attach  AttachMode `json:"attach,omitempty"`
	Cluster string     `json:"cluster,omitempty"` // the part of names on the array that people know the cluster by
	CHAP    CHAPConfig `json:"chap,omitempty"`
	Log     LogConfig  `json:"log,omitempty"`
	// Metrics is a file for node-exporter's textfile collector; "" is none.
	Metrics string `json:"metrics,omitempty"`
	// ReplacementTimeout is for how many seconds the kernel holds back I/O to a portal that
	// is gone, before it fails it. Short suits multipath, long rides over a restart.
	ReplacementTimeout int `json:"replacement_timeout,omitempty"`

	// Node is this node's name in Kubernetes, for attach mode none, whose calls do not say it.
	Node string `json:"node,omitempty"`

	// ClusterID is the UID of the cluster's namespace kube-system, see Identity.
	ClusterID string `json:"cluster_id,omitempty"`
	// Exempt are initiators, and initiator groups by name, whose entries in a volume's ACL policy are no claims: a backup host.
	Exempt []string `json:"exempt,omitempty"`
	// Tenants are those beside Tenant in which volumes of this cluster may be; nil: any that the array lists.
	Tenants []string `json:"tenants,omitzero"`

	StateDir string `json:"state_dir,omitempty"` // journal of the volumes on this node
	RunDir   string `json:"run_dir,omitempty"`   // locks, cached session keys and hints; gone after a reboot

	// Path is the file that was read; empty when none was found.
	Path string `json:"-"`

	environment []string // variables that were taken besides
}

// CHAPConfig holds the secrets of an iSCSI login. With the mutual pair the target
// authenticates itself too.
type CHAPConfig struct {
	Username       string `json:"username,omitempty"`
	Password       string `json:"password,omitempty"`
	MutualUsername string `json:"mutual_username,omitempty"`
	MutualPassword string `json:"mutual_password,omitempty"`
}

// LogConfig says where the log goes and how much of it. What is empty or 0 and not the default is written out, too: the
// installer writes the configuration for the nodes.
type LogConfig struct {
	Path       string `json:"path"`                   // "": there is no log
	Level      string `json:"level,omitempty"`        // debug, info, warn or error
	MaxSizeMiB int    `json:"max_size_mib,omitempty"` // rotated beyond; 1 or more
	MaxBackups int    `json:"max_backups"`            // so many rotated files are kept; 0: none
	MaxAgeDays int    `json:"max_age_days,omitempty"` // rotated files beyond are deleted; 0: none for its age
}

// Credentials is a user of an array.
type Credentials struct {
	Server             Server
	Username, Password string
}

// configVariable names the one file to read.
const configVariable = "DATERA_CONFIG"

// placeholderIP is what the Universal Datera Config's template holds until it is edited.
const placeholderIP = "REPLACE_ME_WITH_REAL_IP_OR_HOSTNAME"

// CallDeadline bounds every call: below the 2 min 3 s that kubelet gives a pod's volumes.
const CallDeadline = 100 * time.Second

func defaultConfig() Config {
	return Config{
		Tenant:             "/root",
		APIVersion:         "2.2",
		Attach:             AttachController,
		Cluster:            "kubernetes",
		StateDir:           "/var/lib/datera-iscsi",
		RunDir:             "/run/datera-iscsi",
		ReplacementTimeout: 120,

		Log: LogConfig{Path: "/var/log/datera-iscsi/iscsi.log", Level: "info", MaxSizeMiB: 10, MaxBackups: 5},
	}
}

// ConfigPlaces lists where a configuration is looked for; the first that exists is taken
// whole. Beside the binary it is a dot-file, because kubelet runs init again at any
// change of another file there.
func ConfigPlaces(getenv func(string) string, executable string) []string {
	if path := getenv(configVariable); path != "" {
		return []string{path}
	}
	places := []string{
		filepath.Join(filepath.Dir(executable), ".datera-config"),
		filepath.Join(filepath.Dir(executable), ".datera-config.json"),
	}
	for _, name := range []string{".datera-config", "datera-config", ".datera-config.json", "datera-config.json"} {
		places = append(places, filepath.Join("/etc/datera", name))
	}
	return places
}

// LoadConfig reads the first of places that exists, then the environment. No file at all
// is no error here: init must work without any. An error comes with what could be read.
func LoadConfig(places []string, getenv func(string) string) (Config, error) {
	config := defaultConfig()
	for _, place := range places {
		document, err := readConfig(place)
		switch {
		case errors.Is(err, fs.ErrNotExist) && len(places) > 1:
			continue
		case errors.Is(err, fs.ErrNotExist) && place == getenv(configVariable):
			return config, fmt.Errorf("configuration %s ($%s): %w: correct the variable or make the file", place, configVariable, err)
		case err != nil:
			return config, err
		}
		config.Path = place
		if err := yaml.UnmarshalStrict(document, &config); err != nil {
			return config, fmt.Errorf("configuration %s: %w", place, redactedSyntax(err))
		}
		break
	}
	for variable, field := range map[string]*string{
		"DAT_MGMT": &config.ManagementIP, "DAT_USER": &config.Username, "DAT_PASS": &config.Password,
		"DAT_TENANT": &config.Tenant, "DAT_API": &config.APIVersion, "DAT_LDAP": &config.LDAP,
	} {
		if value := getenv(variable); value != "" {
			*field = value
			config.environment = append(config.environment, variable)
		}
	}
	slices.Sort(config.environment)
	return config, config.check()
}

// chapUserName is the array's rule (schema of the v2.1 product).
var chapUserName = pattern(`\A[A-Za-z_][A-Za-z0-9_.-]{2,63}\z`)

var clusterName = pattern(`\A[A-Za-z0-9][A-Za-z0-9-]*\z`)

func (c Config) check() error {
	var errs []error
	complain := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %w", c.origin(), fmt.Errorf(format, args...)))
	}
	refuse := func(field, value, accepts string) {
		complain("%s is %s: accepted is %s", field, quoteShort(value), accepts)
	}
	if c.ManagementIP == placeholderIP {
		refuse("mgmt_ip", c.ManagementIP, "the array's management address: the template was not filled in")
	} else if _, err := ParseServer(c.ManagementIP); c.ManagementIP != "" && err != nil {
		refuse("mgmt_ip", c.ManagementIP, serverAccepts)
	}
	for _, alias := range c.Aliases {
		if _, err := ParseServer(alias); err != nil {
			refuse("aliases", alias, serverAccepts)
		}
	}
	if !slices.Contains([]string{"", "http", "https"}, c.Scheme) {
		refuse("scheme", c.Scheme, "https or http")
	}
	c.checkTLS(complain)
	if !slices.Contains([]AttachMode{AttachController, AttachKubelet, AttachNone}, c.Attach) {
		refuse("attach", string(c.Attach), "controller, kubelet or none")
	}
	if tenant := strings.Trim(c.Tenant, "/"); tenant != "" && !isTenantPath(tenant) {
		refuse("tenant", c.Tenant, tenantAccepts)
	}
	if versions := datera.Versions(); c.APIVersion != "" && !slices.Contains(versions, strings.TrimPrefix(c.APIVersion, "v")) {
		refuse("api_version", c.APIVersion, "one of "+strings.Join(versions, ", "))
	}
	for field, folder := range map[string]string{"state_dir": c.StateDir, "run_dir": c.RunDir} {
		if !filepath.IsAbs(folder) {
			refuse(field, folder, "an absolute path")
		}
	}
	if c.Log.Path != "" && !filepath.IsAbs(c.Log.Path) {
		refuse("log.path", c.Log.Path, `an absolute path, or "" for no log`)
	}
	if c.Node != "" && checkNodeName(c.Node) != nil {
		refuse("node", c.Node, "the name of a Kubernetes node")
	}
	c.checkTenancy(refuse)
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		refuse("log.level", c.Log.Level, "debug, info, warn or error")
	}
	if c.Metrics != "" && (!filepath.IsAbs(c.Metrics) || filepath.Ext(c.Metrics) != ".prom") {
		refuse("metrics", c.Metrics, "an absolute path that ends in .prom, in the folder of node-exporter's textfile collector")
	}
	if c.CHAP.Username != "" && c.ManagementIP == "" && c.Attach == AttachNone {
		refuse("chap", c.CHAP.Username, "with mgmt_ip, the array that its passwords are for: no other one, which a volume's secret may name, is told them")
	}
	if c.Log.MaxSizeMiB < 1 {
		refuse("log.max_size_mib", fmt.Sprint(c.Log.MaxSizeMiB), "1 or more; without a log, path is empty")
	}
	for field, number := range map[string]int{"log.max_backups": c.Log.MaxBackups, "log.max_age_days": c.Log.MaxAgeDays} {
		if number < 0 {
			refuse(field, fmt.Sprint(number), "a whole number that is not negative")
		}
	}
	if c.ReplacementTimeout < 1 || c.ReplacementTimeout > 3600 {
		refuse("replacement_timeout", fmt.Sprint(c.ReplacementTimeout), "1 to 3600 seconds")
	}
	if (c.CHAP.Username == "") != (c.CHAP.Password == "") || (c.CHAP.MutualUsername == "") != (c.CHAP.MutualPassword == "") {
		complain("chap has a user name without a password or the reverse")
	}
	if c.CHAP.MutualUsername != "" && c.CHAP.Username == "" {
		complain("chap has mutual_username but no username: mutual CHAP needs both pairs")
	}
	for field, user := range map[string]string{"chap.username": c.CHAP.Username, "chap.mutual_username": c.CHAP.MutualUsername} {
		if user != "" && !chapUserName().MatchString(user) {
			complain("%s is %s: must be 3 to 64 letters, digits, '_', '-' and '.', the first a letter or '_'", field, quoteShort(user))
		}
	}
	for field, secret := range map[string]string{"chap.password": c.CHAP.Password, "chap.mutual_password": c.CHAP.MutualPassword} {
		if secret != "" && (len(secret) < 12 || len(secret) > 16) {
			complain("%s has %d characters: accepted are 12 to 16", field, len(secret))
		}
	}
	return errors.Join(errs...)
}

// place is where the configuration comes from, for messages.
func (c Config) place() string {
	if c.Path == "" || len(c.environment) == 0 {
		return cmp.Or(c.Path, "the environment (DAT_…)")
	}
	return c.Path + " or the environment (" + strings.Join(c.environment, ", ") + ")"
}

// origin begins a message about what is wrong there.
func (c Config) origin() string {
	if c.Path == "" {
		return c.place()
	}
	return "configuration " + c.place()
}

// Secrets lists what must never be printed.
func (c Config) Secrets() []string {
	return []string{c.Password, c.CHAP.Password, c.CHAP.MutualPassword}
}

// WithoutSecrets is the configuration as it may be shown.
func (c Config) WithoutSecrets() Config {
	for _, secret := range []*string{&c.Password, &c.CHAP.Password, &c.CHAP.MutualPassword} {
		if *secret != "" {
			*secret = "(hidden)"
		}
	}
	return c
}

// connection is where and as whom to speak to an array.
type connection struct {
	Scheme      string
	Credentials Credentials
}

// connectionFor decides with which credentials a volume's array is addressed. Those of
// the configuration go to the configured server and nowhere else: otherwise whoever may
// create a volume could have the password sent to himself.
func (c Config) connectionFor(volume Volume) (connection, error) {
	if volume.Secret != nil {
		return c.connectionOfSecret(volume)
	}
	if c.ManagementIP == "" || c.Username == "" || c.Password == "" {
		return connection{}, c.noCredentials()
	}
	configured, err := ParseServer(c.ManagementIP)
	if err != nil {
		return connection{}, fmt.Errorf("mgmt_ip: %w", err)
	}
	if volume.Server != (Server{}) && !c.names(configured, volume.Server) {
		return connection{}, fmt.Errorf("option %s is %q, but the credentials of %s belong to %s and are sent nowhere else: "+
			"correct the option, list the name under aliases in the configuration, or give the volume a secretRef (attach mode none)",
			optServer, volume.Server, c.place(), configured)
	}
	return connection{c.schemeFor(configured), Credentials{configured, c.Username, c.Password}}, nil
}

func (c Config) connectionOfSecret(volume Volume) (connection, error) {
	server := volume.Secret.Server
	switch {
	case server == (Server{}) && volume.Server == (Server{}):
		return connection{}, fmt.Errorf("the volume's secret names no server: add the key server to it, or the option %s to the volume", optServer)
	case server == (Server{}):
		server = volume.Server
	case volume.Server != (Server{}) && !server.sameArray(volume.Server):
		return connection{}, fmt.Errorf("option %s is %q, but the volume's secret is for %q: make them equal", optServer, volume.Server, server)
	}
	return connection{c.schemeFor(server), Credentials{server, volume.Secret.Username, volume.Secret.Password}}, nil
}

func (c Config) names(configured, wanted Server) bool {
	if configured.sameArray(wanted) {
		return true
	}
	return slices.ContainsFunc(c.Aliases, func(alias string) bool {
		server, err := ParseServer(alias)
		return err == nil && server.sameArray(wanted)
	})
}

// schemeFor is the configured scheme; without one the array's plain port speaks http and
// everything else https.
func (c Config) schemeFor(server Server) string {
	switch {
	case c.Scheme != "":
		return c.Scheme
	case server.Port == portHTTP:
		return "http"
	}
	return "https"
}

// ArrayClient is how the configuration has an array spoken to. The caller adds who it is.
func (c Config) ArrayClient(scheme string, credentials Credentials, tenant string) datera.Config {
	client := datera.Config{
		Address:      credentials.Server.String(),
		Scheme:       scheme,
		CAFile:       c.CAFile,
		Username:     credentials.Username,
		Password:     credentials.Password,
		RemoteServer: c.LDAP,
		Tenant:       tenant,
		APIVersion:   c.APIVersion,
		TokenDir:     filepath.Join(c.RunDir, "session"),
	}
	if configured, err := ParseServer(c.ManagementIP); err == nil && c.names(configured, credentials.Server) {
		client.Fingerprint, client.ServerName = c.TLSFingerprint, c.TLSServerName
	}
	return client
}

func (c Config) noCredentials() error {
	where := "no configuration was found"
	if c.Path != "" {
		where = "the configuration " + c.Path + " has no mgmt_ip, username or password"
	}
	return fmt.Errorf("no credentials for the array: %s. Put mgmt_ip, username and password into .datera-config beside the driver's binary or into /etc/datera/datera-config (mode 0600), "+
		"or name a file in %s", where, configVariable)
}
