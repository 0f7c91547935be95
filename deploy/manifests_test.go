// Package deploy holds what puts the driver into a cluster. Its tests read the manifests as kubectl does.
package deploy

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// daemonSets are those of an overlay, by name. A field that Kubernetes does not know is an error.
func daemonSets(t *testing.T, overlay string) map[string]apps.DaemonSet {
	t.Helper()
	return build(t, filesys.MakeFsOnDisk(), filepath.Join("overlays", overlay))
}

// provisioner is the container of the Deployment.
func provisioner(t *testing.T) core.Container {
	t.Helper()
	content, err := os.ReadFile("base/provisioner.yaml")
	require.NoError(t, err)
	document, _, _ := strings.Cut(string(content), "\n---\n")
	var deployment apps.Deployment
	require.NoError(t, yaml.UnmarshalStrict([]byte(document), &deployment))
	return deployment.Spec.Template.Spec.Containers[0]
}

func build(t *testing.T, files filesys.FileSystem, folder string) map[string]apps.DaemonSet {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, folder)
	require.NoError(t, err)
	sets := map[string]apps.DaemonSet{}
	for _, resource := range resources.Resources() {
		if resource.GetKind() != "Namespace" {
			require.Equal(t, "datera-system", resource.GetNamespace()+clusterWide(resource.GetKind()), "%s %s", resource.GetKind(), resource.GetName())
		}
		if resource.GetKind() != "DaemonSet" {
			continue
		}
		document, err := resource.AsYAML()
		require.NoError(t, err)
		var set apps.DaemonSet
		require.NoError(t, yaml.UnmarshalStrict(document, &set))
		sets[set.Name] = set
	}
	require.Len(t, sets, 2)
	return sets
}

// resourcesOf are all of an overlay.
func resourcesOf(t *testing.T, overlay string) []*resource.Resource {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join("overlays", overlay))
	require.NoError(t, err)
	return built.Resources()
}

// parse takes a resource as Kubernetes does.
func parse[T any](t *testing.T, from *resource.Resource) (object T) {
	t.Helper()
	document, err := from.AsYAML()
	require.NoError(t, err)
	require.NoError(t, yaml.UnmarshalStrict(document, &object))
	return object
}

// Installer and provisioner may read which cluster this is, and the installer nothing else.
func TestRightsOfTheServiceAccounts(t *testing.T) {
	identity := rbac.PolicyRule{APIGroups: []string{""}, Resources: []string{"namespaces"}, ResourceNames: []string{"kube-system"}, Verbs: []string{"get"}}
	for _, overlay := range []string{"controller", "kubelet", "none", "uninstall"} {
		t.Run(overlay, func(t *testing.T) {
			roles, rights, accounts := map[string][]rbac.PolicyRule{}, map[string][]rbac.PolicyRule{}, []string{}
			var bindings []rbac.RoleBinding // one for the cluster has the same fields
			for _, each := range resourcesOf(t, overlay) {
				switch kind := each.GetKind(); kind {
				case "ClusterRole":
					roles[kind+each.GetName()] = parse[rbac.ClusterRole](t, each).Rules
				case "Role":
					roles[kind+each.GetName()] = parse[rbac.Role](t, each).Rules
				case "ClusterRoleBinding", "RoleBinding":
					bindings = append(bindings, parse[rbac.RoleBinding](t, each))
				case "ServiceAccount":
					accounts = append(accounts, each.GetName())
				}
			}
			for _, binding := range bindings {
				role := binding.RoleRef.Kind + binding.RoleRef.Name
				require.Contains(t, roles, role)
				for _, subject := range binding.Subjects {
					require.Equal(t, "datera-system", subject.Namespace)
					rights[subject.Name] = append(rights[subject.Name], roles[role]...)
				}
			}
			require.ElementsMatch(t, []string{"datera-iscsi", "datera-provisioner"}, accounts)
			require.Equal(t, []rbac.PolicyRule{identity}, rights["datera-iscsi"])
			require.Contains(t, rights["datera-provisioner"], identity)
		})
	}
}

// changeable is a copy of the manifests that a test may change, as an administrator does.
func changeable(t *testing.T) filesys.FileSystem {
	t.Helper()
	files := filesys.MakeFsInMemory()
	for _, folder := range []string{"base", "components", "overlays"} {
		require.NoError(t, filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return files.WriteFile(path, content)
		}))
	}
	return files
}

func clusterWide(kind string) string {
	if strings.HasPrefix(kind, "Cluster") || kind == "StorageClass" {
		return "datera-system"
	}
	return ""
}

const (
	workers      = "datera-iscsi"
	controlPlane = "datera-iscsi-control-plane"
)

