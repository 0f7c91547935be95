package install

import (
	"context"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
	"datera-flexvolume/driver"
)

func TestUninstall(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.install()
	require.Error(t, h.Gone())
	h.Installer, h.events = h.another(), nil
	require.NoError(t, h.Uninstall(t.Context(), 0))
	require.NoFileExists(t, h.installed(""))
	require.Empty(t, h.array.Initiators("/root"))
	require.NoError(t, h.Gone())
	require.Regexp(t, `\Aarray          changed  http://127\.0\.0\.1:\d+ has no initiator k8s_kubernetes_node-a any more
driver         changed  /usr/libexec/kubernetes/kubelet-plugins/volume/exec/datera~iscsi is gone
ready          ok       the driver is off node node-a\z`, h.lines())
	require.NoError(t, h.Uninstall(t.Context(), 0), "once more")
}

func TestUninstallWithWhatIsInstalledAlone(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.configure("cluster: prod\n")
	h.install()
	require.NoError(t, os.Remove(h.source))
	h.Installer = h.another()
	h.Node = ""
	require.NoError(t, h.Uninstall(t.Context(), 0))
	require.Empty(t, h.array.Initiators("/root"), "the node was registered under the names in the installed configuration")
}

func TestUninstallRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		prepare func(*host)
		says    []string
	}{
		"volumes on the node": {func(h *host) {
			h.volumes = []driver.VolumeStatus{
				{PV: "pv-1", Mounts: []driver.MountStatus{{Path: "/var/lib/kubelet/a"}, {Path: "/var/lib/kubelet/b"}}},
				{IQN: "iqn.2013-05.com.daterainc:tc:01:sn:1"},
			}
		}, []string{"pv-1 (mounted at /var/lib/kubelet/a and /var/lib/kubelet/b)", "iqn.2013-05.com.daterainc:tc:01:sn:1", "iscsi reap"}},
		"a volume that comes at the last moment": {func(h *host) {
			looks := 0
			h.Volumes = func(context.Context, string) ([]driver.VolumeStatus, error) {
				if looks++; looks == 1 {
					return nil, nil
				}
				require.Empty(h.t, h.read("iscsi"), "kubelet can still begin something new")
				return []driver.VolumeStatus{{PV: "pv-1"}}, nil
			}
		}, []string{"pv-1"}},
		"volumes that nobody can list": {func(h *host) {
			h.Volumes = func(context.Context, string) ([]driver.VolumeStatus, error) { return nil, os.ErrPermission }
		}, []string{"permission denied"}},
		"a volume that is attached on the array": {func(h *host) { h.grant(iqn) },
			[]string{"in use by /initiator_groups/k8s_kubernetes_pv-1", "--keep-registration"}},
		"an array that is away": {func(h *host) {
			h.OpenArray = func(driver.Config) (Array, error) { return nil, os.ErrDeadlineExceeded }
		}, []string{"timeout"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.install()
			before := h.identity(".datera-config")
			test.prepare(h)
			err := h.Uninstall(t.Context(), 0)
			for _, words := range test.says {
				require.ErrorContains(t, err, words)
			}
			require.Equal(t, "version 1", h.read("iscsi"))
			require.Equal(t, before, h.identity(".datera-config"))
			require.Len(t, h.array.Initiators("/root"), 1)
		})
	}
}

