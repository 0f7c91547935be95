package driver

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKubeletTellsWhereItLooks(t *testing.T) {
	tests := map[string]struct {
		args   string
		config string
		want   kubeletPlaces
	}{
		"nothing":   {"", "", kubeletPlaces{true, kubeletRootDefault, DefaultPluginDir}},
		"flags":     {"--root-dir=/data/kubelet\x00--volume-plugin-dir=/opt/plugins\x00", "", kubeletPlaces{true, "/data/kubelet", "/opt/plugins"}},
		"two words": {"--root-dir\x00/data/kubelet\x00", "", kubeletPlaces{true, "/data/kubelet", DefaultPluginDir}},
		"a configuration": {
			"--config=/etc/kubelet.yaml\x00", "kind: KubeletConfiguration\nvolumePluginDir: /var/plugins\n",
			kubeletPlaces{true, kubeletRootDefault, "/var/plugins"},
		},
		"a flag above the configuration": {
			"--config=/etc/kubelet.yaml\x00--volume-plugin-dir=/opt/plugins\x00", "volumePluginDir: /var/plugins\n",
			kubeletPlaces{true, kubeletRootDefault, "/opt/plugins"},
		},
		"a configuration that is not there": {"--config=/no/such/file\x00", "", kubeletPlaces{true, kubeletRootDefault, DefaultPluginDir}},
		"a flag without a value":            {"--root-dir", "", kubeletPlaces{true, kubeletRootDefault, DefaultPluginDir}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.write(t, d.proc+"/812/cmdline", "/usr/bin/kubelet\x00"+test.args)
			d.write(t, d.proc+"/812/root/etc/kubelet.yaml", test.config)
			d.write(t, d.proc+"/813/comm", "kubelet-not\n")
			require.Equal(t, test.want, d.Host.kubelet())
		})
	}
	require.Equal(t, kubeletPlaces{false, kubeletRootDefault, DefaultPluginDir}, Host{ProcRoot: t.TempDir()}.kubelet(), "no kubelet")
}

func TestModules(t *testing.T) {
	d := newDesk(t)
	d.write(t, d.proc+"/sys/kernel/osrelease", "6.1.0-1\n")
	folder := d.Host.ModulesRoot + "/6.1.0-1"
	d.write(t, folder+"/modules.builtin", "kernel/drivers/md/dm-mod.ko\n")
	d.write(t, folder+"/modules.dep", "kernel/drivers/md/dm-multipath.ko.zst: kernel/drivers/md/dm-mod.ko.zst\n")
	for name, state := range map[string]string{"iscsi_tcp": moduleLoaded, "xfs": moduleLoaded, "dm_mod": moduleLoaded, "dm_multipath": moduleLoadable, "multipath": moduleMissing} {
		require.Equal(t, state, d.Host.module(name), name)
	}
}