func TestOverlays(t *testing.T) {
	install := func(further ...string) []string {
		return append([]string{"install", "--watch", "--host-root=/host", "--attach=$(ATTACH_MODE)"}, further...)
	}
	check := func(verb string, further ...string) []string {
		return append([]string{"/usr/bin/iscsi", verb, "--check", "--host-root=/host"}, further...)
	}
	uninstall := func(further ...string) []string {
		return append([]string{"uninstall", "--watch", "--host-root=/host"}, further...)
	}
	tests := map[string]struct {
		mode         string
		args, probes map[string][]string
	}{
		"controller": {"controller", map[string][]string{workers: install(), controlPlane: install("--control-plane")},
			map[string][]string{workers: check("install"), controlPlane: check("install", "--control-plane")}},
		"kubelet": {"kubelet", map[string][]string{workers: install(), controlPlane: install("--control-plane")},
			map[string][]string{workers: check("install"), controlPlane: check("install", "--control-plane")}},
		"none": {"none", map[string][]string{workers: install(), controlPlane: install("--control-plane")},
			map[string][]string{workers: check("install"), controlPlane: check("install", "--control-plane")}},
		"uninstall": {"controller", map[string][]string{workers: uninstall(), controlPlane: uninstall("--control-plane")},
			map[string][]string{workers: check("uninstall"), controlPlane: check("uninstall")}},
	}
	for overlay, test := range tests {
		t.Run(overlay, func(t *testing.T) {
			for name, set := range daemonSets(t, overlay) {
				container := set.Spec.Template.Spec.Containers[0]
				require.Equal(t, test.args[name], container.Args, name)
				require.Equal(t, test.probes[name], container.ReadinessProbe.Exec.Command, name)
				requireQuickRollout(t, container)
				require.Equal(t, core.EnvVar{Name: "ATTACH_MODE", Value: test.mode}, container.Env[0], name)
				require.Equal(t, "docker.io/library/datera-flexvolume:dev", container.Image, name)
				requireLeastPrivilege(t, set.Spec.Template.Spec)
				requireToolsVisible(t, container)
			}
		})
	}
}

// requireLeastPrivilege holds a pod to what its comments promise.
func requireLeastPrivilege(t *testing.T, pod core.PodSpec) {
	t.Helper()
	require.Equal(t, "datera-iscsi", pod.ServiceAccountName)
	require.False(t, pod.HostPID || pod.HostIPC)
	require.Equal(t, core.SeccompProfileTypeRuntimeDefault, pod.SecurityContext.SeccompProfile.Type)
	container := pod.Containers[0]
	require.False(t, *container.SecurityContext.Privileged || *container.SecurityContext.AllowPrivilegeEscalation)
	require.True(t, *container.SecurityContext.ReadOnlyRootFilesystem)
	require.Equal(t, core.Capabilities{Drop: []core.Capability{"ALL"}}, *container.SecurityContext.Capabilities)
	require.NotEmpty(t, container.Resources.Limits)
	volumes := map[string]core.Volume{}
	for _, volume := range pod.Volumes {
		volumes[volume.Name] = volume
	}
	for _, mount := range container.VolumeMounts {
		host := volumes[mount.Name].HostPath
		if host == nil {
			continue
		}
		require.Equal(t, "/host"+host.Path, mount.MountPath, "the installer looks for the host's paths below /host")
		require.Equal(t, mount.Name != "plugins", mount.ReadOnly, "%s: only the plug-in folder is written to", mount.Name)
	}
}

// requireToolsVisible wants the folders in which distributions have iscsiadm and mkfs.xfs to be seen by the installer: where
// /sbin is no link to /usr/sbin, one does not do for both.
func requireToolsVisible(t *testing.T, container core.Container) {
	t.Helper()
	var seen []string
	for _, mount := range container.VolumeMounts {
		seen = append(seen, mount.MountPath)
	}
	require.Subset(t, seen, []string{"/host/sbin", "/host/usr/sbin"})
}

// requireQuickRollout wants a pod to be found ready soon after it is: with a delay before its first probe, kubelet waits for a
// whole period.
func requireQuickRollout(t *testing.T, container core.Container) {
	t.Helper()
	require.Zero(t, container.ReadinessProbe.InitialDelaySeconds)
	if startup := container.StartupProbe; startup != nil {
		require.Equal(t, container.ReadinessProbe.Exec, startup.Exec)
		require.LessOrEqual(t, startup.PeriodSeconds, int32(5))
		return
	}
	require.LessOrEqual(t, container.ReadinessProbe.PeriodSeconds, int32(10))
}

// The overlay controller holds a patch for clusters that keep credentials off their workers. Without them a control plane could
// not attach, detach, or cut a dead node off.
func TestCredentialsAreKeptOffTheWorkersAlone(t *testing.T) {
	const path = "overlays/controller/kustomization.yaml"
	files := changeable(t)
	content, err := files.ReadFile(path)
	require.NoError(t, err)
	before, patch, found := strings.Cut(string(content), "# patches:\n")
	require.True(t, found)
	require.NoError(t, files.WriteFile(path, []byte(before+"patches:\n"+strings.ReplaceAll(patch, "#   ", "  "))))
	sets := build(t, files, "overlays/controller")
	require.Contains(t, sets[workers].Spec.Template.Spec.Containers[0].Args, "--credentials=false")
	require.NotContains(t, sets[controlPlane].Spec.Template.Spec.Containers[0].Args, "--credentials=false")
}

