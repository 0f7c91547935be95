package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/datera/dateratest/target"
)

const about = `datera-sim is a Datera storage cluster in one process. It answers the REST API (v2.1, v2.2, v2.3)
and serves its volumes by iSCSI, so that a driver can be tried and tested without the hardware.

The targets (--target) are made by
  lio   the Linux kernel's own target, as in the real storage nodes: LUN 0 and the exact SCSI identity.
        Needs root and the modules target_core_mod, target_core_iblock, iscsi_target_mod and loop,
        which most distributions' kernels bring. This is the default, as nothing is nearer to the real thing.
  tgt   a tgtd of its own (Debian package tgt), which works on any kernel and without root. Volumes begin at
        LUN 1, which tgtd cannot help; they then have "lun": 1 in the API. A CHAP user has one password for all.
  none  nobody. Everything but the login to a target works; needs no root.

State and backing files are kept in --state and are there again after a restart. Two simulators cannot
share a folder. Everything else is removed at the end (SIGTERM, Ctrl-C); what a kill -9 leaves behind is
removed by the next start.

Faults make the cluster misbehave: NAME=VALUE[,method=REGEXP][,path=REGEXP][,count=N][,for=DURATION][,retry-after=T]
  unavailable=3 | unavailable=10s       503 for so many requests, or for so long
  refuse=5s                             connections are refused
  slow=200ms                            each answer waits
  cut=20                                answers end after so many bytes
  expire                                all keys expire at the next request
  op-state=2s | never | failed          what is started becomes available late, or not at all
  access-late=2s                        target addresses are missing after going online
  lose-answer=1                         the work is done, but the connection closes without an answer
  portal-down=127.0.0.2                 a portal is away
  capacity=5                            capacity_in_use is so many GiB too high
  answer=429 | answer="500 MESSAGE"     this status in place of the work; 502 and 504 look like a proxy's
  answer-after=504                      the work is done first
  refuse-filter                         lists with a filter are refused
  short-list=1000                       lists end after so many elements, whatever is asked for
  no-offset                             lists begin at the beginning, whatever is asked for
  no-active-initiators                  answers do not show which hosts are logged in
They can be changed while it runs: GET, PUT, DELETE http://…/sim/faults[/NAME]; GET /sim/requests tells which
calls were made.`

const examples = `  datera-sim --target none
  datera-sim --target tgt --state /var/tmp/sim
  datera-sim --state /var/lib/datera-sim --portal 10.0.0.1 --portal 10.0.1.1
  datera-sim --target none --fault unavailable=3 --fault 'slow=1s,method=PUT,path=/app_instances'
  curl -X PUT http://127.0.0.1:7717/sim/faults/lose-answer -d '{"method":"POST","path":"^/app_instances$"}'`

// flags are the command line.
type flags struct {
	listen, target, state  string
	portals, faults        []string
	user, password         string
	tlsCert, tlsKey        string
	opStateDelay, lifetime time.Duration
	version                string
	foldIQNs, verbose      bool
}

func command() *cobra.Command {
	var f flags
	c := &cobra.Command{Use: "datera-sim", Short: "A Datera storage cluster in one process", Long: about, Example: examples, Version: version,
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr()) }}
	p := c.Flags()
	p.StringVar(&f.listen, "listen", "127.0.0.1:7717", "address of the REST API; a real cluster has 7717 for HTTP and 7718 for HTTPS")
	p.StringVar(&f.target, "target", "lio", "what serves the volumes: lio, tgt or none")
	p.StringVar(&f.state, "state", "", "folder for state and backing files (default /var/lib/datera-sim; in memory for --target none)")
	p.StringArrayVar(&f.portals, "portal", nil, "iSCSI portal IP[:PORT], repeatable (default 127.0.0.1 and 127.0.0.2;\n172.28.41.43 and 172.29.41.56 for --target none)")
	p.StringVar(&f.user, "user", "admin", "who may log in to the REST API")
	p.StringVar(&f.password, "password", "sim-4711", "the password for that")
	p.StringVar(&f.tlsCert, "tls-cert", "", "certificate file (PEM) for HTTPS")
	p.StringVar(&f.tlsKey, "tls-key", "", "key file (PEM) for HTTPS")
	p.DurationVar(&f.opStateDelay, "op-state-delay", 0, "how long going online, a snapshot, a clone or a resize takes")
	p.DurationVar(&f.lifetime, "session-lifetime", 15*time.Minute, "how long a key lives after its last use")
	p.StringVar(&f.version, "sw-version", "3.3.0.0", "product version; placement policies exist since 3.3")
	p.StringArrayVar(&f.faults, "fault", nil, "misbehave, see above; repeatable")
	p.BoolVar(&f.foldIQNs, "fold-iqns", false, "keep initiators in lower case, as some arrays do")
	p.BoolVar(&f.verbose, "verbose", false, "log each request")
	c.MarkFlagsRequiredTogether("tls-cert", "tls-key")
	return c
}

