package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"datera-flexvolume/driver"
	"datera-flexvolume/driver/support"
)

func supportCommand() *cobra.Command {
	collector := support.Collector{Version: version, LogBytes: 20 << 20, Getenv: os.Getenv}
	var days int
	command := &cobra.Command{
		Use: "support [FILE.tar.gz]", Short: "pack what a report of a fault needs, without secrets", GroupID: "people",
		Long: `Packs what somebody who was not here needs to find a fault: version, configuration, the answers of
doctor, status and reap, the journal, the driver's log of the last days (20 MiB at most), mounts,
sessions and disks, the node records of the array's targets, versions of open-iscsi, distribution
and kernel, and kubelet's command line. It changes nothing, and asks the array as doctor does.

Secrets are replaced by (hidden): those of the configuration, of DAT_PASS and of the node records,
wherever they stand, and whatever a text calls a password, secret or token. Names of volumes, nodes
and addresses are in it. Look it through before you pass it on. The file is for its owner alone.
FILE must not exist; - is stdout. Default is a name with host and time in this directory.`,
		Example: "  iscsi support\n  iscsi support --days 1 /tmp/node-1.tar.gz\n  iscsi support - | tar -tzv",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			collector.LogAge = time.Duration(days) * 24 * time.Hour
			return withOperator(cmd.Context(), func(ctx context.Context, o *driver.Operator) error {
				collector.Operator = o
				if len(args) == 1 && args[0] == "-" {
					files, err := collector.Write(ctx, cmd.OutOrStdout())
					return errors.Join(err, listFiles(cmd.ErrOrStderr(), "stdout", files))
				}
				path, err := supportPath(args)
				if err != nil {
					return err
				}
				files, err := writeSupport(ctx, collector, path)
				if err != nil {
					return err
				}
				return listFiles(cmd.OutOrStdout(), path, files)
			})
		},
	}
	command.Flags().IntVar(&days, "days", 7, "of the log")
	return command
}

func supportPath(args []string) (string, error) {
	if len(args) == 1 {
		return filepath.Abs(args[0])
	}
	host, err := os.Hostname()
	if err != nil {
		return "", err
	}
	return filepath.Abs(fmt.Sprintf("iscsi-support-%s-%s.tar.gz", strings.ToLower(host), time.Now().UTC().Format("20060102T150405Z")))
}

// writeSupport leaves no half a package behind.
func writeSupport(ctx context.Context, collector support.Collector, path string) ([]support.File, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	files, err := collector.Write(ctx, file)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(path))
	}
	return files, nil
}

func listFiles(w io.Writer, path string, files []support.File) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, path)
	for _, file := range files {
		fmt.Fprintf(table, "  %s\t%d\t%s\n", file.Name, file.Bytes, file.What)
	}
	return table.Flush()
}
