package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"datera-flexvolume/datera"
	"datera-flexvolume/driver"
)

// register makes the array know this node by its name: one request when it does.
func (i *Installer) register(ctx context.Context, config driver.Config) (message string, changed bool, err error) {
	if registersByItself(config) {
		return "the configuration has no user of the array: mount registers this node as the one of the volume's secretRef", false, nil
	}
	iqn, err := i.ownIQN()
	if err != nil {
		return "", false, err
	}
	array, err := i.OpenArray(config)
	if err != nil {
		return "", false, err
	}
	name := driver.InitiatorName(config.Cluster, config.Node)
	there := fmt.Sprintf("%s has node %s with initiator %s as %s", array.Server(), config.Node, iqn, name)
	own := i.ownInitiators()
	found, err := array.InitiatorByName(ctx, name)
	switch {
	case err == nil && found.ID == iqn:
		i.registered = iqn
		return there, false, i.rememberInitiators(iqn)
	case err == nil && !slices.Contains(own, found.ID):
		return "", false, driver.NameTaken(array.Server(), config.Cluster, config.Node, found.ID, iqn)
	case err != nil && !errors.Is(err, datera.ErrNotFound):
		return "", false, fmt.Errorf("look up node %s on %s: %w", config.Node, array.Server(), err)
	case err == nil:
		there += "; its initiator was " + found.ID
	case i.registered == iqn:
		there += "; the array had lost it"
	}
	// The old names are forgotten when the new one is registered: killed before that, the next installer still knows them.
	if !slices.Contains(own, iqn) {
		if err := i.rememberInitiators(append(own, iqn)...); err != nil {
			return "", false, err
		}
	}
	if found != nil {
		if err := i.dropFormer(ctx, config, array, found.ID); err != nil {
			return "", false, err
		}
	}
	if _, err := array.RegisterInitiator(ctx, iqn, name); err != nil {
		err = driver.ExplainRegistration(err, array.Server(), config.Cluster, config.Node)
		return "", false, fmt.Errorf("register node %s on %s: %w", config.Node, array.Server(), err)
	}
	i.registered = iqn
	return there, true, i.rememberInitiators(iqn)
}

// ownIQN is the name of this host's initiator, in which the array and open-iscsi agree.
func (i *Installer) ownIQN() (string, error) {
	iqn, err := i.Initiator.Name()
	if err != nil {
		return "", err
	}
	return iqn, driver.CheckIQN(iqn)
}

// ownInitiators are the names that this host's initiator had when it was registered. Only these may be taken from the array:
// another cluster, too, may have a node of this name.
func (i *Installer) ownInitiators() []string {
	content, _ := os.ReadFile(i.folder().file(initiatorsName)) // without it nothing is known to be this host's
	return strings.Fields(string(content))
}

func (i *Installer) rememberInitiators(iqns ...string) error {
	if _, err := i.folder().put(initiatorsName, []byte(strings.Join(iqns, "\n")+"\n")); err != nil {
		return fmt.Errorf("remember this node's initiator in %s: %w", i.named(initiatorsName), err)
	}
	return nil
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

// needed are programs without which no volume can be attached or formatted. Of those that stand together one will do: a
// volume whose file system cannot be made says so.
var needed = [...][]string{{"iscsiadm"}, {"mkfs.xfs", "mkfs.ext4"}}

// packagesOf are those that bring one of the programs.
func packagesOf(programs []string) string {
	var packages []string
	for _, tool := range driver.Tools() {
		switch {
		case !slices.Contains(programs, tool.Name):
		case tool.Only != "":
			packages = append(packages, tool.Package+" for "+tool.Only+" alone")
		default:
			packages = append(packages, tool.Package)
		}
	}
	return strings.Join(packages, ", or ")
}

// host looks at what the driver needs of the host to attach a volume.
func (i *Installer) host(context.Context, driver.Config) (message string, changed bool, err error) {
	errs := []error{i.Initiator.CheckDaemon()}
	message = "iscsid"
	for _, programs := range needed {
		there := slices.DeleteFunc(slices.Clone(programs), func(program string) bool { return !i.hostHas(program) })
		if len(there) == 0 {
			errs = append(errs, fmt.Errorf("%s is not installed on this node: install %s", strings.Join(programs, " or "), packagesOf(programs)))
		}
		message += ", " + strings.Join(there, ", ")
	}
	return message + " are there", false, errors.Join(errs...)
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
