package support

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"datera-flexvolume/driver"
	"datera-flexvolume/driver/calllog"
)

// parts are in the order of reading.
func (c Collector) parts(secrets redactor) []part {
	return []part{
		{"the driver's version", text("version.txt", c.version)},
		{"the configuration, its secrets hidden", text("configuration.json", c.configuration)},
		{"iscsi doctor", c.doctor},
		{"iscsi status", c.status},
		{"iscsi reap", text("reap.txt", c.leftovers)},
		{"the journal of the volumes here", c.journal},
		{"the driver's log", func(_ context.Context, add func(string, []byte)) error { return c.log(secrets, add) }},
		{"sessions and disks, as the kernel shows them", text("sessions.json", c.sessions)},
		{"mounts, as the kernel shows them", c.file("mountinfo", filepath.Join(c.proc(), "self/mountinfo"))},
		{"node records of the array's targets, their secrets hidden", c.records},
		{"open-iscsi's version", text("open-iscsi.txt", c.openISCSI)},
		{"the distribution", c.file("os-release", c.onHost("/etc/os-release"))},
		{"the kernel's version", c.file("kernel.txt", filepath.Join(c.proc(), "version"))},
		{"kubelet's command line", text("kubelet.txt", c.kubelet)},
	}
}

func (c Collector) proc() string { return cmp.Or(c.Operator.Host.ProcRoot, "/proc") }

// file is one of the host's as it is.
func (c Collector) file(name, path string) func(context.Context, func(string, []byte)) error {
	return func(_ context.Context, add func(string, []byte)) error {
		content, err := readFile(path)
		if err == nil {
			add(name, content)
		}
		return err
	}
}

func (c Collector) version(_ context.Context, w io.Writer) error {
	_, err := fmt.Fprintf(w, "iscsi %s (%s, %s/%s)\n", c.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

func (c Collector) configuration(_ context.Context, w io.Writer) error {
	shown := struct {
		Path        string
		Error       string   `json:",omitempty"`
		Environment []string // names of variables that are set
		Config      driver.Config
	}{Path: c.Operator.Config.Path, Environment: []string{}, Config: c.Operator.Config.WithoutSecrets()}
	if err := c.Operator.ConfigError; err != nil {
		shown.Error = err.Error()
	}
	for _, name := range []string{"DATERA_CONFIG", "DAT_MGMT", "DAT_USER", "DAT_PASS", "DAT_TENANT", "DAT_API", "DAT_LDAP"} {
		if c.Getenv(name) != "" {
			shown.Environment = append(shown.Environment, name)
		}
	}
	return driver.WriteJSON(w, shown)
}

func (c Collector) doctor(ctx context.Context, add func(string, []byte)) error {
	findings := c.Operator.Doctor(ctx)
	return both(ctx, "doctor", add, findings, func(w io.Writer) error { return driver.WriteFindings(w, findings) })
}

func (c Collector) status(ctx context.Context, add func(string, []byte)) error {
	volumes, err := c.Operator.Status(ctx)
	if err != nil {
		return err
	}
	return both(ctx, "status", add, volumes, func(w io.Writer) error { return driver.WriteStatus(w, volumes) })
}

// both adds an answer as text and as JSON.
func both(ctx context.Context, name string, add func(string, []byte), answer any, write func(io.Writer) error) error {
	return errors.Join(
		text(name+".txt", func(_ context.Context, w io.Writer) error { return write(w) })(ctx, add),
		text(name+".json", func(_ context.Context, w io.Writer) error { return driver.WriteJSON(w, answer) })(ctx, add))
}

func (c Collector) leftovers(ctx context.Context, w io.Writer) error {
	leftovers, err := c.Operator.Leftovers(ctx, driver.DefaultAge)
	if err != nil {
		return err
	}
	return driver.WriteLeftovers(w, leftovers)
}

func (c Collector) journal(_ context.Context, add func(string, []byte)) error {
	var errs []error
	for _, kind := range []string{"volumes", "leaving"} {
		paths, _ := filepath.Glob(filepath.Join(c.Operator.Config.StateDir, kind, "*"))
		for _, path := range paths {
			content, err := readFile(path)
			if err == nil {
				add("journal/"+kind+"/"+filepath.Base(path), content)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// log begins with the newest file, so that the limit cuts the oldest away.
func (c Collector) log(secrets redactor, add func(string, []byte)) error {
	path := c.Operator.Config.Log.Path
	if path == "" {
		return errors.New("log.path is empty in the configuration")
	}
	var errs []error
	left := c.LogBytes
	for _, file := range append([]string{path + ".stderr"}, reversed(calllog.Files(path))...) {
		info, err := os.Stat(file)
		if err != nil || left <= 0 || time.Since(info.ModTime()) > c.LogAge {
			continue
		}
		content, err := readLog(file)
		if err == nil {
			shown := lastLines(secrets.hide(string(content)), left) // hidden first: the cut may go through a secret
			add("log/"+strings.TrimSuffix(filepath.Base(file), ".gz"), []byte(shown))
			left -= len(shown)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func reversed(files []string) []string {
	slices.Reverse(files)
	return files
}

func readLog(path string) ([]byte, error) { return readAll(calllog.Open(path)) }

func (c Collector) sessions(_ context.Context, w io.Writer) error {
	sessions, err := c.Operator.Node.Sessions()
	if err != nil {
		return err
	}
	return driver.WriteJSON(w, sessions)
}

func (c Collector) records(_ context.Context, add func(string, []byte)) error {
	records, err := c.Operator.Node.Records()
	if err != nil {
		return err
	}
	var errs []error
	for _, record := range records {
		if !driver.OfTheArray(record.IQN) {
			continue
		}
		content, err := readFile(record.Path)
		if err == nil {
			// A record is a file named by its portal, or one in a folder of that name.
			_, below, _ := strings.Cut(record.Path, record.IQN+"/")
			add("records/"+record.IQN+"/"+below, content)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c Collector) openISCSI(ctx context.Context, w io.Writer) error {
	versions, err := c.Operator.Node.Versions(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "iscsiadm %s\niscsid %s\n", versions.Client, versions.Daemon)
	return err
}

func (c Collector) kubelet(_ context.Context, w io.Writer) error {
	args := c.Operator.Host.KubeletArgs()
	if args == nil {
		return errors.New("no kubelet runs here")
	}
	_, err := fmt.Fprintln(w, strings.Join(args, " "))
	return err
}
