// Command iscsi is a FlexVolume driver: kubelet and kube-controller-manager run it for
// every step of a volume's life, people run it to see what is wrong.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"datera-flexvolume/driver"
)

// version is stamped by the build.
var version = "dev"

func main() {
	root := commands()
	args := os.Args[1:]
	if isDriverCall(root, args) {
		serve(args)
		return
	}
	root.SetArgs(args)
	if err := root.Execute(); err != nil {
		status := errorStatus
		if !errors.As(err, &status) {
			root.PrintErrln("iscsi:", err)
		}
		os.Exit(int(status))
	}
}

// exitStatus ends a verb that has printed all that there is to say.
type exitStatus int

// errorStatus is that of a verb which could not do what it should.
const errorStatus exitStatus = 1

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// isDriverCall tells kubelet's calls from a person's. A verb that is neither counts as
// kubelet's: a newer one may call what this driver does not know, and expects JSON.
func isDriverCall(root *cobra.Command, args []string) bool {
	if len(args) == 0 || args[0] == "" || args[0][0] == '-' {
		return false
	}
	command, _, err := root.Find(args)
	if err != nil {
		return true
	}
	if command.Annotations[verbAnnotation] == "" {
		return false
	}
	return len(args) != 2 || args[1] != "--help" && args[1] != "-h"
}

const verbAnnotation = "flexvolume-verb"

func commands() *cobra.Command {
	root := &cobra.Command{
		Use:   "iscsi",
		Short: "FlexVolume driver datera/iscsi: iSCSI volumes of a Datera-style array for Kubernetes",
		Long: `FlexVolume driver datera/iscsi: iSCSI volumes of a Datera-style array for Kubernetes.

The verbs of kubelet print one line of JSON and always exit with 0. OPTIONS is the JSON
that kubelet passes:
  {"kubernetes.io/pvOrVolumeName":"pv-datera-0","kubernetes.io/fsType":"xfs",
   "kubernetes.io/readwrite":"rw","volumeID":"kube-pv-datera-0","size":"100","replica":"3"}`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.AddGroup(&cobra.Group{ID: "verbs", Title: "What kubelet calls:"}, &cobra.Group{ID: "people", Title: "For people:"})
	for _, verb := range driver.Verbs() {
		root.AddCommand(&cobra.Command{
			Use: verb.Usage(), Short: verb.Help, GroupID: "verbs", DisableFlagParsing: true,
			Annotations: map[string]string{verbAnnotation: verb.Name},
			RunE:        func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		})
	}
	root.AddCommand(versionCommand(), registerCommand(), installCommand(), uninstallCommand(), deleteCommand(),
		statusCommand(), doctorCommand(), reapCommand())
	root.SetHelpCommandGroupID("people")
	root.InitDefaultHelpCmd() // before isDriverCall looks for it
	return root
}
