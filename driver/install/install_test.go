package install

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/driver"
)

func TestInstall(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.install()
	require.Equal(t, driverFiles, h.files())
	require.Equal(t, "version 1", h.read("iscsi"))
	for file, mode := range map[string]os.FileMode{"iscsi": 0o755, ".datera-config": 0o600} {
		info, err := os.Stat(h.installed(file))
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode(), file)
	}
	config := h.config()
	require.Equal(t, []string{h.array.Address(), "admin", secret, node}, []string{config.ManagementIP, config.Username, config.Password, config.Node})
	require.Equal(t, map[string]string{iqn: name}, h.array.Initiators("/root"))
	require.Regexp(t, `\Acluster        changed  identity kubernetes, the cluster's name alone: .*
configuration  changed  /usr/libexec/kubernetes/kubelet-plugins/volume/exec/datera~iscsi/\.datera-config: attach mode controller, array 127\.0\.0\.1:\d+
driver         changed  /usr/libexec/kubernetes/kubelet-plugins/volume/exec/datera~iscsi/iscsi: version 1\.0\.0, sha256 [0-9a-f]{12}
array          changed  http://127\.0\.0\.1:\d+ has node node-a with initiator iqn\.1993-08\.org\.debian:01:node-a as k8s_kubernetes_node-a
host           ok       iscsid, iscsiadm, mkfs\.xfs are there
ready          ok       node node-a can attach volumes\z`, h.lines())
	require.NoError(t, h.Check(t.Context()))
}

// kubelet asks the driver anew when its file changes, so a file that is right is left alone.
func TestWhatIsRightIsNotTouched(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.install()
	driver, config, folder := h.identity("iscsi"), h.identity(".datera-config"), h.identity("")
	h.array.ResetRequests()
	h.Installer = h.another()
	h.install()
	require.Equal(t, []string{driver, config, folder}, []string{h.identity("iscsi"), h.identity(".datera-config"), h.identity("")})
	require.Len(t, h.array.Requests(), 2, "a login and a look; the login is kept where the driver keeps its own")
	require.NotContains(t, h.lines()[len(h.lines())/2:], string(Changed))
}

func TestOnlyWhatDiffersIsReplaced(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change         func(*host)
		driver, config bool // is replaced
	}{
		"another version":              {func(h *host) { h.write("executable", "version 2") }, true, false},
		"another password":             {func(h *host) { h.configure("log: {level: debug}\n") }, false, true},
		"attach mode kubelet":          {func(h *host) { h.Attach = driver.AttachKubelet }, false, true},
		"a mode of which kubelet asks": {func(h *host) { h.Attach = driver.AttachNone }, true, true},
		"a driver that cannot be run": {func(h *host) {
			require.NoError(h.t, os.Chmod(h.installed("iscsi"), 0o644))
		}, true, false},
		"a configuration that all may read": {func(h *host) {
			require.NoError(h.t, os.Chmod(h.installed(".datera-config"), 0o644))
		}, false, true},
		"a damaged driver": {func(h *host) {
			require.NoError(h.t, os.WriteFile(h.installed("iscsi"), []byte("vers"), 0o755))
		}, true, false},
		"a damaged configuration": {func(h *host) {
			require.NoError(h.t, os.WriteFile(h.installed(".datera-config"), []byte("{"), 0o600))
		}, false, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.install()
			h.Installer = h.another()
			test.change(h)
			driver, config := h.identity("iscsi"), h.identity(".datera-config")
			h.install()
			require.Equal(t, test.driver, h.identity("iscsi") != driver, "the driver was replaced")
			require.Equal(t, test.config, h.identity(".datera-config") != config, "the configuration was replaced")
			require.NoError(t, h.Check(t.Context()))
		})
	}
}