// On a control plane kube-controller-manager loses the driver: not before it has detached every volume of the cluster.
func TestUninstallOfAControlPlane(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		prepare func(*host)
		says    []string // none: it goes on
	}{
		"a volume on another node": {func(*host) {}, []string{"kube-controller-manager needs the driver", "initiator group k8s_kubernetes_pv-1 with " + otherIQN, "--keep-registration"}},
		"a volume of another tenant": {func(h *host) {
			h.detachAll()
			_, err := h.array.Do("/root", http.MethodPost, "/tenants", map[string]any{"name": "shop"})
			require.NoError(h.t, err)
			h.grantIn("/root/shop", otherIQN)
		}, []string{"initiator group k8s_kubernetes_pv-1 with " + otherIQN}},
		"a volume that comes at the last moment": {func(h *host) {
			h.detachAll()
			looks := 0
			h.Volumes = func(context.Context, string) ([]driver.VolumeStatus, error) {
				if looks++; looks == 2 {
					h.grant(otherIQN)
				}
				return nil, nil
			}
		}, []string{"k8s_kubernetes_pv-1"}},
		"an array that is away": {func(h *host) {
			h.OpenArray = func(driver.Config) (Array, error) { return nil, os.ErrDeadlineExceeded }
		}, []string{"timeout", "--keep-registration does without the array"}},
		"a claim, whose group's name does not begin with the cluster's": {func(h *host) {
			h.detachAll()
			h.claim("/root", claimGroup, otherIQN)
		}, []string{"initiator group " + claimGroup + " with " + otherIQN}},
		"a claim of an initiator that is registered no more": {func(h *host) {
			h.detachAll()
			h.claim("/root", claimGroup, otherIQN)
			h.through(func(array Array) Array { return forgetful{array} })
		}, []string{"initiator group " + claimGroup + " with " + otherIQN}},
		"a claim of a node of another cluster": {func(h *host) {
			h.detachAll()
			const third = "iqn.1993-08.org.debian:01:third"
			require.NoError(h.t, h.array.RegisterInitiator(third, "k8s_prod_node-b"))
			h.claim("/root", claimGroup, third)
		}, nil},
		"a user who may not list tenants": {func(h *host) {
			h.detachAll()
			h.through(func(array Array) Array { return secretive{array} })
		}, []string{"list the tenants", "`tenants` in "}},
		"a user who may not list tenants, and need not": {func(h *host) {
			h.detachAll()
			h.configure("tenants: []\n")
			h.install()
			h.through(func(array Array) Array { return secretive{array} })
		}, nil},
		"a volume of a tenant that is configured": {func(h *host) {
			h.detachAll()
			_, err := h.array.Do("/root", http.MethodPost, "/tenants", map[string]any{"name": "shop"})
			require.NoError(h.t, err)
			h.configure("tenants: [shop]\n")
			h.install()
			h.through(func(array Array) Array { return secretive{array} })
			h.claim("/root/shop", claimGroup, otherIQN)
		}, []string{"initiator group " + claimGroup + " with " + otherIQN}},
		"a group without members": {func(h *host) {
			h.detachAll()
			h.grant()
		}, nil},
		"another cluster's volume": {func(h *host) {
			h.configure("cluster: prod\n")
			h.forget(iqn)
			h.install()
		}, nil},
		"a worker":                    {func(h *host) { h.ControlPlane = false }, nil},
		"attach mode kubelet":         {func(h *host) { h.Attach = driver.AttachKubelet; h.install() }, nil},
		"without a look at the array": {func(h *host) { h.KeepRegistration = true }, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.ControlPlane = true
			h.install()
			require.NoError(t, h.array.RegisterInitiator(otherIQN, "k8s_kubernetes_node-b"))
			h.grant(otherIQN)
			test.prepare(h)
			err := h.Uninstall(t.Context(), 0)
			if test.says == nil {
				require.NoError(t, err)
				require.NoError(t, h.Gone())
				return
			}
			for _, words := range test.says {
				require.ErrorContains(t, err, words)
			}
			require.Equal(t, "version 1", h.read("iscsi"))
		})
	}
}

// secretive is an array whose user may not list tenants.
type secretive struct{ Array }

func (secretive) Tenants(context.Context) ([]string, error) {
	return nil, &datera.APIError{Status: http.StatusForbidden, Name: "PermissionDeniedError"}
}

// forgetful is an array that has lost its initiators.
type forgetful struct{ Array }

func (forgetful) Initiator(context.Context, string) (*datera.Initiator, error) {
	return nil, &datera.APIError{Status: http.StatusNotFound, Name: "NotFoundError"}
}

func TestUninstallOfAControlPlaneWaits(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.ControlPlane = true
	h.install()
	require.NoError(t, h.array.RegisterInitiator(otherIQN, "k8s_kubernetes_node-b"))
	h.grant(otherIQN)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Uninstall(ctx, 5*time.Millisecond) }()
	h.says(StepUse, Waiting, "k8s_kubernetes_pv-1")
	require.Equal(t, "version 1", h.read("iscsi"))
	h.detachAll()
	h.says(StepReady, OK, "the driver is off")
	require.NoError(t, h.Gone())
	cancel()
	require.NoError(t, <-ended)
}

func TestUninstallKeepsTheRegistration(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.install()
	require.NoError(t, os.Remove(h.source))
	require.NoError(t, os.WriteFile(h.installed(".datera-config"), []byte("{"), 0o600))
	require.ErrorContains(t, h.Uninstall(t.Context(), 0), "--keep-registration")
	h.KeepRegistration = true
	require.NoError(t, h.Uninstall(t.Context(), 0))
	require.NoFileExists(t, h.installed(""))
	require.Len(t, h.array.Initiators("/root"), 1)
}

func TestUninstallLeavesForeignFiles(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.install()
	require.NoError(t, os.WriteFile(h.installed("notes"), nil, 0o600))
	require.ErrorContains(t, h.Uninstall(t.Context(), 0), "directory not empty")
	require.Equal(t, []string{"notes"}, h.files())
}

func TestUninstallWatches(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.install()
	h.volumes = []driver.VolumeStatus{{PV: "pv-1"}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Uninstall(ctx, 5*time.Millisecond) }()
	h.says(StepUse, Waiting, "pv-1")
	require.Equal(t, "version 1", h.read("iscsi"))
	h.mutex.Lock()
	h.volumes = nil
	h.mutex.Unlock()
	h.says(StepReady, OK, "the driver is off")
	require.NoError(t, h.Gone())
	cancel()
	require.NoError(t, <-ended)
}
