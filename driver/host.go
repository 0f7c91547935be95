package driver

import (
	"bytes"
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Host is what can be known of this machine beside its disks, from files alone. The zero value is right for a usual
// Linux system.
type Host struct {
	ProcRoot    string                               // "" is /proc
	SysRoot     string                               // "" is /sys
	ModulesRoot string                               // "" is /lib/modules
	LookPath    func(program string) (string, error) // nil is exec.LookPath
}

func (h Host) lookPath(program string) (string, error) {
	if h.LookPath == nil {
		return exec.LookPath(program)
	}
	return h.LookPath(program)
}

// DefaultPluginDir is where kubelet looks for drivers unless it is told otherwise.
const DefaultPluginDir = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec"

const kubeletRootDefault = "/var/lib/kubelet"

// kubeletPlaces is where the kubelet of this node keeps volumes and looks for drivers.
type kubeletPlaces struct {
	runs    bool
	root    string
	plugins string
}

// kubelet reads what a running kubelet was told. Without one the defaults are taken.
func (h Host) kubelet() kubeletPlaces {
	var found kubeletPlaces
	if args, process, runs := h.kubeletProcess(); runs {
		config := kubeletConfig(filepath.Join(process, "root"), flagOf(args, "config"))
		found = kubeletPlaces{runs: true, root: flagOf(args, "root-dir"), plugins: cmp.Or(flagOf(args, "volume-plugin-dir"), config)}
	}
	found.root = cmp.Or(found.root, kubeletRootDefault)
	found.plugins = cmp.Or(found.plugins, DefaultPluginDir)
	return found
}

// KubeletArgs is the command line of the kubelet that runs here; nil without one.
func (h Host) KubeletArgs() []string {
	args, _, _ := h.kubeletProcess()
	return args
}

func (h Host) kubeletProcess() (args []string, folder string, runs bool) {
	processes, _ := filepath.Glob(filepath.Join(cmp.Or(h.ProcRoot, "/proc"), "[0-9]*"))
	for _, process := range processes {
		name, _ := os.ReadFile(filepath.Join(process, "comm"))
		if string(bytes.TrimSpace(name)) != "kubelet" {
			continue
		}
		if line, err := os.ReadFile(filepath.Join(process, "cmdline")); err == nil {
			return strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00"), process, true
		}
	}
	return nil, "", false
}

// kubeletConfig is the volumePluginDir of a KubeletConfiguration; "" when it has none or cannot be read.
func kubeletConfig(root, path string) string {
	if path == "" {
		return ""
	}
	document, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return ""
	}
	var config struct {
		VolumePluginDir string `json:"volumePluginDir"`
	}
	_ = yaml.Unmarshal(document, &config) // what is wrong with it is kubelet's to say
	return config.VolumePluginDir
}

// flagOf is the value of a flag, written --flag=value or --flag value.
func flagOf(args []string, name string) string {
	for i, arg := range args {
		if value, found := strings.CutPrefix(arg, "--"+name+"="); found {
			return value
		}
		if arg == "--"+name && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

// roots are kubelet's root directories by their real paths: its own, and those that mounts of this driver tell.
func (o *Operator) roots(s scene) []string {
	var roots []string
	add := func(root string) {
		if real, err := filepath.EvalSymlinks(root); err == nil && !slices.Contains(roots, real) {
			roots = append(roots, real)
		}
	}
	add(o.Host.kubelet().root)
	for _, mounted := range s.mounts {
		if pod, err := parsePodPath(mounted.Path); err == nil {
			add(pod.root)
		} else if root, found := strings.CutSuffix(filepath.Dir(mounted.Path), "/"+globalMounts); found {
			add(root)
		}
	}
	return roots
}

// A kernel module is loaded or built in, can be loaded, or is not there.
const (
	moduleLoaded   = "loaded"
	moduleLoadable = "loadable"
	moduleMissing  = "missing"
)

// module tells how it is about a kernel module, or a file system that may be one.
func (h Host) module(name string) string {
	proc := cmp.Or(h.ProcRoot, "/proc")
	filesystems, _ := os.ReadFile(filepath.Join(proc, "filesystems"))
	if slices.Contains(strings.Fields(string(filesystems)), name) {
		return moduleLoaded
	}
	if _, err := os.Stat(filepath.Join(cmp.Or(h.SysRoot, "/sys"), "module", name)); err == nil {
		return moduleLoaded
	}
	release, _ := os.ReadFile(filepath.Join(proc, "sys/kernel/osrelease"))
	folder := filepath.Join(cmp.Or(h.ModulesRoot, "/lib/modules"), string(bytes.TrimSpace(release)))
	for _, kind := range []struct{ file, state string }{{"modules.builtin", moduleLoaded}, {"modules.dep", moduleLoadable}} {
		list, _ := os.ReadFile(filepath.Join(folder, kind.file))
		for line := range strings.Lines(string(list)) {
			path, _, _ := strings.Cut(strings.TrimSpace(line), ":")
			base, _, _ := strings.Cut(filepath.Base(path), ".ko")
			if strings.ReplaceAll(base, "-", "_") == name {
				return kind.state
			}
		}
	}
	return moduleMissing
}

// ISCSISessions is the number of sessions that the kernel has, with whatever target.
func (h Host) ISCSISessions() int {
	sessions, _ := os.ReadDir(filepath.Join(cmp.Or(h.SysRoot, "/sys"), "class/iscsi_session"))
	return len(sessions)
}
