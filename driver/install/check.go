package install

import (
	"context"
	"errors"
	"fmt"

	"datera-flexvolume/driver"
)

// Check tells whether this node can attach volumes, and changes nothing: the installed executable is this one, the
// driver takes its configuration, the array answers and knows the node, the host has what the driver needs. It finds
// everything that is wrong.
func (i *Installer) Check(ctx context.Context) error {
	digest, err := digestOf(i.Executable)
	if err == nil && !i.has(digest) {
		err = fmt.Errorf("%s is missing or not version %s", i.named(binaryName), i.Version)
	}
	config, configErr := i.inForce()
	if configErr != nil {
		return errors.Join(err, configErr)
	}
	err = errors.Join(err, i.checkIdentity(config))
	if installed, _ := i.installed(); installed.Username == "" || installed.Password == "" {
		err = errors.Join(err, i.needsCredentials(config))
	}
	if i.servesControlPlaneOnly() {
		_, _, arrayErr := i.greet(ctx, config)
		return errors.Join(err, arrayErr)
	}
	_, _, hostErr := i.host(ctx, config)
	return errors.Join(err, hostErr, i.checkRegistration(ctx, config))
}

func (i *Installer) checkRegistration(ctx context.Context, config driver.Config) error {
	if registersByItself(config) {
		return nil
	}
	iqn, err := i.ownIQN()
	if err != nil {
		return err
	}
	array, err := i.OpenArray(config)
	if err != nil {
		return err
	}
	found, err := array.InitiatorByName(ctx, driver.InitiatorName(config.Cluster, config.Node))
	if err != nil {
		return fmt.Errorf("look up node %s on %s: %w", config.Node, array.Server(), err)
	}
	if found.ID != iqn {
		return fmt.Errorf("%s has node %s with initiator %s, but its initiator is %s", array.Server(), config.Node, found.ID, iqn)
	}
	return nil
}

// inForce is the configuration that the driver on this host has. Where it was given no credentials, those of the
// source are added.
func (i *Installer) inForce() (driver.Config, error) {
	config, err := i.installed()
	if err != nil {
		return config, fmt.Errorf("configuration of the installed driver: %w", err)
	}
	if config.CAFile != "" {
		config.CAFile = i.onHost(config.CAFile)
	}
	if _, _, err := config.Connection(); err != nil {
		if source, err := i.Load(); err == nil {
			config.Username, config.Password = source.Username, source.Password
		}
	}
	return config, nil
}
