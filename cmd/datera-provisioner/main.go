// Command datera-provisioner makes a volume on the array and a PersistentVolume for each
// claim of its StorageClasses, and deletes them again.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"datera-flexvolume/datera"
	"datera-flexvolume/driver"
	"datera-flexvolume/driver/provisioner"
)

// version is stamped by the build.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "datera-provisioner:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var kubeconfig, runDir string
	var settings provisioner.Settings
	command := &cobra.Command{
		Use:   "datera-provisioner",
		Short: "makes volumes of a Datera-style array for the claims of Kubernetes",
		Long: `Makes a volume on the array and a PersistentVolume (flexVolume, driver datera/iscsi) for
each claim whose StorageClass has the provisioner ` + provisioner.Name + `, and
deletes both when the PersistentVolume is released and its reclaim policy is Delete.

It runs in the cluster, as one Deployment; of several replicas one leads. What went wrong
with a claim is said in an event on it. The log goes to stderr, a JSON object to a line.

The array and its credentials are in the configuration that the driver has, too: the file
in $DATERA_CONFIG, or .datera-config or datera-config in /etc/datera (DAT_MGMT, DAT_USER,
DAT_PASS and so on win over it). It is read anew for each claim. A StorageClass may name a
Secret with other credentials instead (secretName, secretNamespace).`,
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd.Context(), kubeconfig, runDir, settings)
		},
	}
	flags := command.Flags()
	flags.StringVar(&kubeconfig, "kubeconfig", "", "how to reach Kubernetes; default: as the pod that this runs in")
	flags.StringVar(&settings.Namespace, "namespace", ownNamespace(), "where the Lease of the election and the journal (ConfigMaps) are; default: the pod's")
	flags.BoolVar(&settings.LeaderElect, "leader-elect", true, "work only while leading; without it nobody else may run")
	flags.StringVar(&settings.HealthListen, "health-listen", "127.0.0.1:8080", "address of /healthz and /metrics, for kubelet's probes the pod's IP; empty: none")
	flags.StringVar(&runDir, "run-dir", "", "where this process keeps locks and session keys; default is the configuration's run_dir")
	flags.IntVar(&settings.Workers, "workers", 4, "claims, and volumes to delete, that are worked on at a time")
	return command
}

func run(ctx context.Context, kubeconfig, runDir string, settings provisioner.Settings) error {
	config, configErr := loadConfig()
	settings.Log = newLog(config)
	klog.SetSlogLogger(settings.Log)
	if configErr != nil {
		settings.Log.Error("the configuration cannot be used; claims wait until it can", "err", configErr)
	}
	access, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("reach Kubernetes: %w", err)
	}
	access.UserAgent = "datera-provisioner/" + version
	if settings.Client, err = kubernetes.NewForConfig(access); err != nil {
		return fmt.Errorf("reach Kubernetes: %w", err)
	}
	identity := &provisioner.Identity{Client: settings.Client, Log: settings.Log}
	settings.Driver = func() *driver.Driver { return newDriver(settings.Log, runDir, identity.Of) }
	return provisioner.Run(ctx, settings)
}

// newDriver is the driver as the configuration says now: without a host, which it needs
// for nothing here. A runDir replaces the configuration's, which is the nodes'; identify adds which cluster this is.
func newDriver(log *slog.Logger, runDir string, identify func(driver.Config) (driver.Config, error)) *driver.Driver {
	config, err := loadConfig()
	if err == nil {
		config, err = identify(config)
	}
	config.RunDir = cmp.Or(runDir, config.RunDir)
	return &driver.Driver{
		Config: config, ConfigError: err, Log: log,
		OpenArray: func(scheme string, credentials driver.Credentials, tenant string) (driver.Array, error) {
			settings := config.ArrayClient(scheme, credentials, tenant)
			settings.Driver, settings.Logger = "datera-provisioner-"+version, log
			return datera.New(settings)
		},
	}
}

func loadConfig() (driver.Config, error) {
	return driver.LoadConfig(driver.ConfigPlaces(os.Getenv, os.Args[0]), os.Getenv)
}

func newLog(config driver.Config) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(config.Log.Level))
	return slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// ownNamespace is where the pod runs.
func ownNamespace() string {
	token, _ := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	return cmp.Or(os.Getenv("POD_NAMESPACE"), strings.TrimSpace(string(token)), "default")
}
