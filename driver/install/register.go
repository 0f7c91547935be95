package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"datera-flexvolume/datera"
	"datera-flexvolume/driver"
)

// register makes the array know this node by its name: one request when it does.
func (i *Installer) register(ctx context.Context, config driver.Config) (message string, changed bool, err error) {
	if registersByItself(config) {
		return "the configuration has no user of the array: mount registers this node as the one of the volume's secretRef", false, nil
	}
	iqn, err := i.Initiator.Name()
	if err != nil {
		return "", false, err
	}
	array, err := i.OpenArray(config)
	if err != nil {
		return "", false, err
	}
	name := driver.InitiatorName(config.Cluster, config.Node)
	there := fmt.Sprintf("%s has node %s with initiator %s as %s", array.Server(), config.Node, iqn, name)
	found, err := array.InitiatorByName(ctx, name)
	switch {
	case err == nil && found.ID == iqn:
		i.registered = iqn
		return there, false, nil
	case err == nil:
		if err := i.dropFormer(ctx, config, array, found.ID); err != nil {
			return "", false, err
		}
		there += "; its initiator was " + found.ID
	case !errors.Is(err, datera.ErrNotFound):
		return "", false, fmt.Errorf("look up node %s on %s: %w", config.Node, array.Server(), err)
	case i.registered == iqn:
		there += "; the array had lost it"
	}
	if _, err := array.RegisterInitiator(ctx, iqn, name); err != nil {
		return "", false, fmt.Errorf("register node %s on %s: %w", config.Node, array.Server(), err)
	}
	i.registered = iqn
	return there, true, nil
}

// dropFormer removes the registration of the name that this node's initiator had before. The array refuses while a
// volume is attached to it.
func (i *Installer) dropFormer(ctx context.Context, config driver.Config, array Array, former string) error {
	err := i.refuseInUse(ctx, config)
	if err == nil {
		err = array.DeleteInitiator(ctx, former)
	}
	if err != nil {
		return fmt.Errorf("this node's initiator has a new name, and %s still knows the node by %s: %w; drain the node, so that its volumes are detached, "+
			"or write the old name back to %s and restart iscsid", array.Server(), former, err, initiatorFile)
	}
	return nil
}

// greet makes sure that the array takes the configuration's user.
func (i *Installer) greet(ctx context.Context, config driver.Config) (message string, changed bool, err error) {
	if registersByItself(config) {
		return "the configuration has no user of the array", false, nil
	}
	array, err := i.OpenArray(config)
	if err != nil {
		return "", false, err
	}
	_, err = array.InitiatorByName(ctx, driver.InitiatorName(config.Cluster, config.Node))
	if err != nil && !errors.Is(err, datera.ErrNotFound) {
		return "", false, fmt.Errorf("ask %s: %w", array.Server(), err)
	}
	return array.Server() + " answers", false, nil
}

// initiatorFile is open-iscsi's, on the host.
const initiatorFile = "/etc/iscsi/initiatorname.iscsi"

// servesControlPlaneOnly tells of a control-plane node without open-iscsi: nothing can be attached to it, and nothing
// needs to be.
func (i *Installer) servesControlPlaneOnly() bool {
	_, err := os.Lstat(i.onHost(initiatorFile))
	return i.ControlPlane && errors.Is(err, fs.ErrNotExist)
}

// tools are programs without which no volume can be attached or formatted, with the packages that bring them.
var tools = [...]struct{ program, packages string }{
	{"iscsiadm", "open-iscsi (iscsi-initiator-utils)"},
	{"mkfs.xfs", "xfsprogs"},
}

// host looks at what the driver needs of the host to attach a volume.
func (i *Installer) host(context.Context, driver.Config) (message string, changed bool, err error) {
	errs := []error{i.Initiator.CheckDaemon()}
	for _, tool := range tools {
		if !i.hostHas(tool.program) {
			errs = append(errs, fmt.Errorf("%s is not installed on this node: install %s", tool.program, tool.packages))
		}
	}
	return "iscsid, iscsiadm and mkfs.xfs are there", false, errors.Join(errs...)
}

func (i *Installer) hostHas(program string) bool {
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"} {
		// A link is taken as it stands: where it leads to need not be visible here.
		if _, err := os.Lstat(i.onHost(dir + "/" + program)); err == nil {
			return true
		}
	}
	return false
}
