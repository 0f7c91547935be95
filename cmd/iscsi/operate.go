package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"datera-flexvolume/driver"
)

func statusCommand() *cobra.Command {
	var output outputFlag
	command := &cobra.Command{
		Use: "status", Short: "list the volumes on this node, with their portals, mounts and health", GroupID: "people",
		Long: `Lists the volumes on this node: those that the driver's journal knows, and those of the
array that it does not. What is there is read from the kernel. Nothing is changed and no
program started, so it may be run at any time.

HEALTH says ok or what is wrong: a portal that is down, a file system that the kernel shut
down or made read-only because of errors, a device that is gone, a leftover (iscsi reap).
MOUNTS counts kubelet's mounts ("node" is the one that all pods share) and names any other.`,
		Example: "  iscsi status\n  iscsi status -o json | jq '.[] | select(.health != [\"ok\"])'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withOperator(cmd.Context(), func(ctx context.Context, o *driver.Operator) error {
				volumes, err := o.Status(ctx)
				if err != nil {
					return err
				}
				return output.write(cmd.OutOrStdout(), volumes, func(w io.Writer) error { return driver.WriteStatus(w, volumes) })
			})
		},
	}
	output.add(command)
	return command
}

func doctorCommand() *cobra.Command {
	var output outputFlag
	command := &cobra.Command{
		Use: "doctor", Short: "look for what is wrong with this node, and say what to do about it", GroupID: "people",
		Long: `Looks at what volumes need of this node: programs, open-iscsi and its version, kernel modules,
initiator name, node records, multipath, kubelet's plug-in folder, configuration, the array and
this node's registration there, who may reach the cluster's volumes, portals, clock, and the
volumes themselves. It prints a line for each: ok, warning (it works, but not as it should) or problem, and what to do. It changes nothing.

The exit status is 0 only when all is well. Each check has 15 seconds.`,
		Example: "  iscsi doctor\n  iscsi doctor -o json | jq '.[] | select(.level != \"ok\")'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withOperator(cmd.Context(), func(ctx context.Context, o *driver.Operator) error {
				findings := o.Doctor(ctx)
				if err := output.write(cmd.OutOrStdout(), findings, func(w io.Writer) error { return driver.WriteFindings(w, findings) }); err != nil {
					return err
				}
				if !driver.Well(findings) {
					return errorStatus
				}
				return nil
			})
		},
	}
	output.add(command)
	return command
}

func reapCommand() *cobra.Command {
	var output outputFlag
	var yes bool
	var older time.Duration
	command := &cobra.Command{
		Use: "reap", Short: "show what a crash left behind on this node, and with --yes remove it", GroupID: "people",
		Long: `Shows what a crash, a killed call or a deleted pod left behind: volumes of the journal that
nothing wants any more, with their sessions, disks and records; node records and their stale
lock; empty directories of pods; files of the driver's own. With --yes it is removed.

Only what is provably the driver's own and unused goes. A volume must be in the driver's journal;
not mounted in any mount namespace; its disks open in no process and under no other device; no
call may be working on it; and kubelet must not have asked for it for the time of --older, which
cannot be less than 4 minutes: within that kubelet asks again for what a pod still wants. All
else that looks like a leftover is listed as kept, with the reason.

The exit status is 1 while something is left to remove, else 0.`,
		Example: "  iscsi reap\n  iscsi reap --older 1h --yes",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withOperator(cmd.Context(), func(ctx context.Context, o *driver.Operator) error {
				work := o.Leftovers
				if yes {
					work = o.Reap
				}
				leftovers, err := work(ctx, older)
				if leftovers == nil {
					return err
				}
				writeErr := output.write(cmd.OutOrStdout(), leftovers, func(w io.Writer) error { return driver.WriteLeftovers(w, leftovers) })
				if err := errors.Join(err, writeErr); err != nil {
					return err
				}
				if driver.Left(leftovers) > 0 {
					return errorStatus
				}
				return nil
			})
		},
	}
	output.add(command)
	command.Flags().BoolVar(&yes, "yes", false, "remove it")
	command.Flags().DurationVar(&older, "older", driver.DefaultAge, "for how long nobody must have asked for it")
	return command
}

// outputFlag says how a verb prints its answer.
type outputFlag string

func (f *outputFlag) add(command *cobra.Command) {
	*f = "text"
	command.Flags().VarP(f, "output", "o", "how to print: text or json")
}

func (f *outputFlag) String() string { return string(*f) }
func (f *outputFlag) Type() string   { return "format" }

// Set takes a format from the command line.
func (f *outputFlag) Set(format string) error {
	if format != "text" && format != "json" {
		return errors.New("accepted is text or json")
	}
	*f = outputFlag(format)
	return nil
}

func (f *outputFlag) write(w io.Writer, answer any, text func(io.Writer) error) error {
	if *f == "json" {
		return driver.WriteJSON(w, answer)
	}
	return text(w)
}
