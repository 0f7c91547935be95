package main

import (
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"datera-flexvolume/driver/calllog"
)

func logsCommand() *cobra.Command {
	var output outputFlag
	var filter calllog.Filter
	var since time.Duration
	var follow bool
	command := &cobra.Command{
		Use: "logs", Short: "show the calls on this node: when, which volume, how long, what came of it", GroupID: "people",
		Long: `Shows a line for each call in the driver's log (log.path in the configuration) and in the files
that were rotated away, the oldest first: when it was answered, its verb and volume, how long it
took, the result, and the message or the device. init is not logged.

-o json prints the log's own lines. They have the id of the call, too, by which its other lines
are found: jq 'select(.call == "1a2b3c4d")'.`,
		Example: "  iscsi logs --since 1h --failed\n  iscsi logs --pv pv-datera-0 -f\n  iscsi logs -o json | jq 'select(.seconds > 10)'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, _ := loadConfig() // with one that cannot be used, too: its log is where it was
			if config.Log.Path == "" {
				return errors.New("log.path is empty in the configuration: there is no log")
			}
			if since > 0 {
				filter.Since = time.Now().Add(-since)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			table := calllog.Printer{W: cmd.OutOrStdout()}
			return calllog.Read(ctx, config.Log.Path, filter, follow, func(entries []calllog.Entry) error {
				if output != "json" {
					return table.Print(entries)
				}
				for _, entry := range entries {
					if _, err := fmt.Fprintln(cmd.OutOrStdout(), entry.Line); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	output.add(command)
	command.Flags().StringVar(&filter.PV, "pv", "", "only the volume with this `name` in Kubernetes")
	command.Flags().DurationVar(&since, "since", 0, "only those not older than this, such as 1h")
	command.Flags().BoolVar(&filter.Failed, "failed", false, "only those that did not succeed")
	command.Flags().BoolVarP(&follow, "follow", "f", false, "go on with those that come, until ^C")
	return command
}
