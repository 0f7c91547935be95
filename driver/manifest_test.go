package driver

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const seedPV = `
apiVersion: v1
kind: PersistentVolume
metadata:
  name: pv-datera-0
spec:
  capacity: {storage: 100Gi}
  accessModes: [ReadWriteOnce]
  claimRef: {name: data-web-0, namespace: shop}
  flexVolume:
    driver: datera/iscsi
    fsType: xfs
    readOnly: true   # Kubernetes passes only what the pod's claim says
    options:
      volumeID: kube-pv-datera-0
      size: "100"
      replica: "3"
      backstoreServer: tlx170.tlx.daterainc.com:7717
`

// The pod and the secret of the recorded calls.
const (
	seedPod = `
kind: Pod
metadata: {name: web-1, namespace: shop, uid: 7c88cd3b-628e-11e6-8463-0cc47ab41442}
spec:
  serviceAccountName: web
  securityContext: {fsGroup: 1234}
  volumes:
  - name: data
    persistentVolumeClaim: {claimName: data-web-0}
`
	seedSecret = `
kind: Secret
type: datera/iscsi
metadata: {name: array, namespace: shop}
stringData: {username: admin}
data: {password: cGFzc3dvcmQ=}
`
)

// ofManifest is the request of a manifest that a person gives.
func ofManifest(t *testing.T, source VolumeSource, documents ...string) (Request, error) {
	t.Helper()
	source.Files, source.Stdin = []string{"-"}, strings.NewReader(strings.Join(documents, "\n---\n"))
	return source.Request()
}

// recorded are the calls that Kubernetes' own code made (testdata/kubelet), by verb.
func recorded(t *testing.T, file string) map[string][][]string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("../testdata/kubelet/testdata", file))
	require.NoError(t, err)
	calls := map[string][][]string{}
	for _, call := range regexp.MustCompile(`(?m)^iscsi \w+\n(?:\t.*\n)*`).FindAllString(string(content), -1) {
		words := strings.Split(strings.TrimSuffix(call, "\n"), "\n\t")
		verb := strings.TrimPrefix(words[0], "iscsi ")
		calls[verb] = append(calls[verb], append([]string{verb}, words[1:]...))
	}
	require.NotEmpty(t, calls, file)
	return calls
}

// like makes the words of a recorded call from a manifest.
func like(t *testing.T, request Request, call []string) []string {
	t.Helper()
	verb := Verbs()[findVerb(call[0])]
	var words []string
	for i, arg := range verb.Args {
		if arg != argOptions && arg != argVolume {
			words = append(words, call[i+1])
		}
	}
	made, err := request.Call(verb, words)
	require.NoError(t, err)
	return made
}

func TestAManifestMakesTheCallsThatKubernetesMakes(t *testing.T) {
	withSecret := strings.Replace(seedPV, "    fsType", "    secretRef: {name: array, namespace: shop}\n    fsType", 1)
	small := strings.NewReplacer(`size: "100"`, `size: "1"`, `replica: "3"`, `replica: "1"`)
	tests := map[string]struct {
		file      string
		documents []string
		source    VolumeSource
		verbs     []string
		number    int
	}{
		"control plane": {"control.txt", []string{seedPV}, VolumeSource{}, []string{"attach", "isattached", "expandvolume", "detach"}, 0},
		"node":          {"node.txt", []string{strings.Replace(small.Replace(seedPV), "kube-pv-datera-0", "$VOLUME", 1), seedPod}, VolumeSource{}, []string{"waitforattach", "mountdevice", "expandfs"}, 0},
		"a pod with fsGroup": {"node.txt", []string{strings.Replace(small.Replace(seedPV), "kube-pv-datera-0", "$VOLUME", 1), seedPod},
			VolumeSource{}, []string{"mount"}, 1},
		"a secret":           {"node-none.txt", []string{strings.Replace(small.Replace(withSecret), "kube-pv-datera-0", "kube-NodeAttachesByItself", 1), seedPod, seedSecret}, VolumeSource{}, []string{"mount"}, 1},
		"a read-only claim":  {"readonly.txt", []string{seedPV}, VolumeSource{ReadOnly: true}, []string{"attach"}, 0},
		"a read-only volume": {"readonly.txt", []string{seedPV}, VolumeSource{}, []string{"attach"}, 1},
		"the pod's claim is read-only": {"readonly.txt", []string{seedPV, strings.Replace(seedPod, "data-web-0", "data-web-0, readOnly: true", 1)},
			VolumeSource{}, []string{"attach"}, 0},
		"in-line": {"inline.txt", []string{`{"kind":"Pod","metadata":{"name":"web-0"},"spec":{"volumes":[{"name":"other","emptyDir":{}},
			{"name":"data","flexVolume":{"driver":"datera/iscsi","fsType":"xfs","options":{"size":"1","volumeID":"kube-data"}}}]}}`},
			VolumeSource{}, []string{"attach", "isattached", "detach"}, 0},
		"a list": {"control.txt", []string{"kind: List\nitems:\n- kind: PersistentVolume\n  metadata: {name: pv-other}\n  spec: {flexVolume: {driver: datera/iscsi}}\n-" +
			strings.ReplaceAll(seedPV, "\n", "\n  ")[2:]}, VolumeSource{Name: "pv-datera-0"}, []string{"attach"}, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			request, err := ofManifest(t, test.source, test.documents...)
			require.NoError(t, err)
			calls := recorded(t, test.file)
			for _, verb := range test.verbs {
				call := calls[verb][test.number]
				require.Equal(t, call, like(t, request, call))
			}
		})
	}
}