func TestWaitsUntilItCanGoOn(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		without, with func(*host)
		step          Step
		says          string
		installed     bool // driver and configuration are in place while it waits
	}{
		"no configuration": {
			func(h *host) { require.NoError(h.t, os.Remove(h.source)) }, func(h *host) { h.configure("") },
			StepConfiguration, "key datera-config of the Secret datera-config", false,
		},
		"a configuration that is none": {
			func(h *host) { h.write("source/datera-config", "password: "+secret+"\nuser: x\n") }, func(h *host) { h.configure("") },
			StepConfiguration, `unknown key "user"`, false,
		},
		"a CA file that is not there": {
			func(h *host) { h.configure("ca_file: /no/such/file\n") }, func(h *host) { h.configure("") },
			StepConfiguration, "/no/such/file", false,
		},
		"a plug-in folder that is none": {
			func(h *host) { h.write("usr/libexec/kubernetes", "") },
			func(h *host) { require.NoError(h.t, os.Remove(h.root+"/usr/libexec/kubernetes")) },
			StepDriver, "not a directory", false,
		},
		"no initiator name": {
			func(h *host) { require.NoError(h.t, os.Remove(h.root+"/etc/iscsi/initiatorname.iscsi")) },
			func(h *host) { h.setInitiator(iqn) },
			StepArray, "install open-iscsi", true,
		},
		"no iscsid": {
			func(h *host) { h.write("proc/net/unix", "") },
			func(h *host) {
				h.write("etc/iscsi/iscsid.conf", "iscsid.startup = /bin/systemctl start iscsid.socket\n")
			},
			StepHost, "systemctl enable --now iscsid", true,
		},
		"no mkfs": {
			func(h *host) { require.NoError(h.t, os.Remove(h.root+"/usr/sbin/mkfs.xfs")) },
			func(h *host) { h.write("usr/bin/mkfs.xfs", "") },
			StepHost, "mkfs.xfs or mkfs.ext4 is not installed on this node: install xfsprogs, or e2fsprogs for ext4 alone", true,
		},
		"a wrong password": {
			func(h *host) {
				h.write("source/datera-config", "mgmt_ip: "+h.array.Address()+"\nscheme: http\nusername: admin\npassword: canary\n")
			},
			func(h *host) { h.configure("") },
			StepArray, "the user name or the password is wrong", true,
		},
		"an initiator name with capitals": {
			func(h *host) { h.setInitiator("iqn.1993-08.org.debian:01:Node-A") }, func(h *host) { h.setInitiator(iqn) },
			StepArray, "has capital letters", true,
		},
		"an initiator that is a node of another cluster": {
			func(h *host) { require.NoError(h.t, h.array.RegisterInitiator(iqn, "k8s_prod_node-a")) },
			func(h *host) { h.setInitiator(otherIQN) },
			StepArray, `If this machine was a node of cluster "prod" before, delete that initiator`, true,
		},
		"an initiator that is another node's": {
			func(h *host) { require.NoError(h.t, h.array.RegisterInitiator(iqn, "k8s_kubernetes_node-b")) },
			func(h *host) { h.setInitiator(otherIQN) },
			StepArray, `is registered in tenant /root of the array as "k8s_kubernetes_node-b"`, true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			test.without(h)
			ended := make(chan error, 1)
			go func() { ended <- h.Install(t.Context(), 0) }()
			h.says(test.step, Waiting, test.says)
			require.Equal(t, test.installed, h.read("iscsi") != "")
			require.Equal(t, test.installed, h.read(".datera-config") != "")
			require.Error(t, h.another().Check(t.Context()))
			test.with(h)
			require.NoError(t, <-ended)
			require.NoError(t, h.Check(t.Context()))
			require.NotContains(t, h.lines(), "canary")
		})
	}
}

func TestWaitsForAnArrayThatIsAway(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	require.NoError(t, h.array.SetFault(dateratest.Fault{Name: dateratest.Unavailable, Path: "/login", Count: 3}))
	h.install()
	h.says(StepReady, OK, "")
	require.Equal(t, map[string]string{iqn: name}, h.array.Initiators("/root"))
}

func TestStopsWhenTold(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	require.NoError(t, h.array.SetFault(dateratest.Fault{Name: dateratest.Slow, Value: "1m"}))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Install(ctx, 0) }()
	h.says(StepDriver, Changed, "")
	cancel()
	require.ErrorIs(t, <-ended, ErrStopped)
	require.Equal(t, "version 1", h.read("iscsi"), "what was done stays")
	require.NotContains(t, h.lines(), Waiting)
}

func TestWatch(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.watch()
	before := h.identity("iscsi")

	h.configure("cluster: prod\n")
	h.says(StepConfiguration, Changed, ".datera-config")
	h.says(StepArray, Waiting, "k8s_kubernetes_node-a")
	require.Equal(t, "prod", h.config().Cluster)
	h.configure("")
	h.says(StepArray, OK, name)
	h.says(StepReady, OK, "")

	h.forget(iqn)
	h.says(StepArray, Changed, "the array had lost it")
	require.Equal(t, map[string]string{iqn: name}, h.array.Initiators("/root"))

	h.setInitiator(otherIQN)
	h.says(StepArray, Changed, "its initiator was "+iqn)
	require.Equal(t, map[string]string{otherIQN: name}, h.array.Initiators("/root"))

	require.NoError(t, os.Remove(h.root+"/usr/sbin/iscsiadm"))
	h.says(StepHost, Waiting, "install open-iscsi")
	h.write("usr/sbin/iscsiadm", "")
	h.says(StepHost, OK, "")
	h.says(StepReady, OK, "")
	require.Equal(t, before, h.identity("iscsi"), "kubelet was asked to look again for nothing")

	require.NoError(t, os.Remove(h.installed("iscsi")))
	h.says(StepDriver, Changed, "")
	require.Equal(t, "version 1", h.read("iscsi"))

	h.array.ResetRequests()
	require.Eventually(t, func() bool { return len(h.array.Requests()) >= 3 }, 5*time.Second, time.Millisecond)
	require.Empty(t, h.lines(), "something is said although nothing happens")
}

