package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"datera-flexvolume/driver"
)

// verbCommand is a verb of kubelet's, for people: with help, and with flags that kubelet never passes.
func verbCommand(verb driver.Verb) *cobra.Command {
	var source volumeFlags
	var explain bool
	words := strings.Join(verb.WordsWithout(), " ")
	command := &cobra.Command{
		Use: verb.Usage(), Short: verb.Help, GroupID: "verbs", DisableFlagsInUseLine: true,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := source.check(); err != nil {
				return err
			}
			call := append([]string{verb.Name}, args...)
			if len(source.Files) > 0 {
				request, err := source.request(cmd)
				if err != nil {
					return err
				}
				if call, err = request.Call(verb, args); err != nil {
					return err
				}
			}
			return serveForPeople(call, explain)
		},
	}
	command.Flags().BoolVar(&explain, "explain", false, "show each REST call and each program on stderr, with its time")
	command.Long = fmt.Sprintf(`%s.

Prints one line of JSON on stdout. With one of the flags below it is a person's call, whose
exit status is 1 when the JSON says Failure; without them it is kubelet's, and always 0.`, capital(verb.Help))
	command.Example = fmt.Sprintf("  iscsi %s --explain", verb.Usage())
	if verb.TakesVolume() {
		source.add(command)
		command.Example = fmt.Sprintf("  iscsi %s --pv pv.yaml %s\n  kubectl get pv pv-datera-0 -o yaml | iscsi %[1]s --pv - --explain %[2]s", verb.Name, words)
	}
	return command
}

func capital(sentence string) string { return strings.ToUpper(sentence[:1]) + sentence[1:] }

// volumeFlags let a person name a volume by its manifest.
type volumeFlags driver.VolumeSource

func (f *volumeFlags) add(command *cobra.Command) {
	flags := command.Flags()
	flags.StringArrayVar(&f.Files, "pv", nil, "manifest `FILE` of the PersistentVolume (or a Pod's in-line volume), - is stdin; it takes the place of\nOPTIONS and VOLUME. Repeatable, to add the Secret of its secretRef and its Pod")
	_ = command.MarkFlagFilename("pv", "yaml", "yml", "json") // fails for flags that are not there
	f.addChoice(command)
}

// addChoice is for commands that take the manifest as a word.
func (f *volumeFlags) addChoice(command *cobra.Command) {
	command.Flags().StringVar(&f.Name, "name", "", "`name` of the volume, where the manifest holds several")
	command.Flags().BoolVar(&f.ReadOnly, "read-only", false, "as for a pod whose claim is readOnly")
}

// check refuses a choice without what it is a choice of: the JSON says itself which volume it is, and whether it is for a reader.
func (f *volumeFlags) check() error {
	if len(f.Files) == 0 && (f.Name != "" || f.ReadOnly) {
		return errors.New("--read-only and --name go with --pv")
	}
	return nil
}

// orOptions wants a manifest or the JSON, not both.
func (f *volumeFlags) orOptions(cmd *cobra.Command, args []string) error {
	if err := f.check(); err != nil {
		return err
	}
	if len(f.Files) > 0 {
		return cobra.NoArgs(cmd, args)
	}
	return cobra.ExactArgs(1)(cmd, args)
}

func (f *volumeFlags) request(cmd *cobra.Command) (driver.Request, error) {
	source := driver.VolumeSource(*f)
	source.Stdin = cmd.InOrStdin()
	return source.Request()
}

func requestCommand() *cobra.Command {
	var source volumeFlags
	var environment driver.Environment
	command := &cobra.Command{
		Use: "request FILE [VERB]", Short: "print what Kubernetes calls the driver with for a PersistentVolume", GroupID: "people",
		Long: `Prints the calls that kube-controller-manager and kubelet make for a PersistentVolume (or a
Pod's in-line volume) in the order of its life, or the call of one verb, ready to be pasted into
a shell. FILE is a manifest in YAML or JSON, - is stdin. $NODE is a node's name; $DEVICE is what
attach answers, $DISK what waitforattach does; kubelet's directory is that of the kubelet here.

mount also gets what kubelet knows of the pod and the volume's Secret, if FILE holds them. Nothing
is asked or changed. A Secret is printed as kubelet passes it: in base64, which hides nothing.`,
		Example: "  iscsi request pv.yaml\n  iscsi request pv.yaml attach --node node-1\n  kubectl get pv -o yaml | iscsi request - --name pv-datera-0",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			source.Files = args[:1]
			request, err := source.request(cmd)
			if err != nil {
				return err
			}
			return request.WriteCalls(cmd.OutOrStdout(), environment, strings.Join(args[1:], ""))
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return []string{"yaml", "yml", "json"}, cobra.ShellCompDirectiveFilterFileExt
			}
			return verbNames(), cobra.ShellCompDirectiveNoFileComp
		},
	}
	source.addChoice(command)
	command.Flags().StringVar(&environment.Node, "node", "", "the node's name in Kubernetes")
	command.Flags().StringVar(&environment.Root, "kubelet-dir", "", "kubelet's --root-dir")
	return command
}

func verbNames() []string {
	var names []string
	for _, verb := range driver.Verbs() {
		names = append(names, verb.Name)
	}
	return names
}
