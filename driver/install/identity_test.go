package install

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
)

const (
	otherUID = "7a9f2c55-1c1e-4d0e-8f53-2f6c9b1a7e11"
	// claimGroup is called as claims are: with a digest of identity and PersistentVolume.
	claimGroup = "k8s_0123456789ab_ba9876543210_rw_pv-1"
)

// cluster is what this installer is told when it asks.
func cluster(id string, err error) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return id, err }
}

var errAway = errors.New("connection refused")

func TestIdentityThatANodeGets(t *testing.T) {
	t.Parallel()
	refused := fmt.Errorf("%w: 403", ErrForbidden)
	tests := map[string]struct {
		before func(*host) // what is installed
		now    func(*host)
		want   string
		says   string
	}{
		"the cluster's own": {nil, func(h *host) { h.AskCluster = cluster(uid, nil) }, uid, "the UID of the namespace kube-system"},
		"the configured one goes before the cluster's": {nil, func(h *host) {
			h.configure("cluster_id: " + otherUID + "\n")
			h.AskCluster = cluster(uid, nil)
		}, otherUID, "cluster_id of datera-config"},
		"the flag goes before all": {nil, func(h *host) {
			h.configure("cluster_id: " + otherUID + "\n")
			h.ClusterID, h.AskCluster = uid, cluster("x", nil)
		}, uid, "by --cluster-id"},
		"the name, where there is no cluster to ask":   {nil, func(*host) {}, "kubernetes", "the cluster's name alone: clusters of one name on an array cannot be told apart; set cluster_id"},
		"the name, where the cluster does not answer":  {nil, func(h *host) { h.AskCluster = cluster("", refused) }, "kubernetes", "the API server refuses the question: 403"},
		"the installed one, where the cluster is away": {func(h *host) { h.AskCluster = cluster(uid, nil) }, func(h *host) { h.AskCluster = cluster("", errAway) }, uid, "as installed"},
		"the installed one, by hand":                   {func(h *host) { h.AskCluster = cluster(uid, nil) }, func(*host) {}, uid, "as installed"},
		"after a version that knew none": {func(h *host) {
			require.NoError(h.t, os.MkdirAll(h.installed(""), 0o755))
			require.NoError(h.t, os.WriteFile(h.installed(".datera-config"), []byte("mgmt_ip: a\nnode: node-a\n"), 0o600))
		}, func(h *host) { h.AskCluster = cluster(uid, nil) }, uid, "the UID of"},
		"another name, and no ID": {func(*host) {}, func(h *host) { h.configure("cluster: prod\n"); h.forget(iqn) }, "prod", "the cluster's name alone"},
		"the cluster's own, after the name": {func(*host) {}, func(h *host) {
			h.AskCluster = cluster(uid, nil)
		}, uid, "the UID of"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			if test.before != nil {
				test.before(h)
				if h.read(".datera-config") == "" {
					h.install()
				}
				h.Installer, h.events = h.another(), nil
			}
			test.now(h)
			h.install()
			require.Equal(t, test.want, h.config().ClusterID)
			require.Equal(t, test.want, h.config().Identity())
			require.Contains(t, h.lines(), "identity "+test.want+", ")
			require.Contains(t, h.lines(), test.says)
			require.NoError(t, h.Check(t.Context()))
		})
	}
}

// A node that began with another identity than the others would be worse than one that waits.
func TestWaitsForTheClustersAnswer(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	answers := make(chan error, 3)
	answers <- errAway
	answers <- errAway
	h.AskCluster = func(context.Context) (string, error) {
		select {
		case err := <-answers:
			return "", err
		default:
			return uid, nil
		}
	}
	h.install()
	require.Contains(t, h.lines(), "cluster        waiting  find the cluster's identity, the UID of the namespace kube-system: connection refused; or set cluster_id in datera-config")
	require.Equal(t, uid, h.config().Identity())
	require.Equal(t, 1, countEvents(h, StepCluster, Changed))
}

func countEvents(h *host, step Step, state State) (n int) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	for _, event := range h.events {
		if event.Step == step && event.State == state {
			n++
		}
	}
	return n
}

// The cluster is asked once, not at each look.
func TestClusterIsAskedOnce(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	asked := 0
	h.AskCluster = func(context.Context) (string, error) { asked++; return uid, nil }
	for range 3 {
		_, failures := h.installOnce(t.Context())
		require.Empty(t, failures)
	}
	require.Equal(t, 1, asked)
	require.Equal(t, 1, countEvents(h, StepCluster, Changed)+countEvents(h, StepCluster, OK))
}