// A node whose initiator got a new name keeps the old one on the array while volumes depend on it.
func TestNewInitiatorNameWhileVolumesAreAttached(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		attach, detach func(*host)
		says           string
	}{
		"on this node": {
			func(h *host) { h.volumes = []driver.VolumeStatus{{PV: "pv-1"}} },
			func(h *host) {
				h.mutex.Lock()
				defer h.mutex.Unlock()
				h.volumes = nil
			}, "volumes are on this node: pv-1",
		},
		"by the array": {
			func(h *host) { h.grant(iqn) },
			(*host).detachAll, "in use by /initiator_groups/k8s_kubernetes_pv-1",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.install()
			h.setInitiator(otherIQN)
			test.attach(h)
			h.Installer = h.another()
			ended := make(chan error, 1)
			go func() { ended <- h.Install(t.Context(), 0) }()
			h.says(StepArray, Waiting, test.says)
			require.Contains(t, h.array.Initiators("/root"), iqn)
			require.ErrorContains(t, h.another().Check(t.Context()), "its initiator is "+otherIQN)
			test.detach(h)
			require.NoError(t, <-ended)
			require.Equal(t, []string{otherIQN}, keys(h.array.Initiators("/root")))
		})
	}
}

// Two clusters of one name on one array, with nodes of one name: neither takes the other's registration away.
func TestAnotherMachineUnderThisNodesName(t *testing.T) {
	t.Parallel()
	h, other := newHost(t), newHost(t)
	other.array = h.array
	other.configure("")
	other.setInitiator(otherIQN)
	other.install()
	h.refuses("has another machine as node node-a: k8s_kubernetes_node-a is registered with initiator " + otherIQN + ", this node's is " + iqn)
	h.refuses("delete initiator " + otherIQN + " on the array, or write it back to /etc/iscsi/initiatorname.iscsi and restart iscsid")
	h.refuses(`another cluster called "kubernetes" uses this array`)
	h.refuses("each cluster needs a `cluster` of its own")
	require.NoError(t, h.another().Uninstall(t.Context(), 0))
	require.Equal(t, map[string]string{otherIQN: name}, h.array.Initiators("/root"))
	require.NoError(t, other.Check(t.Context()))

	h.forget(otherIQN)
	h.install()
	other.refuses("this node's is " + otherIQN)
	require.Equal(t, map[string]string{iqn: name}, h.array.Initiators("/root"))
}

func keys(m map[string]string) (keys []string) {
	for key := range m {
		keys = append(keys, key)
	}
	return keys
}

