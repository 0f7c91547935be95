package driver

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// seedOptions is the PersistentVolume of the seed documents as kubelet passes it.
func seedOptions() map[string]string {
	return map[string]string{
		"kubernetes.io/fsType": "xfs", "kubernetes.io/pvOrVolumeName": "pv-datera-0", "kubernetes.io/readwrite": "rw",
		"volumeID": "kube-pv-datera-0", "size": "100", "replica": "3", "backstoreServer": "tlx170.tlx.daterainc.com:7717",
	}
}

// optionsWith returns the seed's options as JSON, changed; an empty value is a value.
func optionsWith(changes map[string]string, without ...string) string {
	options := seedOptions()
	maps.Copy(options, changes)
	for _, key := range without {
		delete(options, key)
	}
	document, err := json.Marshal(options)
	if err != nil {
		panic(err)
	}
	return string(document)
}

func secretOf(value string) string { return base64.StdEncoding.EncodeToString([]byte(value)) }

func TestParseVolumeOfTheSeed(t *testing.T) {
	volume, err := ParseVolume(optionsWith(nil), "kubernetes")
	require.NoError(t, err)
	require.Equal(t, Volume{
		Name: "pv-datera-0", AppInstance: "kube-pv-datera-0", SizeGiB: 100, Replicas: 3,
		Server: Server{Host: "tlx170.tlx.daterainc.com", Port: 7717}, Filesystem: "xfs",
	}, volume)
}

func TestParseVolumeAccepts(t *testing.T) {
	tests := map[string]struct {
		options string
		check   func(*require.Assertions, Volume)
	}{
		"defaults": {`{"kubernetes.io/pvOrVolumeName":"pv-1","size":"1"}`, func(r *require.Assertions, v Volume) {
			r.Equal(Volume{Name: "pv-1", AppInstance: "k8s_kubernetes_pv-1", Derived: true, SizeGiB: 1, Replicas: 3, Filesystem: "xfs"}, v)
		}},
		"an empty fsType, as after a restart of kubelet": {optionsWith(map[string]string{keyFSType: ""}), func(r *require.Assertions, v Volume) { r.Equal("xfs", v.Filesystem) }},
		"ext4":             {optionsWith(map[string]string{keyFSType: "ext4"}), func(r *require.Assertions, v Volume) { r.Equal("ext4", v.Filesystem) }},
		"read-only":        {optionsWith(map[string]string{keyReadWrite: "ro"}), func(r *require.Assertions, v Volume) { r.True(v.ReadOnly) }},
		"the largest size": {optionsWith(map[string]string{optSize: "262144"}), func(r *require.Assertions, v Volume) { r.EqualValues(262144, v.SizeGiB) }},
		"a UUID as volumeID": {optionsWith(map[string]string{optVolumeID: "6c26437d-0b1c-4b0e-9c3c-111122223333"}), func(r *require.Assertions, v Volume) {
			r.Equal("6c26437d-0b1c-4b0e-9c3c-111122223333", v.AppInstance)
		}},
		"quality of service and placement": {optionsWith(map[string]string{optMaxIOPS: "1000", optMaxBandwidth: "10240", optIPPool: "default", optPlacementMode: "all_flash", optPlacementPolicy: "gold"}), func(r *require.Assertions, v Volume) {
			r.EqualValues(1000, v.MaxIOPS)
			r.EqualValues(10240, v.MaxBandwidthKiB)
			r.Equal([]string{"default", "all_flash", "gold"}, []string{v.IPPool, v.PlacementMode, v.PlacementPolicy})
		}},
		"a short tenant":          {optionsWith(map[string]string{optTenant: "dev"}), func(r *require.Assertions, v Volume) { r.Equal("/root/dev", v.Tenant) }},
		"a tenant's path":         {optionsWith(map[string]string{optTenant: "/root/dev"}), func(r *require.Assertions, v Volume) { r.Equal("/root/dev", v.Tenant) }},
		"a template without size": {optionsWith(map[string]string{optTemplate: "basic_small"}, optSize), func(r *require.Assertions, v Volume) { r.Zero(v.SizeGiB) }},
		"a clone without size": {optionsWith(map[string]string{optSource: "/app_instances/a-1/storage_instances/storage-1/volumes/volume-1/snapshots/1550370547.151396819"}, optSize), func(r *require.Assertions, v Volume) {
			r.Zero(v.SizeGiB)
		}},
		"retainPolicy never": {optionsWith(map[string]string{optRetainPolicy: "never"}), func(r *require.Assertions, v Volume) { r.True(v.DeleteAllowed) }},
		"mount and mkfs options": {optionsWith(map[string]string{optMountOptions: "noatime,discard", optMkfsOptions: "-m reflink=0 -i size=512"}), func(r *require.Assertions, v Volume) {
			r.Equal([]string{"noatime", "discard"}, v.MountOptions)
			r.Equal([]string{"-m", "reflink=0", "-i", "size=512"}, v.MkfsOptions)
		}},
		"a newer key of Kubernetes": {optionsWith(map[string]string{"kubernetes.io/something.new": "x"}), func(r *require.Assertions, v Volume) { r.Equal("pv-datera-0", v.Name) }},
		"a secret": {optionsWith(map[string]string{keySecret + "username": secretOf("u1"), keySecret + "password": secretOf("canary\n"), keySecret + "server": secretOf("10.0.0.5:7717")}), func(r *require.Assertions, v Volume) {
			r.Equal(&Credentials{Server: Server{Host: "10.0.0.5", Port: 7717}, Username: "u1", Password: "canary"}, v.Secret)
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			volume, err := ParseVolume(test.options, "kubernetes")
			require.NoError(t, err)
			test.check(require.New(t), volume)
		})
	}
}