// A person's calls that change the volume on its array get the secret, too: it says which array that is.
func TestSecretsGoToMountAlone(t *testing.T) {
	withSecret := strings.Replace(seedPV, "    fsType", "    secretRef: {name: array, namespace: shop}\n    fsType", 1)
	request, err := ofManifest(t, VolumeSource{}, withSecret, seedSecret)
	require.NoError(t, err)
	require.NotContains(t, request.Options(), keySecret)
	options, err := request.MountOptions(podPath)
	require.NoError(t, err)
	require.Contains(t, options, `"kubernetes.io/secret/password":"cGFzc3dvcmQ="`)
	for _, verb := range Verbs() {
		call, err := request.Call(verb, append([]string{podPath}, verb.WordsWithout()...)[:len(verb.WordsWithout())])
		require.NoError(t, err)
		asked := verb.Name == "mount" || verb.growsVolume
		require.Equal(t, asked, strings.Contains(strings.Join(call, " "), keySecret), "%s with a person's manifest", verb.Name)
	}

	tests := map[string]struct{ secret, says string }{
		"none":               {"", "give that Secret, too"},
		"of another name":    {strings.Replace(seedSecret, "array", "other", 1), "give that Secret, too"},
		"of another space":   {strings.Replace(seedSecret, "shop", "default", 1), "give that Secret, too"},
		"of a type not ours": {strings.Replace(seedSecret, "datera/iscsi", "Opaque", 1), "only those of type datera/iscsi"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			request, err := ofManifest(t, VolumeSource{}, withSecret, test.secret)
			require.NoError(t, err)
			_, err = request.MountOptions(podPath)
			require.ErrorContains(t, err, test.says)
			require.NotContains(t, err.Error(), "cGFzc3dvcmQ")
			_, err = request.OptionsWithSecret()
			require.ErrorContains(t, err, test.says)
			_, err = request.Call(Verbs()[findVerb("expandfs")], []string{"/dev/sdb", podPath, "2", "1"})
			require.ErrorContains(t, err, test.says, "a volume of this name on another array would grow")
		})
	}
}

func TestManifestsThatAreRefused(t *testing.T) {
	other := strings.Replace(seedPV, "datera/iscsi", "other/driver", 1)
	tests := map[string]struct {
		manifest, name, says string
	}{
		"nothing":                 {"", "", "it holds no volume: needed is a PersistentVolume"},
		"no YAML":                 {"a: [", "", "neither YAML nor JSON"},
		"no object":               {"- a\n- b", "", "no object of Kubernetes"},
		"another driver's":        {other, "", `pv-datera-0 with driver "other/driver"`},
		"no such volume":          {seedPV, "pv-1", "it holds no volume pv-1"},
		"several":                 {seedPV + "\n---\n" + strings.Replace(seedPV, "pv-datera-0", "pv-1", 1), "", "pv-datera-0, pv-1: choose one with --name"},
		"two of one name":         {seedPV + "\n---\n" + seedPV, "pv-datera-0", "2 volumes of the name pv-datera-0"},
		"a number as an option":   {strings.Replace(seedPV, `"100"`, "100", 1), "", `option "size" of volume pv-datera-0 is 100: Kubernetes accepts strings only`},
		"a key of Kubernetes":     {strings.Replace(seedPV, "replica:", "kubernetes.io/readwrite:", 1), "", "Kubernetes' own"},
		"a name that is none":     {strings.Replace(seedPV, "name: pv-datera-0", "name: ../PV", 1), "", "volume name"},
		"data that are no base64": {seedPV + "\n---\n" + strings.Replace(seedSecret, "cGFzc3dvcmQ=", "canary", 1), "", "no strings in base64"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ofManifest(t, VolumeSource{Name: test.name}, test.manifest)
			require.ErrorContains(t, err, test.says)
			require.NotContains(t, err.Error(), "canary")
		})
	}
	_, err := VolumeSource{Files: []string{"/no/such/pv.yaml"}}.Request()
	require.ErrorContains(t, err, "/no/such/pv.yaml")
}

