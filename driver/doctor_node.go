package driver

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Tool is an external program that the driver starts.
type Tool struct {
	Name    string
	Package string // that brings it
	Only    string // what it is needed for, where volumes work without it

	version []string // arguments that make it tell its version
}

// Tools are those that every node needs.
func Tools() []Tool {
	return []Tool{
		{Name: "iscsiadm", Package: "open-iscsi (iscsi-initiator-utils)"}, // its version has a check of its own
		{Name: "mount", Package: "util-linux", version: []string{"--version"}},
		{Name: "umount", Package: "util-linux"},
		{Name: "mkfs.xfs", Package: "xfsprogs", version: []string{"-V"}},
		{Name: "xfs_growfs", Package: "xfsprogs"},
		{Name: "mkfs.ext4", Package: "e2fsprogs", Only: "ext4", version: []string{"-V"}},
		{Name: "resize2fs", Package: "e2fsprogs", Only: "ext4"},
	}
}

var versionNumber = pattern(`[0-9]+(\.[0-9]+)+`)

// programs looks for the tools, and asks those whose version tells what the others are.
func (e *examination) programs(ctx context.Context) []Finding {
	needed := Tools()
	if m, err := e.Node.Multipath(diskVendor, diskProduct); err == nil && m.Runs {
		needed = append(needed, Tool{Name: "multipath", Package: "multipath-tools (device-mapper-multipath)"})
	}
	var found []Finding
	var versions []string
	for _, tool := range needed {
		if _, err := e.Host.lookPath(tool.Name); err != nil {
			missing := problem("install "+tool.Package, "%s is not there", tool.Name)
			if tool.Only != "" {
				missing = warning("install "+tool.Package, "%s is not there, without which there is no %s", tool.Name, tool.Only)
			}
			found = append(found, missing)
			continue
		}
		if len(tool.version) == 0 {
			continue
		}
		output, err := e.Programs.Run(ctx, tool.Name, tool.version...)
		if err != nil {
			found = append(found, problem("install "+tool.Package+" anew", "%v", err))
			continue
		}
		versions = append(versions, tool.Name+" "+versionIn(output))
	}
	if len(found) > 0 {
		return found
	}
	return fine("all there: %s", strings.Join(versions, ", "))
}

func versionIn(output []byte) string {
	if version := versionNumber().Find(output); version != nil {
		return string(version)
	}
	return "of unknown version"
}

func (e *examination) modules(context.Context) []Finding {
	needed := []struct{ name, only string }{{"iscsi_tcp", ""}, {"xfs", ""}, {"ext4", "ext4"}}
	if m, err := e.Node.Multipath(diskVendor, diskProduct); err == nil && m.Runs {
		needed = append(needed, struct{ name, only string }{"dm_multipath", ""})
	}
	var found []Finding
	var states []string
	for _, module := range needed {
		state := e.Host.module(module.name)
		states = append(states, module.name+" "+state)
		remedy := "install the rest of the kernel's modules (linux-modules-extra, kernel-modules), then `modprobe " + module.name + "`"
		switch {
		case state != moduleMissing:
		case module.only != "":
			found = append(found, warning(remedy, "the kernel has no %s, without which there is no %s", module.name, module.only))
		default:
			found = append(found, problem(remedy, "the kernel has no %s", module.name))
		}
	}
	if len(found) > 0 {
		return found
	}
	return fine("%s", strings.Join(states, ", "))
}