func TestParseVolumeRefuses(t *testing.T) {
	const sizes = `a whole number of GiB from 1 to 262144`
	tests := map[string]struct {
		options string
		says    []string // field, value, what is accepted
	}{
		"malformed JSON":                 {`{"size":`, []string{`{\"size\":`, "no JSON object"}},
		"an array":                       {`["size"]`, []string{"no JSON object"}},
		"null":                           {`null`, []string{"options are empty"}},
		"nothing":                        {``, []string{"no JSON object"}},
		"no options at all":              {`{}`, []string{"options are empty", "size"}},
		"huge":                           {`{"size":"` + strings.Repeat("1", maxOptionsBytes) + `"}`, []string{"1048576 at most"}},
		"a nested value":                 {`{"size":{"gb":1}}`, []string{"size", `{\"gb\":1}`, "a string in quotes"}},
		"a number":                       {`{"size":100}`, []string{"size", "100", "a string in quotes"}},
		"an unknown option":              {optionsWith(map[string]string{"volumeId": "x"}), []string{"volumeId", "did you mean volumeID"}},
		"a misspelt option":              {optionsWith(map[string]string{"replicas": "2"}), []string{"replicas", "did you mean replica"}},
		"no name":                        {optionsWith(nil, keyName), []string{keyName, "lower-case letters"}},
		"a name with a slash":            {optionsWith(map[string]string{keyName: "../../etc"}), []string{keyName, "../../etc"}},
		"no size":                        {optionsWith(nil, optSize), []string{"size is missing", sizes}},
		"an empty size":                  {optionsWith(map[string]string{optSize: ""}), []string{"size", `""`, sizes}},
		"a size with a unit":             {optionsWith(map[string]string{optSize: "100Gi"}), []string{"size", "100Gi", sizes}},
		"size 0":                         {optionsWith(map[string]string{optSize: "0"}), []string{"size", `"0"`, sizes}},
		"a negative size":                {optionsWith(map[string]string{optSize: "-5"}), []string{"size", "-5", sizes}},
		"a size over the array's limit":  {optionsWith(map[string]string{optSize: "262145"}), []string{"size", "262145", sizes}},
		"a size beyond 64 bits":          {optionsWith(map[string]string{optSize: "99999999999999999999"}), []string{"size", sizes}},
		"an empty volumeID":              {optionsWith(map[string]string{optVolumeID: ""}), []string{"volumeID", `""`, "3 to 64 letters"}},
		"a volumeID that is too long":    {optionsWith(map[string]string{optVolumeID: strings.Repeat("v", 65)}), []string{"volumeID", "3 to 64 letters"}},
		"a volumeID with a slash":        {optionsWith(map[string]string{optVolumeID: "a/b/c"}), []string{"volumeID", "a/b/c", "3 to 64 letters"}},
		"a volumeID with dots":           {optionsWith(map[string]string{optVolumeID: "a..b"}), []string{"volumeID", "a..b"}},
		"a volumeID with a space":        {optionsWith(map[string]string{optVolumeID: "my volume"}), []string{"volumeID", "my volume"}},
		"a volumeID with a newline":      {optionsWith(map[string]string{optVolumeID: "volume\n"}), []string{"volumeID", `volume\n`}},
		"a volumeID with a quote":        {optionsWith(map[string]string{optVolumeID: `vol"ume`}), []string{"volumeID", `vol\"ume`}},
		"a volumeID that is an argument": {optionsWith(map[string]string{optVolumeID: "--help"}), []string{"volumeID", "--help"}},
		"a server that is a URL":         {optionsWith(map[string]string{optServer: "http://array:7717/"}), []string{"backstoreServer", "http://array:7717/", "host:port"}},
		"the seed's markdown link":       {optionsWith(map[string]string{optServer: "[tlx170.tlx.daterainc.com](http://tlx170.tlx.daterainc.com/):7717"}), []string{"backstoreServer", "host:port"}},
		"a port out of range":            {optionsWith(map[string]string{optServer: "array:70000"}), []string{"backstoreServer", "array:70000"}},
		"IPv6 without brackets":          {optionsWith(map[string]string{optServer: "fd00::5"}), []string{"backstoreServer", "fd00::5", "[fd00::5]:7718"}},
		"an unsupported file system":     {optionsWith(map[string]string{keyFSType: "btrfs"}), []string{keyFSType, "btrfs", "xfs or ext4"}},
		"neither ro nor rw":              {optionsWith(map[string]string{keyReadWrite: "user-wins"}), []string{keyReadWrite, "user-wins", "rw or ro"}},
		"no replica":                     {optionsWith(map[string]string{optReplica: "0"}), []string{"replica", `"0"`, "from 1 to 5"}},
		"too many replicas":              {optionsWith(map[string]string{optReplica: "6"}), []string{"replica", `"6"`, "from 1 to 5"}},
		"a placement mode":               {optionsWith(map[string]string{optPlacementMode: "floppy"}), []string{"placementMode", "floppy", "hybrid or single_flash or all_flash"}},
		"a tenant outside /root":         {optionsWith(map[string]string{optTenant: "/other"}), []string{"tenant", "/other", "/root"}},
		"a source that is no path":       {optionsWith(map[string]string{optSource: "volume-7"}), []string{"volumeSource", "volume-7", "/app_instances/"}},
		"a retain policy":                {optionsWith(map[string]string{optRetainPolicy: "maybe"}), []string{"retainPolicy", "maybe", "retain or never"}},
		"a shell in mount options":       {optionsWith(map[string]string{optMountOptions: "noatime,$(reboot)"}), []string{"mountOptions", "$(reboot)"}},
		"a negative limit":               {optionsWith(map[string]string{optMaxIOPS: "-1"}), []string{"maxIops", "-1"}},
		"a secret without a password":    {optionsWith(map[string]string{keySecret + "username": secretOf("u1")}), []string{"username or no password"}},
		"a secret that is no base64":     {optionsWith(map[string]string{keySecret + "password": "%%%"}), []string{"password", "no base64"}},
		"a secret's server":              {optionsWith(map[string]string{keySecret + "username": secretOf("u"), keySecret + "password": secretOf("p"), keySecret + "server": secretOf("http://x")}), []string{"server of the volume's secret", "http://x"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ParseVolume(test.options, "kubernetes")
			require.Error(t, err, "the options were accepted")
			for _, words := range test.says {
				require.ErrorContains(t, err, words)
			}
			require.Less(t, len(err.Error()), 1000, "the message is too long to read")
		})
	}
}