func TestWhoseCallItIs(t *testing.T) {
	json := `{"kubernetes.io/pvOrVolumeName":"pv-1"}`
	tests := map[string]struct {
		args    []string
		kubelet bool
	}{
		"init":                         {[]string{"init"}, true},
		"attach":                       {[]string{"attach", json, "node-1"}, true},
		"an unknown flag":              {[]string{"attach", "--foo", "node-1"}, true},
		"too few words":                {[]string{"attach", json}, true},
		"a device like a flag":         {[]string{"waitforattach", "--pv=/etc/shadow", json}, true},
		"a device like a flag's name":  {[]string{"waitforattach", "--explain", json}, true},
		"no verb":                      {[]string{"status"}, false},
		"--pv":                         {[]string{"attach", "--pv", "pv.yaml", "node-1"}, false},
		"--pv=, of the same length":    {[]string{"attach", "--pv=pv.yaml", "node-1"}, false},
		"--pv at the end":              {[]string{"attach", "node-1", "--pv=pv.yaml"}, false},
		"--explain with options":       {[]string{"attach", "--explain", json, "node-1"}, false},
		"--explain of a directory":     {[]string{"unmount", "/x", "--explain"}, false},
		"--help":                       {[]string{"unmount", "--help"}, false},
		"a device, and --pv beside it": {[]string{"waitforattach", "iscsi://x", "--pv", "pv.yaml"}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.kubelet, IsKubelets(test.args)) })
	}
}

func TestRequestIsReadyForAShell(t *testing.T) {
	quote := strings.Replace(seedPV, `replica: "3"`, `mkfsOptions: "it's $HOME & \"all\""`, 1)
	request, err := ofManifest(t, VolumeSource{}, quote)
	require.NoError(t, err)
	var printed strings.Builder
	require.NoError(t, request.WriteCalls(&printed, Environment{Node: "node-1", Root: kubeletRoot}, ""))
	for _, verb := range Verbs() {
		require.Contains(t, printed.String(), "\niscsi "+verb.Name)
	}
	require.Contains(t, printed.String(), "# no controller of today: grow the volume on the array\n")
	// A shell hands the words over as the driver wants them.
	shell := exec.Command("sh", "-c", `iscsi() { printf '%s\0' "$@"; }; DEVICE=d; DISK=k; POD_UID=u; BYTES=2; OLD_BYTES=1`+"\n"+printed.String())
	output, err := shell.CombinedOutput()
	require.NoError(t, err, string(output))
	options := request.Options()
	pod := kubeletRoot + "/pods/u/volumes/datera~iscsi/pv-datera-0"
	want := slices.Concat([]string{"init"}, []string{"attach", options, "node-1"}, []string{"isattached", options, "node-1"},
		[]string{"waitforattach", "d", options}, []string{"mountdevice", globalPath, "k", options}, []string{"mount", pod, options},
		[]string{"expandvolume", options, globalPath, "2", "1"}, []string{"expandfs", options, "k", globalPath, "2", "1"},
		[]string{"unmount", pod}, []string{"unmountdevice", globalPath}, []string{"detach", "pv-datera-0", "node-1"})
	require.Equal(t, want, strings.Split(strings.TrimSuffix(string(output), "\x00"), "\x00"))

	printed.Reset()
	require.NoError(t, request.WriteCalls(&printed, Environment{}, "detach"))
	require.Equal(t, "iscsi detach pv-datera-0 \"$NODE\"\n", printed.String())
	require.ErrorContains(t, request.WriteCalls(&printed, Environment{}, "frobnicate"), "no verb")
}

func FuzzManifest(f *testing.F) {
	f.Add(seedPV)
	f.Add(seedPV + "\n---\n" + seedPod + "\n--- # comment\n" + seedSecret)
	f.Add(`{"kind":"List","items":[{"kind":"PersistentVolume"},null]}`)
	f.Fuzz(func(t *testing.T, content string) {
		request, err := ofManifest(t, VolumeSource{}, content)
		if err != nil {
			return
		}
		// What a manifest asks for is what the driver's own parser reads.
		options, err := parseOptions(request.Options())
		if err == nil {
			require.Equal(t, request.Name, options[keyName])
		}
	})
}
