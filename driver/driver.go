// Package driver speaks FlexVolume's protocol and leads a volume through its life: from
// the options of a PersistentVolume to a file system in a pod's directory, and back. It is
// the only package that knows the words of Kubernetes.
package driver

import (
	"cmp"
	"context"
	"log/slog"

	"datera-flexvolume/datera"
	"datera-flexvolume/driver/access"
	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// Array is what the driver needs of the storage cluster.
type Array interface {
	access.Array
	CreateAppInstance(ctx context.Context, request datera.AppInstanceRequest) (ai *datera.AppInstance, created bool, err error)
	SetAdminState(ctx context.Context, id, state string, force bool) (*datera.AppInstance, error)
	DeleteAppInstance(ctx context.Context, id string) error
	ResizeVolume(ctx context.Context, volumePath string, sizeGiB int64) (*datera.Volume, error)
	Metadata(ctx context.Context, id string) (map[string]string, error)
	SetMetadata(ctx context.Context, id string, metadata map[string]string) error
	SetPerformancePolicy(ctx context.Context, volumePath string, policy datera.PerformancePolicy) error
	SetAuth(ctx context.Context, storageInstancePath string, auth datera.Auth) error
	InitiatorByName(ctx context.Context, name string) (*datera.Initiator, error)
	RegisterInitiator(ctx context.Context, iqn, name string) (*datera.Initiator, error)
	InitiatorGroupsOfAllTenants(ctx context.Context, part string) ([]datera.InitiatorGroup, error)
	DeleteInitiatorGroup(ctx context.Context, name string) error
	Tenants(ctx context.Context) ([]string, error)
}

// Initiator is what the driver needs of the host's iSCSI initiator.
type Initiator interface {
	Name() (string, error)
	Attach(ctx context.Context, target iscsi.Target, chap iscsi.CHAP) (iscsi.Device, error)
	Login(ctx context.Context, target iscsi.Target, chap iscsi.CHAP) error
	LoggedIn(target iscsi.Target) (bool, error)
	Scan(ctx context.Context, target iscsi.Target) (iscsi.Device, error)
	Find(ctx context.Context, target iscsi.Target) (iscsi.Device, bool, error)
	Identify(devicePath string) (iscsi.Device, error)
	Detach(ctx context.Context, target iscsi.Target) error
	Resize(ctx context.Context, device iscsi.Device, bytes int64) (int64, error)
}

// Mounter is what the driver needs of the host's file systems.
type Mounter interface {
	Inspect(ctx context.Context, device string) (mount.Content, error)
	Format(ctx context.Context, request mount.FormatRequest) error
	Mount(ctx context.Context, device, path, filesystem string, options mount.MountOptions) error
	Bind(ctx context.Context, source, path string, readOnly bool) error
	Unmount(ctx context.Context, path string) error
	Released(ctx context.Context, device string) error
	RemoveDir(path string) error
	At(path string) (mount.Mount, bool, error)
	Same(as mount.Mount) ([]mount.Mount, error)
	Grow(ctx context.Context, device, path, filesystem string) error
}

// OpenArray connects to an array as a user, in a tenant. It makes no request yet.
type OpenArray func(scheme string, credentials Credentials, tenant string) (Array, error)

// Driver holds what the calls need. The zero value answers init.
type Driver struct {
	Config Config
	// ConfigError is what was wrong with the configuration. Every call reports it but init,
	// and those that take a volume away: they must never be stuck.
	ConfigError error
	OpenArray   OpenArray
	Initiator   Initiator
	Mounter     Mounter
	Log         *slog.Logger
}

func (d *Driver) journal() journal { return journal{d.Config.StateDir} }

// chapFor are the CHAP secrets for a volume. They belong to the configured array: one that
// a volume's secret names is never told them.
func (d *Driver) chapFor(volume Volume) CHAPConfig {
	if volume.Secret == nil {
		return d.Config.CHAP
	}
	at, err := d.Config.connectionFor(volume)
	configured, configErr := ParseServer(d.Config.ManagementIP)
	if err != nil || configErr != nil || !d.Config.names(configured, at.Credentials.Server) {
		return CHAPConfig{}
	}
	return d.Config.CHAP
}

func (c CHAPConfig) forLogin() iscsi.CHAP {
	return iscsi.CHAP{Username: c.Username, Password: c.Password, UsernameIn: c.MutualUsername, PasswordIn: c.MutualPassword}
}

// forArray is the array's side of the same secrets: its target_* pair is what the host
// presents, its initiator_* pair what the target answers with.
func (c CHAPConfig) forArray() datera.Auth {
	auth := datera.Auth{Type: datera.AuthNone}
	if c.Username != "" {
		auth = datera.Auth{Type: datera.AuthCHAP, TargetUserName: c.Username, TargetPassword: c.Password}
	}
	if c.MutualUsername != "" {
		auth.Type, auth.InitiatorUserName, auth.InitiatorPassword = datera.AuthMutualCHAP, c.MutualUsername, c.MutualPassword
	}
	return auth
}

func (d *Driver) arrayFor(volume Volume) (Array, error) {
	if d.ConfigError != nil {
		return nil, d.ConfigError
	}
	connection, err := d.Config.connectionFor(volume)
	if err != nil {
		return nil, err
	}
	return d.OpenArray(connection.Scheme, connection.Credentials, d.tenantOf(volume))
}

// tenantOf is the path of the tenant in which a volume is.
func (d *Driver) tenantOf(volume Volume) string {
	return tenantPathOf(cmp.Or(volume.Tenant, d.Config.Tenant))
}

// configuredArray is for the calls that know a volume by its name alone.
func (d *Driver) configuredArray(tenant string) (Array, error) {
	return d.arrayFor(Volume{Tenant: tenant})
}