func TestParseVolumeNamesAllFaultsAtOnce(t *testing.T) {
	_, err := ParseVolume(optionsWith(map[string]string{optSize: "x", optReplica: "9", optServer: "a b"}), "kubernetes")
	for _, field := range []string{"size", "replica", "backstoreServer"} {
		require.ErrorContains(t, err, field)
	}
}

func TestParseVolumeNeverShowsASecret(t *testing.T) {
	canary := secretOf("canary-password")
	tests := map[string]string{
		"beside a fault": optionsWith(map[string]string{optSize: "x", keySecret + "password": canary, keySecret + "username": secretOf("u")}),
		"as a number":    `{"kubernetes.io/secret/password":{"canary-password":1}}`,
		"not base64":     optionsWith(map[string]string{keySecret + "password": "canary-password!"}),
	}
	for name, options := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ParseVolume(options, "kubernetes")
			require.Error(t, err)
			require.NotContains(t, err.Error(), "canary-password")
			require.NotContains(t, err.Error(), canary)
		})
	}
}

func FuzzParseVolume(f *testing.F) {
	f.Add(optionsWith(nil))
	f.Add(optionsWith(map[string]string{optServer: "[fd00::5]:1", optTenant: "x", optSource: "/app_instances/a"}))
	f.Add(`{"size":{"a":[1,2]}}`)
	f.Fuzz(func(t *testing.T, options string) {
		volume, err := ParseVolume(options, "kubernetes")
		if err != nil {
			return
		}
		require.NoError(t, checkVolumeName(volume.Name))
		require.True(t, isEntityName(volume.AppInstance), volume.AppInstance)
		require.NotContains(t, volume.AppInstance, "..")
		for _, word := range append(volume.MountOptions, volume.MkfsOptions...) {
			require.NotContains(t, word, " ")
		}
	})
}