// run serves until ctx is done.
func (f flags) run(ctx context.Context, out, log io.Writer) error {
	options, err := f.options(log)
	if err != nil {
		return err
	}
	secure, err := f.secure()
	if err != nil {
		return err
	}
	array, err := dateratest.New(options)
	if err != nil {
		return err
	}
	if err := array.Listen(f.listen, secure); err != nil {
		return errors.Join(err, f.close(array))
	}
	fmt.Fprintf(out, "listening on %s, user %s, target %s, portals %s%s\n", array.URL, f.user, f.target, list(options.Portals), f.keptIn(options))
	<-ctx.Done()
	return f.close(array)
}

// close is given its own time: the context has ended already.
func (flags) close(array *dateratest.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return array.Close(ctx)
}

func (f flags) options(log io.Writer) (dateratest.Options, error) {
	level := slog.LevelInfo
	if f.verbose {
		level = slog.LevelDebug
	}
	o := dateratest.Options{User: f.user, Password: f.password, SoftwareVersion: f.version, SessionLifetime: f.lifetime,
		OpStateDelay: f.opStateDelay, StateDir: f.state, FoldIQNs: f.foldIQNs, Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level}))}
	standard := []string{"127.0.0.1", "127.0.0.2"}
	switch f.target {
	case "lio":
		o.Backend = target.NewLIO()
	case "tgt":
		o.Backend = target.NewTGT()
	case "none":
		standard = []string{"172.28.41.43", "172.29.41.56"}
	default:
		return o, fmt.Errorf("--target %s is none of lio, tgt and none", f.target)
	}
	if o.Backend != nil && o.StateDir == "" {
		o.StateDir = "/var/lib/datera-sim"
	}
	if len(f.portals) == 0 {
		f.portals = standard
	}
	for _, text := range f.portals {
		p, err := portal(text)
		if err != nil {
			return o, err
		}
		o.Portals = append(o.Portals, p)
	}
	for _, text := range f.faults {
		fault, err := dateratest.ParseFault(text)
		if err != nil {
			return o, fmt.Errorf("--fault: %w", err)
		}
		o.Faults = append(o.Faults, fault)
	}
	return o, nil
}

// portal reads IP[:PORT].
func portal(text string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a, 3260), nil
	}
	p, err := netip.ParseAddrPort(text)
	if err != nil {
		return p, fmt.Errorf("--portal %s is not IP[:PORT]", text)
	}
	return p, nil
}

func (f flags) secure() (*tls.Config, error) {
	if f.tlsCert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(f.tlsCert, f.tlsKey)
	if err != nil {
		return nil, fmt.Errorf("read the TLS certificate %s and its key %s: %w", f.tlsCert, f.tlsKey, err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

func (flags) keptIn(o dateratest.Options) string {
	if o.StateDir == "" {
		return ""
	}
	return ", state in " + o.StateDir
}

func list(portals []netip.AddrPort) string {
	var all []string
	for _, p := range portals {
		all = append(all, p.String())
	}
	return strings.Join(all, " ")
}
