package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"datera-flexvolume/datera"
	"datera-flexvolume/driver"
)

// Uninstall takes the driver off the host and its initiator off the array, unless a volume is on the host. With an
// interval it tries until it succeeds, and then sees to it that nothing comes back, until ctx is done.
func (i *Installer) Uninstall(ctx context.Context, interval time.Duration) error {
	if interval > 0 {
		return i.keepTrying(ctx, interval, i.uninstallOnce)
	}
	success, failures := i.uninstallOnce(ctx)
	if len(failures) > 0 {
		return failures[0].err
	}
	i.report(StepReady, success, false)
	return nil
}

// Gone tells whether Uninstall has done its work.
func (i *Installer) Gone() error {
	if _, err := os.Lstat(i.folder().path); !errors.Is(err, fs.ErrNotExist) {
		return cmp.Or(err, fmt.Errorf("%s is still there", i.named("")))
	}
	return nil
}

// uninstallOnce makes one attempt. The executable goes first, under another name, so that kubelet begins nothing new.
// It comes back if a volume came at the last moment, or the array has one attached: kubelet needs it to detach that.
func (i *Installer) uninstallOnce(ctx context.Context) (success string, failures []failure) {
	failed := func(step Step, err error) (string, []failure) { return "", []failure{{step, err}} }
	config, err := i.inForce()
	if errors.Is(err, fs.ErrNotExist) {
		if source, sourceErr := i.configuration(); sourceErr == nil {
			config, err = source, nil
		}
	}
	success = "the driver is off node " + i.nodeName(config)
	if !i.anythingInstalled() {
		if _, err := i.removeFolder(); err != nil {
			return failed(StepDriver, err)
		}
		return success, nil
	}
	if err != nil && !i.KeepRegistration {
		return failed(StepConfiguration, fmt.Errorf("%w (--keep-registration does without the array)", err))
	}
	use := func() error { return errors.Join(i.refuseInUse(ctx, config), i.refuseAttached(ctx, config)) }
	if err := use(); err != nil {
		return failed(StepUse, errors.Join(err, i.bringBack()))
	}
	if err := i.hide(); err != nil {
		return failed(StepDriver, err)
	}
	if err := use(); err != nil {
		return failed(StepUse, errors.Join(err, i.bringBack()))
	}
	message, changed, err := i.unregister(ctx, config)
	if err != nil {
		return failed(StepArray, errors.Join(err, i.bringBack()))
	}
	i.report(StepArray, message, changed)
	if changed, err = i.removeFolder(); err != nil {
		return failed(StepDriver, err)
	}
	i.report(StepDriver, i.named("")+" is gone", changed)
	return success, nil
}

// anythingInstalled tells whether there is anything that an installation ends with, or Uninstall begins with.
func (i *Installer) anythingInstalled() bool {
	for _, name := range []string{binaryName, leavingName, configName} {
		if _, err := os.Lstat(i.folder().file(name)); err == nil {
			return true
		}
	}
	return false
}

// refuseInUse names the volumes that are on the host.
func (i *Installer) refuseInUse(ctx context.Context, config driver.Config) error {
	volumes, err := i.Volumes(ctx, i.onHost(config.StateDir))
	if err != nil || len(volumes) == 0 {
		return err
	}
	var names []string
	for _, volume := range volumes {
		name := cmp.Or(volume.PV, volume.Volume, volume.IQN)
		if len(volume.Mounts) > 0 {
			var paths []string
			for _, mounted := range volume.Mounts {
				paths = append(paths, mounted.Path)
			}
			name += " (mounted at " + strings.Join(paths, " and ") + ")"
		}
		names = append(names, name)
	}
	return fmt.Errorf("volumes are on this node: %s. Delete the pods that use them; `iscsi reap` finishes what a crash left behind", strings.Join(names, ", "))
}

// refuseAttached names the volumes that are attached to any node of the cluster, where this host's kube-controller-manager is
// to detach them.
func (i *Installer) refuseAttached(ctx context.Context, config driver.Config) error {
	if !i.ControlPlane || config.Attach != driver.AttachController || i.KeepRegistration {
		return nil
	}
	attached, err := i.groupsWith(ctx, config, func(string) bool { return true }, isOfCluster(config.Cluster))
	if err != nil {
		return fmt.Errorf("look for volumes that kube-controller-manager has to detach: %w (--keep-registration does without the array)", err)
	}
	if len(attached) == 0 {
		return nil
	}
	return fmt.Errorf("volumes of cluster %s are attached, and kube-controller-manager needs the driver to detach them: %s. Delete the pods that use them; "+
		"`iscsi detach VOLUME NODE` takes a node away that Kubernetes has forgotten; --keep-registration does not ask the array", config.Cluster, strings.Join(attached, ", "))
}

// hide takes the executable from kubelet. A link to it stays until everything is done.
func (i *Installer) hide() error {
	f := i.folder()
	if _, err := os.Lstat(f.file(binaryName)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := f.removeAll(f.file(leavingName)); err != nil {
		return err
	}
	// kubelet forgets a driver whose executable is removed, but not one that is renamed.
	if err := f.Link(f.file(binaryName), f.file(leavingName)); err != nil {
		return err
	}
	return f.Remove(f.file(binaryName))
}

// bringBack undoes hide.
func (i *Installer) bringBack() error {
	f := i.folder()
	if _, err := os.Lstat(f.file(binaryName)); err == nil {
		return nil
	}
	err := f.Rename(f.file(leavingName), f.file(binaryName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (i *Installer) unregister(ctx context.Context, config driver.Config) (message string, changed bool, err error) {
	if i.KeepRegistration {
		return "the registration of the node stays", false, nil
	}
	if registersByItself(config) {
		return "the configuration has no user of the array: the registration of the node stays", false, nil
	}
	array, err := i.OpenArray(config)
	if err != nil {
		return "", false, err
	}
	name := driver.InitiatorName(config.Cluster, config.Node)
	gone := fmt.Sprintf("%s has no initiator %s any more", array.Server(), name)
	found, err := array.InitiatorByName(ctx, name)
	if errors.Is(err, datera.ErrNotFound) {
		return gone, false, nil
	}
	if err == nil && !i.isOwn(found.ID) {
		return fmt.Sprintf("%s has %s with initiator %s, which is not known to be this host's: it stays", array.Server(), name, found.ID), false, nil
	}
	if err == nil {
		err = array.DeleteInitiator(ctx, found.ID)
	}
	if err != nil {
		return "", false, fmt.Errorf("remove node %s from %s: %w. Volumes that are attached to the node must be detached first; --keep-registration leaves the array alone",
			config.Node, array.Server(), err)
	}
	return gone, true, nil
}

func (i *Installer) isOwn(iqn string) bool {
	name, err := i.Initiator.Name()
	return err == nil && name == iqn || slices.Contains(i.ownInitiators(), iqn)
}

func (i *Installer) removeFolder() (changed bool, err error) {
	f := i.folder()
	if _, err := os.Lstat(f.path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	ours := append(f.leftovers(""), f.file(authorityName), f.file(initiatorsName), f.file(leavingName), f.file(configName))
	if err := f.removeAll(ours...); err != nil {
		return false, err
	}
	return true, f.Remove(f.path)
}
