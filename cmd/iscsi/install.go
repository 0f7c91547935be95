package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"datera-flexvolume/driver"
	"datera-flexvolume/driver/install"
	"datera-flexvolume/driver/program"
	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// checkTime bounds a check; the DaemonSet's probe gives it a little more.
const checkTime = 10 * time.Second

// podRunDir is what the DaemonSet's pods may write to.
const podRunDir = "/run/datera-iscsi"

// installFlags are what install and uninstall share.
type installFlags struct {
	installer install.Installer
	attach    string
	runDir    string
	check     bool
	watch     bool
	interval  time.Duration
	log       string
}

func (f *installFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.installer.Root, "host-root", "/", "where the root directory of the host is seen")
	flags.StringVar(&f.installer.PluginDir, "plugin-dir", cmp.Or(os.Getenv("PLUGIN_DIR"), driver.DefaultPluginDir),
		"kubelet's --volume-plugin-dir, as the host names it; default is $PLUGIN_DIR")
	flags.StringVar(&f.installer.Node, "node", os.Getenv("NODE_NAME"), "the node's name in Kubernetes; default is $NODE_NAME, then the configuration's, then the host name")
	flags.BoolVar(&f.installer.ControlPlane, "control-plane", false, "the node may be without open-iscsi: it serves kube-controller-manager")
	flags.StringVar(&f.runDir, "run-dir", "", "where this process keeps session keys of the array; default is the configuration's run_dir, with --host-root "+podRunDir)
	flags.DurationVar(&f.interval, "interval", time.Minute, "how often --watch looks")
	flags.StringVar(&f.log, "log", "text", "how progress is printed: text or json")
}

func installCommand() *cobra.Command {
	var f installFlags
	command := &cobra.Command{
		Use: "install", Short: "put the driver and its configuration where kubelet looks for them, and register the node", GroupID: "people",
		Long: `Copies this executable and its configuration into kubelet's plug-in folder, and registers
the node's initiator on the array. It tries until that has succeeded, and says what it waits
for; what is right already is not touched.

The configuration is looked for as every call does ($DATERA_CONFIG, /etc/datera/datera-config,
…; DAT_MGMT, DAT_USER, … win) and written beside the executable, where the container of
kube-controller-manager sees it, too.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd, func(ctx context.Context, i *install.Installer) error {
				if f.check {
					return printChecked(cmd, i.Check(ctx), "this node can attach volumes")
				}
				return i.Install(ctx, f.pause())
			})
		},
	}
	f.add(command.Flags())
	command.Flags().StringVar(&f.attach, "attach", "", "attach mode for the node: controller, kubelet or none; default is the configuration's")
	command.Flags().StringVar(&f.installer.ClusterID, "cluster-id", "", "the cluster's identity, the UID of its namespace kube-system; default is the configuration's cluster_id, then what the pod's\nAPI server says, then what is installed")
	command.Flags().BoolVar(&f.installer.Credentials, "credentials", true, "write user and password of the array into the node's configuration; without them the node cannot grow volumes")
	command.Flags().BoolVar(&f.watch, "watch", false, "go on: put right what changes, until told to stop")
	command.Flags().BoolVar(&f.check, "check", false, "change nothing; fail unless this node can attach volumes")
	return command
}

func uninstallCommand() *cobra.Command {
	var f installFlags
	command := &cobra.Command{
		Use: "uninstall", Short: "take the driver, its configuration and the node's registration away", GroupID: "people",
		Long: `Undoes what install did. Refused, naming them, while volumes are on this node: kubelet could
not unmount them without the driver. With --control-plane, in attach mode controller, refused
while any volume of the cluster is attached to any node, too: kube-controller-manager could not
detach it. --keep-registration does not ask the array, neither for that nor to remove the node.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd, func(ctx context.Context, i *install.Installer) error {
				if f.check {
					return printChecked(cmd, i.Gone(), "the driver is not on this node")
				}
				return i.Uninstall(ctx, f.pause())
			})
		},
	}
	f.add(command.Flags())
	command.Flags().BoolVar(&f.installer.KeepRegistration, "keep-registration", false, "leave the array alone: the node stays registered, and nobody looks for attached volumes")
	command.Flags().BoolVar(&f.watch, "watch", false, "try until it succeeds, then stay until told to stop")
	command.Flags().BoolVar(&f.check, "check", false, "change nothing; fail unless the driver is gone")
	return command
}

func printChecked(cmd *cobra.Command, err error, good string) error {
	if err == nil {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), good)
	}
	return err
}

func (f *installFlags) pause() time.Duration {
	if f.watch {
		return f.interval
	}
	return 0
}

// run wires the installer and lets it work until it is done or told to stop.
func (f *installFlags) run(cmd *cobra.Command, work func(context.Context, *install.Installer) error) error {
	if f.log != "text" && f.log != "json" {
		return fmt.Errorf("--log is %q: accepted is text or json", f.log)
	}
	if f.interval < time.Second {
		return fmt.Errorf("--interval is %s: accepted is a second or more", f.interval)
	}
	if !filepath.IsAbs(f.installer.Root) || !filepath.IsAbs(f.installer.PluginDir) {
		return errors.New("--host-root and --plugin-dir are absolute paths")
	}
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	if f.check {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, checkTime)
		defer cancel()
	}
	return work(ctx, f.wire(stderrLog(), executable, cmd.OutOrStdout()))
}

func (f *installFlags) wire(log *slog.Logger, executable string, out io.Writer) *install.Installer {
	programs := program.New(log)
	initiator := iscsi.New(programs, iscsi.Options{EtcRoot: filepath.Join(f.installer.Root, "etc"), VarRoot: filepath.Join(f.installer.Root, "var"), Logger: log})
	mounter := mount.New(programs, mount.Options{Logger: log})
	i := f.installer
	i.Executable, i.Version, i.Attach = executable, version, driver.AttachMode(f.attach)
	i.Load, i.Initiator, i.Report = loadConfig, initiator, f.printer(out)
	i.AskCluster = install.Pod{Getenv: os.Getenv}.ClusterID
	i.OpenArray = func(config driver.Config) (install.Array, error) {
		scheme, credentials, err := config.Connection()
		if err != nil {
			return nil, err
		}
		config.RunDir = f.ownRunDir(config)
		return new(arrays).open(log, config.ArrayClient(scheme, credentials, config.Tenant))
	}
	i.Volumes = func(ctx context.Context, stateDir string) ([]driver.VolumeStatus, error) {
		host := &driver.Driver{Config: driver.Config{StateDir: stateDir}, Log: log}
		return (&driver.Operator{Driver: host, Node: initiator, Mounts: mounter}).Status(ctx)
	}
	return &i
}

// ownRunDir is for this process: run_dir of the configuration is the host's, which a pod need not see.
func (f *installFlags) ownRunDir(config driver.Config) string {
	switch {
	case f.runDir != "":
		return f.runDir
	case f.installer.Root != "/":
		return podRunDir
	}
	return config.RunDir
}

// printer writes a line for each event.
func (f *installFlags) printer(out io.Writer) func(install.Event) {
	if f.log == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		return func(event install.Event) { _ = encoder.Encode(event) }
	}
	return func(event install.Event) { _, _ = fmt.Fprintln(out, event) }
}
