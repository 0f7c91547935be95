package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"

	"datera-flexvolume/driver"
	"datera-flexvolume/testdata/lab"
)

// pluginName is the driver's folder in the folder of FlexVolume drivers.
const pluginName = "datera~iscsi"

// installOnControlPlane installs the driver as the README says: under a name with a dot first.
func (c *Cluster) installOnControlPlane(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	config, err := json.Marshal(c.ControlPlaneConfig())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, ".datera-config"), config, 0o600); err != nil {
		return err
	}
	draft := filepath.Join(dir, ".iscsi")
	if err := copyFile(filepath.Join(c.options.Bin, "iscsi"), draft, 0o755); err != nil {
		return err
	}
	return os.Rename(draft, filepath.Join(dir, "iscsi"))
}

// ControlPlaneConfig is what the driver needs to know on the control plane's host, which reaches the array in its own way.
func (c *Cluster) ControlPlaneConfig() driver.Config {
	return driver.Config{
		ManagementIP: c.Lab.Array.Forwarded(lab.ArrayPort), Scheme: "http", Aliases: []string{lab.ArrayAddress},
		Username: lab.User, Password: lab.Password, Attach: driver.AttachController,
		StateDir: filepath.Join(c.folder, "driver", "state"), RunDir: filepath.Join(c.folder, "driver", "run"),
		Log: driver.LogConfig{Path: filepath.Join(c.folder, "driver", "iscsi.log"), Level: "debug", MaxBackups: 5},
	}
}

func copyFile(from, to string, mode os.FileMode) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Sync(), target.Close())
}

// installDriver installs the driver on a node and registers its initiator, as the README says.
func (c *Cluster) installDriver(ctx context.Context, n *Node) error {
	if err := n.Put(ctx, filepath.Join(c.options.Bin, "iscsi"), lab.PluginDir+"/.iscsi", 0o755); err != nil {
		return err
	}
	if err := n.Configure(ctx, nil); err != nil {
		return err
	}
	_, err := n.Script(ctx, "cd "+lab.PluginDir+" && mv .iscsi iscsi && ./iscsi register "+n.Name)
	return err
}
