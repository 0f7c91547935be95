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
	args := os.Args[1:]
	if len(args) > 0 && driver.IsKubelets(args) {
		serve(args, false)
		return
	}
	root := commands()
	if isUnknown(root, args) {
		serve(args, false)
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

// isUnknown tells a verb that is nobody's. It counts as kubelet's: a newer one may call what this driver does not know,
// and expects JSON.
func isUnknown(root *cobra.Command, args []string) bool {
	if len(args) == 0 || args[0] == "" || args[0][0] == '-' || args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd {
		return false
	}
	_, _, err := root.Find(args)
	return err != nil
}

func commands() *cobra.Command {
	root := &cobra.Command{
		Use:   "iscsi",
		Short: "FlexVolume driver datera/iscsi: iSCSI volumes of a Datera-style array for Kubernetes",
		Long: `FlexVolume driver datera/iscsi: iSCSI volumes of a Datera-style array for Kubernetes.

The verbs of kubelet print one line of JSON. As kubelet calls them they always exit with 0;
with one of a person's flags a failure exits with 1. A person gives them the manifest of a
PersistentVolume (--pv) in place of OPTIONS, the JSON that kubelet passes:
  {"kubernetes.io/pvOrVolumeName":"pv-datera-0","kubernetes.io/fsType":"xfs",
   "kubernetes.io/readwrite":"rw","volumeID":"kube-pv-datera-0","size":"100","replica":"3"}`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddGroup(&cobra.Group{ID: "verbs", Title: "What kubelet calls:"}, &cobra.Group{ID: "people", Title: "For people:"})
	for _, verb := range driver.Verbs() {
		root.AddCommand(verbCommand(verb))
	}
	root.AddCommand(manCommands()...)
	root.AddCommand(versionCommand(), registerCommand(), installCommand(), uninstallCommand(), deleteCommand(), requestCommand(),
		statusCommand(), doctorCommand(), reapCommand(), logsCommand(), supportCommand())
	root.SetHelpCommandGroupID("people")
	root.SetCompletionCommandGroupID("people")
	root.InitDefaultHelpCmd() // before isUnknown looks for them
	root.InitDefaultCompletionCmd()
	return root
}