// driverFolder is where kubelet looks for this driver.
func (e *examination) driverFolder(context.Context) []Finding {
	kubelet := e.Host.kubelet()
	folder := filepath.Join(kubelet.plugins, FolderName)
	binary := filepath.Join(folder, "iscsi")
	var found []Finding
	info, err := os.Stat(binary)
	switch {
	case err != nil:
		found = append(found, problem("`iscsi install`", "kubelet looks for the driver at %s: %v", binary, err))
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		found = append(found, problem("chmod 0755 "+binary, "kubelet cannot run %s, which has mode %s", binary, info.Mode()))
	}
	if mounted, err := e.Mounts.Holding(folder); err != nil {
		found = append(found, warning("", "%v", err))
	} else {
		if slices.Contains(mounted.Options, "noexec") {
			found = append(found, problem("mount -o remount,exec "+mounted.Path+", or give kubelet another folder (volumePluginDir)",
				"%s lies on %s, which is mounted noexec: kubelet cannot run the driver", folder, mounted.Path))
		}
		if mounted.ReadOnly {
			found = append(found, warning("give kubelet another folder (volumePluginDir)",
				"%s lies on %s, which is mounted read-only: the driver cannot be replaced there", folder, mounted.Path))
		}
	}
	entries, _ := os.ReadDir(folder)
	for _, entry := range entries {
		if name := entry.Name(); name != "iscsi" && !strings.HasPrefix(name, ".") {
			found = append(found, warning("move it elsewhere", "%s: kubelet probes the driver anew at each change of such a file", filepath.Join(folder, name)))
		}
	}
	if len(found) > 0 {
		return found
	}
	return fine("%s%s", binary, onlyIf(!kubelet.runs, " (no kubelet was seen; that is where it looks by default)"))
}

// stateFolders are those that the driver writes to.
func (e *examination) stateFolders(context.Context) []Finding {
	folders := []string{e.Config.StateDir, e.Config.RunDir}
	if e.Config.Log.Path != "" {
		folders = append(folders, filepath.Dir(e.Config.Log.Path))
	}
	var found []Finding
	for _, folder := range folders {
		mounted, err := e.Mounts.Holding(folder)
		switch info, statErr := os.Stat(folder); {
		case err != nil:
			found = append(found, problem("", "%v", err))
		case mounted.ReadOnly:
			found = append(found, problem("make it writable, or name another folder in the configuration", "%s lies on %s, which is mounted read-only", folder, mounted.Path))
		case statErr == nil && !info.IsDir():
			found = append(found, problem("rm "+folder, "%s is no folder", folder))
		case statErr == nil && info.Mode().Perm()&0o022 != 0:
			found = append(found, problem("chmod go-w "+folder,
				"%s has mode %04o: others than its owner can write there, and so make the driver act on disks of their choice", folder, info.Mode().Perm()))
		}
	}
	if len(found) > 0 {
		return found
	}
	return fine("%s", strings.Join(folders, ", "))
}

// volumes tells what is wrong with those that are here; leftovers have a check of their own.
func (e *examination) volumes(ctx context.Context) []Finding {
	volumes, err := e.Status(ctx)
	if err != nil {
		return []Finding{problem("", "%v", err)}
	}
	var found []Finding
	for _, volume := range volumes {
		for _, words := range volume.Health {
			if !strings.HasPrefix(words, healthy) && !strings.HasPrefix(words, leftover) {
				found = append(found, problem("`iscsi status`", "%s: %s", cmp.Or(volume.PV, volume.IQN), words))
			}
		}
	}
	if len(found) > 0 {
		return found
	}
	return fine("%d here, all well", len(volumes))
}

// directories looks for data that was written beside a volume instead of on it.
func (e *examination) directories(context.Context) []Finding {
	s, err := e.look()
	if err != nil {
		return []Finding{problem("", "%v", err)}
	}
	var found []Finding
	for _, f := range e.unmounted(s) {
		if len(f.content) > 0 {
			found = append(found, problem("save what is in it and empty it: no volume can be mounted there",
				"%s holds %s, and nothing is mounted there: that was written to the node's own disk", f.path, strings.Join(f.content, ", ")))
		}
	}
	if len(found) > 0 {
		return found
	}
	return fine("none where a volume should be mounted holds anything else")
}

func (e *examination) leftovers(ctx context.Context) []Finding {
	left, err := e.Leftovers(ctx, DefaultAge)
	if err != nil {
		return []Finding{problem("", "%v", err)}
	}
	var what []string
	for _, l := range left {
		if l.Keep == "" && l.Kind != kindLock {
			what = append(what, l.Kind+" "+l.What)
		}
	}
	if len(what) == 0 {
		return fine("none")
	}
	return []Finding{warning("`iscsi reap` tells why, `iscsi reap --yes` removes them", "%d: %s", len(what), strings.Join(what, "; "))}
}