// An administrator's overlay names the image, for all pods.
func TestImageOfAnOverlay(t *testing.T) {
	files := changeable(t)
	require.NoError(t, files.WriteFile("kustomization.yaml", []byte("resources: [overlays/uninstall]\n"+
		"images: [{name: docker.io/library/datera-flexvolume, newName: registry.example/datera-flexvolume, newTag: v1}]\n")))
	for name, set := range build(t, files, ".") {
		require.Equal(t, "registry.example/datera-flexvolume:v1", set.Spec.Template.Spec.Containers[0].Image, name)
	}
}

// With the component plugin-dir every overlay works on another folder, and on no second one.
func TestAnotherPluginFolder(t *testing.T) {
	const folder = "/var/lib/kubelet/volumeplugins"
	for _, overlay := range []string{"controller", "kubelet", "none", "uninstall"} {
		t.Run(overlay, func(t *testing.T) {
			files := changeable(t)
			require.NoError(t, files.WriteFile("kustomization.yaml", []byte("resources: [overlays/"+overlay+"]\ncomponents: [components/plugin-dir]\n")))
			usual := daemonSets(t, overlay)
			for name, set := range build(t, files, ".") {
				container := set.Spec.Template.Spec.Containers[0]
				require.Contains(t, container.Env, core.EnvVar{Name: "PLUGIN_DIR", Value: folder}, "read by installer and probes")
				require.Subset(t, container.Env, usual[name].Spec.Template.Spec.Containers[0].Env)
				require.Contains(t, container.VolumeMounts, core.VolumeMount{Name: "plugins", MountPath: "/host" + folder})
				require.Len(t, container.VolumeMounts, len(usual[name].Spec.Template.Spec.Containers[0].VolumeMounts), "the usual folder is mounted, too")
				requireLeastPrivilege(t, set.Spec.Template.Spec)
				requireToolsVisible(t, container)
			}
		})
	}
}

// What installer and provisioner write for themselves has a place in their pods, whatever run_dir the nodes have.
func TestPodsHaveARunDir(t *testing.T) {
	containers := []core.Container{provisioner(t)}
	require.Contains(t, containers[0].Args, "--run-dir=/run/datera-iscsi")
	for _, set := range daemonSets(t, "controller") {
		containers = append(containers, set.Spec.Template.Spec.Containers[0])
	}
	for _, container := range containers {
		require.Contains(t, container.VolumeMounts, core.VolumeMount{Name: "run", MountPath: "/run/datera-iscsi"})
	}
}

// The provisioner answers its probe in clusters of IPv4 and of IPv6.
func TestHealthIsAnsweredOnEveryPodIP(t *testing.T) {
	args := provisioner(t).Args
	at := slices.IndexFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "--health-listen=") })
	require.GreaterOrEqual(t, at, 0)
	for _, address := range []string{"127.0.0.1", "::1"} {
		listen := strings.TrimPrefix(strings.ReplaceAll(args[at], "$(POD_IP)", address), "--health-listen=")
		resolved, err := net.ResolveTCPAddr("tcp", listen)
		require.NoError(t, err)
		require.Equal(t, net.JoinHostPort(address, "8080"), resolved.String())
	}
}

// Every node gets one installer: two would undo each other's work.
func TestNodesHaveOneInstaller(t *testing.T) {
	sets := daemonSets(t, "controller")
	for name, set := range sets {
		for other := range sets {
			matches := labels.SelectorFromSet(set.Spec.Selector.MatchLabels).Matches(labels.Set(sets[other].Spec.Template.Labels))
			require.Equal(t, name == other, matches, "%s selects the pods of %s", name, other)
		}
		require.Equal(t, []core.Toleration{{Operator: core.TolerationOpExists}}, set.Spec.Template.Spec.Tolerations)
		require.Zero(t, set.Spec.UpdateStrategy.RollingUpdate.MaxSurge.IntValue(), "an old pod would put its version back")
	}
	const role, exclude = "node-role.kubernetes.io/control-plane", "datera.io/exclude"
	for name, operator := range map[string]core.NodeSelectorOperator{workers: core.NodeSelectorOpDoesNotExist, controlPlane: core.NodeSelectorOpExists} {
		terms := sets[name].Spec.Template.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
		require.Equal(t, []core.NodeSelectorTerm{{MatchExpressions: []core.NodeSelectorRequirement{
			{Key: role, Operator: operator}, {Key: exclude, Operator: core.NodeSelectorOpDoesNotExist},
		}}}, terms, name)
	}
}