// Claims are found by the identity: one that is changed under them leaves them behind.
func TestIdentityIsNotChangedWhileAClaimOfItStands(t *testing.T) {
	t.Parallel()
	configured := func(h *host) { h.configure("cluster_id: " + otherUID + "\n") }
	found := func(h *host) { h.AskCluster = cluster(otherUID, nil) }
	kubelet := func(h *host) { h.Attach = driver.AttachKubelet }
	controlPlane := func(h *host) { h.ControlPlane = true }
	tests := map[string]struct {
		before, change func(*host)
		claim          func(*host)
		want           string
		says           []string // nil: it is installed without a word of a claim
		fails          bool
	}{
		"a claim of this node, and another ID is configured": {
			kubelet, configured, func(h *host) { h.claim("/root", claimGroup, iqn) }, uid,
			[]string{"is not changed from " + uid + " to " + otherUID, "initiator group " + claimGroup + " with " + iqn, "drain the node", "cluster_id: " + uid}, true,
		},
		"a claim of this node, and the cluster says another ID": {
			kubelet, found, func(h *host) { h.claim("/root", claimGroup, iqn) }, uid,
			[]string{"identity " + uid + ", as installed", "becomes " + otherUID, claimGroup}, false,
		},
		"a claim in another tenant": {
			kubelet, configured, func(h *host) {
				_, err := h.array.Do("/root", http.MethodPost, "/tenants", map[string]any{"name": "shop"})
				require.NoError(h.t, err)
				h.claim("/root/shop", claimGroup, iqn)
			}, uid, []string{claimGroup}, true,
		},
		"a claim of another node": {
			kubelet, configured, func(h *host) {
				require.NoError(h.t, h.array.RegisterInitiator(otherIQN, "k8s_kubernetes_node-b"))
				h.claim("/root", claimGroup, otherIQN)
			}, otherUID, nil, false,
		},
		"a group of a former version, which the cluster's name finds": {
			kubelet, configured, func(h *host) { h.grant(iqn) }, otherUID, nil, false,
		},
		"a claim that was given back": {kubelet, configured, func(h *host) { h.claim("/root", claimGroup) }, otherUID, nil, false},
		"a worker in mode controller, which claims nothing": {
			func(*host) {}, configured, func(h *host) { h.claim("/root", claimGroup, iqn) }, otherUID, nil, false,
		},
		"a control plane, which claims for every node": {
			controlPlane, configured, func(h *host) {
				require.NoError(h.t, h.array.RegisterInitiator(otherIQN, "k8s_kubernetes_node-b"))
				h.claim("/root", claimGroup, otherIQN)
			}, uid, []string{claimGroup + " with " + otherIQN, "scale the cluster's pods with volumes down"}, true,
		},
		"a control plane, and a node of another cluster": {
			controlPlane, configured, func(h *host) {
				require.NoError(h.t, h.array.RegisterInitiator(otherIQN, "k8s_prod_node-b"))
				h.claim("/root", claimGroup, otherIQN)
			}, otherUID, nil, false,
		},
		"an array that is away": {
			kubelet, configured, func(h *host) {
				h.OpenArray = func(driver.Config) (Array, error) { return nil, os.ErrDeadlineExceeded }
			}, uid, []string{"look for claims on volumes", "timeout"}, true,
		},
		"credentials that come with each volume": {
			func(h *host) { h.write("source/datera-config", "attach: none\n") },
			func(h *host) { h.write("source/datera-config", "attach: none\ncluster_id: "+otherUID+"\n") },
			func(h *host) { h.volumes = []driver.VolumeStatus{{PV: "pv-1"}} }, uid, []string{"volumes are on this node: pv-1"}, true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			test.before(h)
			h.AskCluster = cluster(uid, nil)
			h.install()
			h.Installer, h.events = h.another(), nil
			test.before(h)
			test.change(h)
			test.claim(h)
			_, failures := h.installOnce(t.Context())
			if test.fails {
				require.Len(t, failures, 1)
				require.Equal(t, StepCluster, failures[0].step)
				h.reportFailures(failures, time.Second)
				require.ErrorContains(t, h.Check(t.Context()), "this node has the cluster identity "+uid+", and "+otherUID+" is configured")
			} else {
				require.Empty(t, failures)
			}
			require.Equal(t, test.want, h.config().ClusterID)
			for _, words := range test.says {
				require.Contains(t, h.lines(), words)
			}
			if test.says == nil {
				require.NotContains(t, h.lines(), claimGroup)
			}
		})
	}
}
