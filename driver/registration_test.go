package driver

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const capitals = "iqn.1993-08.org.debian:01:Node-A"

// iscsid logs in with lower-case letters, or the array knows no others: which of the two folds a name, nobody can tell before.
func TestIQNWithCapitals(t *testing.T) {
	tests := map[string]func(t *testing.T, n *node) string{
		"register": func(t *testing.T, n *node) string {
			_, err := n.Register(t.Context(), "node-a", "")
			require.Error(t, err)
			return err.Error()
		},
		"register of another host": func(t *testing.T, n *node) string {
			n.iqn = strings.ToLower(n.iqn)
			_, err := n.Register(t.Context(), "node-b", capitals)
			require.Error(t, err)
			return err.Error()
		},
		"attach in mode kubelet": func(t *testing.T, n *node) string {
			n.Config.Attach = AttachKubelet
			return n.refused(t, "attach", optionsWith(nil), "node-a")
		},
		"mount in mode none": func(t *testing.T, n *node) string {
			n.Config.Attach, n.Config.Node = AttachNone, "node-a"
			return n.refused(t, "mount", podPath, optionsWith(nil))
		},
	}
	for name, call := range tests {
		t.Run(name, func(t *testing.T) {
			server := array(t)
			n := newNode(t, server, "node-a")
			n.iqn = capitals
			message := call(t, n)
			require.Contains(t, message, capitals+" has capital letters")
			require.Contains(t, message, "InitiatorName=iqn.1993-08.org.debian:01:node-a")
			require.Contains(t, message, "restart iscsid")
			require.Empty(t, server.Initiators("/root"), "it was registered all the same")
		})
	}
}

// A node's name in Kubernetes may be longer than a name on the array: what is compared is what was stored.
func TestNodeNameBeyondTheArraysLimit(t *testing.T) {
	long := strings.Repeat("n", 120)
	for name, mode := range map[string]AttachMode{"none": AttachNone, "kubelet": AttachKubelet} {
		t.Run(name, func(t *testing.T) {
			server := array(t)
			n := newNode(t, server, long, func(c *Config) { c.Attach, c.Node = mode, long })
			require.NotContains(t, InitiatorName(n.Config.Cluster, long), long, "the name is not cut, and this test tests nothing")
			for range 2 {
				if mode == AttachNone {
					n.ask(t, "mount", podPath, optionsWith(nil))
					n.ask(t, "unmount", podPath)
					continue
				}
				n.ask(t, "attach", optionsWith(nil), long)
				n.ask(t, "detach", "pv-datera-0", long)
			}

			twin := newNode(t, server, long, func(c *Config) { c.Attach, c.Node = AttachNone, long+"n" })
			message := twin.refused(t, "mount", podPath, optionsWith(nil))
			require.Contains(t, message, "is registered on")
			require.NotContains(t, message, "set node:", "a name that was cut is not what Kubernetes calls a node")
		})
	}
}

// Two clusters of one name with a node of one name, a node that was set up again, copies of an image: each is named, and what
// the other has stays.
func TestRegistrationOfAnother(t *testing.T) {
	const other = "iqn.1993-08.org.debian:01:other"
	tests := map[string]struct {
		iqn, name string // registered
		none      bool   // whether mode none is refused, too: it goes by the initiator
		says      []string
	}{
		"a cluster of this name, or this node before it was set up again": {other, "k8s_kubernetes_node-a", false, []string{
			"has another machine as node node-a", "registered with initiator " + other, "this node was set up again", "delete initiator " + other,
			`another cluster called "kubernetes"`, "a `cluster` of its own", "has no volumes yet", "nothing was changed",
		}},
		"this initiator as a node of another cluster": {ownIQN, "k8s_prod_node-a", true, []string{
			"as k8s_prod_node-a", "copies of an image", "iscsi-iname", `node of cluster "prod" before`,
		}},
		"this initiator as another node of this cluster": {ownIQN, "k8s_kubernetes_node-b", true, []string{
			"as k8s_kubernetes_node-b", "copies of an image", "set node: node-b in the configuration",
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := array(t)
			require.NoError(t, server.RegisterInitiator(test.iqn, test.name))
			n := newNode(t, server, "node-a", func(c *Config) { c.Node = "node-a" })
			_, err := n.Register(t.Context(), "node-a", "")
			for _, words := range test.says {
				require.ErrorContains(t, err, words)
			}
			if test.none {
				n.Config.Attach = AttachNone
				message := n.refused(t, "mount", podPath, optionsWith(nil))
				for _, words := range test.says {
					require.Contains(t, message, words)
				}
			}
			require.Equal(t, map[string]string{test.iqn: test.name}, server.Initiators("/root"))
		})
	}
}

// What other software called an initiator is no node's name: mode none works with it, as it goes by the initiator.
func TestInitiatorThatOtherSoftwareNamed(t *testing.T) {
	server := array(t)
	require.NoError(t, server.RegisterInitiator(ownIQN, "CSI-4711"))
	n := newNode(t, server, "node-a", func(c *Config) { c.Attach, c.Node = AttachNone, "node-a" })
	n.ask(t, "mount", podPath, optionsWith(nil))
}
