package main

import (
	"context"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"datera-flexvolume/driver"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "print the version", GroupID: "people", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "iscsi %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

func registerCommand() *cobra.Command {
	var iqn string
	command := &cobra.Command{
		Use: "register [NODE]", Short: "register this host's initiator on the array under the node's name", GroupID: "people",
		Long: `Registers the initiator of this host (/etc/iscsi/initiatorname.iscsi) on the array, so
that the control plane can give the node access to volumes. NODE is the name of the
Kubernetes node; default is node of the configuration, else the host name.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withDriver(cmd.Context(), func(ctx context.Context, d *driver.Driver) error {
				node, err := nodeArgument(args, d.Config)
				if err != nil {
					return err
				}
				registered, err := d.Register(ctx, node, iqn)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "node %s is registered with initiator %s as %s\n", node, registered, driver.InitiatorName(d.Config.Cluster, node))
				return err
			})
		},
	}
	command.Flags().StringVar(&iqn, "iqn", "", "initiator name, to register another host than this one")
	return command
}

func nodeArgument(args []string, config driver.Config) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	return config.NodeName()
}

func deleteCommand() *cobra.Command {
	var source volumeFlags
	command := &cobra.Command{
		Use: "delete OPTIONS | --pv FILE", Short: "delete a volume and its data from the array (needs retainPolicy: never)", GroupID: "people",
		Long: `Takes a volume offline and deletes it with its data. OPTIONS is the JSON that kubelet
passes. Refused unless the options hold "retainPolicy":"never" and nobody uses the volume.
A PersistentVolume with a secretRef needs its Secret, too: that says which array the volume is on.
No call of kubelet ever deletes a volume: none of them says that its PersistentVolume is gone.`,
		Example: "  iscsi delete --pv pv.yaml\n  iscsi delete --pv pv.yaml --pv secret.yaml",
		Args:    source.orOptions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(source.Files) > 0 {
				request, err := source.request(cmd)
				if err != nil {
					return err
				}
				options, err := request.OptionsWithSecret()
				if err != nil {
					return err
				}
				args = []string{options}
			}
			return withDriver(cmd.Context(), func(ctx context.Context, d *driver.Driver) error {
				volume, err := driver.ParseVolume(args[0], d.Config.Cluster)
				if err != nil {
					return err
				}
				if err := d.Delete(ctx, volume); err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "volume %s is deleted\n", volume.AppInstance)
				return err
			})
		},
	}
	source.add(command)
	return command
}