func TestNodesThatDiffer(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		prepare func(*host)
		says    string
		check   func(*require.Assertions, *host)
	}{
		"control plane without open-iscsi": {func(h *host) {
			h.ControlPlane = true
			require.NoError(h.t, os.Remove(h.root+"/etc/iscsi/initiatorname.iscsi"))
			h.write("proc/net/unix", "")
		}, "it has no open-iscsi, so volumes attach to other nodes only", func(r *require.Assertions, h *host) {
			r.Empty(h.array.Initiators("/root"))
			r.Equal(secret, h.config().Password)
		}},
		"control plane with open-iscsi": {func(h *host) { h.ControlPlane = true }, "can attach volumes", func(r *require.Assertions, h *host) {
			r.Len(h.array.Initiators("/root"), 1)
		}},
		"no credentials for the node": {func(h *host) { h.Credentials = false }, "can attach volumes", func(r *require.Assertions, h *host) {
			r.NotContains(h.read(".datera-config"), secret)
			r.NotContains(h.read(".datera-config"), "admin")
			r.Len(h.array.Initiators("/root"), 1)
		}},
		"ext4 alone": {func(h *host) {
			require.NoError(h.t, os.Rename(h.root+"/usr/sbin/mkfs.xfs", h.root+"/usr/sbin/mkfs.ext4"))
		}, "iscsid, iscsiadm, mkfs.ext4 are there", func(*require.Assertions, *host) {}},
		"credentials come with each volume": {func(h *host) {
			h.write("source/datera-config", "attach: none\n")
		}, "can attach volumes", func(r *require.Assertions, h *host) {
			r.Equal(driver.AttachNone, h.config().Attach)
			r.Contains(h.lines(), "mount registers this node")
			r.Empty(h.array.Requests())
		}},
		"the node's name is in the configuration": {func(h *host) {
			h.Node = ""
			h.configure("node: node-7\n")
		}, "node node-7 can", func(r *require.Assertions, h *host) {
			r.Equal(map[string]string{iqn: "k8s_kubernetes_node-7"}, h.array.Initiators("/root"))
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			test.prepare(h)
			h.install()
			require.Contains(t, h.lines(), test.says)
			test.check(require.New(t), h)
			require.NoError(t, h.Check(t.Context()))
		})
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		prepare func(*host)
		says    string
	}{
		"attach mode kubelet without credentials": {func(h *host) { h.Credentials, h.Attach = false, driver.AttachKubelet }, "leave --credentials=false out"},
		"attach mode controller without credentials on a control plane": {func(h *host) {
			h.Credentials, h.ControlPlane = false, true
		}, "kube-controller-manager attaches, detaches and cuts dead nodes off"},
		"an attach mode that there is not": {func(h *host) { h.Attach = "automatic" }, "controller, kubelet or none"},
		"a name that no node has":          {func(h *host) { h.Node = "Node A" }, "node is \"Node A\""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			test.prepare(h)
			_, failures := h.installOnce(t.Context())
			require.Len(t, failures, 1)
			require.ErrorContains(t, failures[0].err, test.says)
			require.Empty(t, h.files())
		})
	}
}

// The control plane's container sees the driver's folder alone, so the CA is there, too.
func TestAuthorityComesAlong(t *testing.T) {
	t.Parallel()
	h := newHost(t, dateratest.WithTLS())
	h.write("source/datera-config", "mgmt_ip: "+h.array.Address()+"\nusername: admin\npassword: "+secret+"\nca_file: "+h.array.CAFile+"\n")
	h.install()
	require.Equal(t, pluginDir+"/datera~iscsi/.datera-ca.pem", h.config().CAFile)
	authority, err := os.ReadFile(h.array.CAFile)
	require.NoError(t, err)
	require.Equal(t, string(authority), h.read(".datera-ca.pem"))
	require.NoError(t, h.Check(t.Context()))

	h.write("source/datera-config", "attach: none\n")
	h.install()
	require.Equal(t, driverFiles, h.files())
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		breakIt func(*host)
		says    []string
	}{
		"another version":  {func(h *host) { h.write("executable", "version 2") }, []string{"iscsi is missing or not version 1.0.0"}},
		"no driver":        {func(h *host) { require.NoError(h.t, os.Remove(h.installed("iscsi"))) }, []string{"is missing"}},
		"no configuration": {func(h *host) { require.NoError(h.t, os.Remove(h.installed(".datera-config"))) }, []string{"configuration of the installed driver", "no such file"}},
		"a changed configuration": {func(h *host) {
			require.NoError(h.t, os.WriteFile(h.installed(".datera-config"), []byte("x: y"), 0o600))
		}, []string{"unknown key"}},
		"a control plane without credentials": {func(h *host) {
			h.Credentials = false
			h.install()
			h.ControlPlane = true
		}, []string{"it needs the array's user name and password"}},
		"a lost registration":      {func(h *host) { h.forget(iqn) }, []string{"look up node node-a", "not found"}},
		"a changed initiator name": {func(h *host) { h.setInitiator(otherIQN) }, []string{"with initiator " + iqn, "its initiator is " + otherIQN}},
		"two things at once": {func(h *host) {
			h.write("proc/net/unix", "")
			require.NoError(h.t, os.Remove(h.root+"/usr/sbin/iscsiadm"))
			h.forget(iqn)
		}, []string{"iscsid does not run", "iscsiadm is not installed", "look up node node-a"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.install()
			test.breakIt(h)
			err := h.Check(t.Context())
			for _, words := range test.says {
				require.ErrorContains(t, err, words)
			}
			require.NotContains(t, err.Error(), "canary")
		})
	}
}

func TestEventAsJSON(t *testing.T) {
	t.Parallel()
	document, err := json.Marshal(Event{Time: time.Unix(0, 0).UTC(), Step: StepArray, State: Waiting, Message: "m", RetrySeconds: 1.5})
	require.NoError(t, err)
	require.JSONEq(t, `{"time":"1970-01-01T00:00:00Z","step":"array","state":"waiting","message":"m","retry_seconds":1.5}`, string(document))
}
