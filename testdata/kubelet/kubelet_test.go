// Package kubelet lets the real code of Kubernetes drive the real binary: what kubelet and
// kube-controller-manager run is k8s.io/kubernetes/pkg/volume/flexvolume, and so do these
// tests. Behind the binary stands the simulator; on the node, with a real iSCSI target.
//
// The calls that Kubernetes makes are compared with those in testdata; -update writes them.
// $ISCSI is the driver to be tested, bin/iscsi by default. The oldest version of Kubernetes
// is tried by -tags oldest -modfile oldest.mod.
package kubelet

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/volume"
	volumetest "k8s.io/kubernetes/pkg/volume/testing"
	"k8s.io/mount-utils"
	"k8s.io/utils/exec"

	"datera-flexvolume/driver"
)

func driverBinary() string {
	if path := os.Getenv("ISCSI"); path != "" {
		return path
	}
	return "../../bin/iscsi"
}

func TestMain(m *testing.M) {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	if _, err := os.Stat(driverBinary()); err != nil {
		fmt.Fprintln(os.Stderr, "no driver to test; run `make build`:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const driverFolder = "datera~iscsi"

// kubelet is what kubelet and kube-controller-manager have in common: the folder of the
// driver, and the manager of volume plugins that finds it there.
type kubelet struct {
	*recorder
	root, plugins string // kubelet's directory, and where it looks for drivers
	secrets       []runtime.Object
	manager       *volume.VolumePluginMgr
}

// volumeHost is kubelet to its volume plugins; its mounts are real.
type volumeHost struct {
	volumetest.FakeVolumeHost
	mounter mount.Interface
}

func newKubelet(t *testing.T, root, plugins string, config driver.Config, secrets ...runtime.Object) *kubelet {
	t.Helper()
	for _, variable := range []string{"DATERA_CONFIG", "DAT_MGMT", "DAT_USER", "DAT_PASS", "DAT_TENANT", "DAT_API", "DAT_LDAP"} {
		t.Setenv(variable, "")
	}
	k := &kubelet{recorder: &recorder{Interface: exec.New(), t: t}, root: root, plugins: plugins, secrets: secrets}
	k.name(root, "/var/lib/kubelet")
	k.configure(config)
	k.install(driverFolder, "iscsi")
	k.start()
	return k
}

// start is a start of kubelet: whatever it knew before, it has forgotten.
func (k *kubelet) start() {
	k.t.Helper()
	k.manager = &volume.VolumePluginMgr{}
	host := volumeHost{volumetest.NewFakeVolumeHost(k.t, k.root, fake.NewSimpleClientset(k.secrets...), nil), mount.New("")}
	require.NoError(k.t, k.manager.InitPlugins(nil, newProber(k.t.Context(), k.plugins, k.recorder), host))
}

// install puts the driver into a folder as the README says: under a name with a dot first.
func (k *kubelet) install(folder, name string) {
	k.t.Helper()
	path := filepath.Join(k.plugins, folder, name)
	hidden := filepath.Join(k.plugins, folder, "."+name)
	require.NoError(k.t, os.MkdirAll(filepath.Dir(path), 0o755))
	program, err := os.ReadFile(driverBinary())
	require.NoError(k.t, err)
	require.NoError(k.t, os.WriteFile(hidden, program, 0o755))
	require.NoError(k.t, os.Rename(hidden, path))
}

// configure writes the driver's configuration beside it.
func (k *kubelet) configure(config driver.Config) {
	k.t.Helper()
	document, err := json.Marshal(config)
	require.NoError(k.t, err)
	k.writeBeside(".datera-config", document)
}

func (k *kubelet) writeBeside(name string, content []byte) {
	k.t.Helper()
	require.NoError(k.t, os.MkdirAll(filepath.Join(k.plugins, driverFolder), 0o755))
	require.NoError(k.t, os.WriteFile(filepath.Join(k.plugins, driverFolder, name), content, 0o600))
}

// plugin finds the driver for a volume; what kubelet can do with it depends on the mode.
func (k *kubelet) plugin(spec *volume.Spec) volume.VolumePlugin {
	k.t.Helper()
	plugin, err := k.manager.FindPluginBySpec(spec)
	require.NoError(k.t, err)
	return plugin
}

func (k *kubelet) attachable(spec *volume.Spec) volume.AttachableVolumePlugin {
	k.t.Helper()
	plugin, err := k.manager.FindAttachablePluginBySpec(spec)
	require.NoError(k.t, err)
	require.NotNil(k.t, plugin, "the driver did not say that it attaches volumes")
	return plugin
}

func (k *kubelet) attacher(spec *volume.Spec) volume.Attacher {
	k.t.Helper()
	attacher, err := k.attachable(spec).NewAttacher()
	require.NoError(k.t, err)
	return attacher
}

func (k *kubelet) attach(spec *volume.Spec, node types.NodeName) string {
	k.t.Helper()
	device, err := k.attacher(spec).Attach(spec, node)
	require.NoError(k.t, err)
	return device
}

// wantAttached holds the driver to what Kubernetes goes by: a volume that it takes for
// detached is attached elsewhere, and one that it takes for attached is not attached at all.
func (k *kubelet) wantAttached(spec *volume.Spec, node types.NodeName, wanted bool) {
	k.t.Helper()
	attached, err := k.attacher(spec).VolumesAreAttached([]*volume.Spec{spec}, node)
	require.NoError(k.t, err)
	require.Equal(k.t, wanted, attached[spec], "whether volume %s is attached to %s", spec.Name(), node)
}

// detach names the volume as Kubernetes does.
func (k *kubelet) detach(spec *volume.Spec, node types.NodeName) {
	k.t.Helper()
	plugin := k.attachable(spec)
	detacher, err := plugin.NewDetacher()
	require.NoError(k.t, err)
	name, err := plugin.GetVolumeName(spec)
	require.NoError(k.t, err)
	require.NoError(k.t, detacher.Detach(name, node))
}

func (k *kubelet) expand(spec *volume.Spec, size, old string) error {
	k.t.Helper()
	plugin, err := k.manager.FindExpandablePluginBySpec(spec)
	require.NoError(k.t, err)
	require.True(k.t, plugin.RequiresFSResize(), "kubelet would never grow the file system")
	_, err = plugin.ExpandVolumeDevice(spec, resource.MustParse(size), resource.MustParse(old))
	return err
}

// setUp gives a pod the volume.
func (k *kubelet) setUp(spec *volume.Spec, pod *corev1.Pod) error {
	k.t.Helper()
	return k.mounter(spec, pod).SetUp(volume.MounterArgs{FsGroup: fsGroup(pod)})
}

func (k *kubelet) tearDown(spec *volume.Spec, pod *corev1.Pod) {
	k.t.Helper()
	unmounter, err := k.plugin(spec).NewUnmounter(spec.Name(), pod.UID)
	require.NoError(k.t, err)
	require.NoError(k.t, unmounter.TearDown())
	require.NoDirExists(k.t, unmounter.GetPath())
}
