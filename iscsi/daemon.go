package iscsi

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// CheckDaemon finds out whether a login has anybody to make it, before iscsiadm waits for nobody: ErrNoDaemon if not.
func (i *Initiator) CheckDaemon() error {
	if i.listens("@ISCSIADM_ABSTRACT_NAMESPACE") || i.startsDaemon() {
		return nil
	}
	return ErrNoDaemon
}

// DaemonRuns tells whether an iscsid runs. Without one, lost sessions do not come back; logins may have one started.
func (i *Initiator) DaemonRuns() bool { return i.processLives("iscsid") }

// startsDaemon tells whether iscsiadm is configured to start iscsid by itself.
func (i *Initiator) startsDaemon() bool {
	file, err := os.Open(filepath.Join(i.opt.EtcRoot, "iscsi", "iscsid.conf"))
	if err != nil {
		return false
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), "=")
		if strings.TrimSpace(key) == "iscsid.startup" && strings.TrimSpace(value) != "" {
			return true
		}
	}
	return false
}

// listens tells whether a program has one of these Unix sockets open (proc(5): an abstract one is shown with @). A
// socket that systemd holds for a program it starts on demand counts as well.
func (i *Initiator) listens(sockets ...string) bool {
	file, err := os.Open(filepath.Join(i.opt.ProcRoot, "net", "unix"))
	if err != nil {
		return false
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) != 8 {
			continue
		}
		for _, socket := range sockets {
			if fields[7] == socket {
				return true
			}
		}
	}
	return false
}

// Versions are those of open-iscsi's two halves.
type Versions struct {
	Client   string // of iscsiadm
	Daemon   string // of the iscsid that runs, or of the one that would be started when there is none
	Replaced bool   // the running iscsid's file was replaced since it started
}

// Versions asks both halves of open-iscsi. The daemon is asked by its process, since the file may be another by now.
func (i *Initiator) Versions(ctx context.Context) (Versions, error) {
	client, err := i.version(ctx, "iscsiadm")
	if err != nil {
		return Versions{}, err
	}
	daemon, replaced := "iscsid", false
	if process, runs := i.process("iscsid"); runs {
		exe := filepath.Join(process, "exe")
		file, err := os.Readlink(exe)
		daemon, replaced = exe, err == nil && strings.HasSuffix(file, " (deleted)")
	}
	version, err := i.version(ctx, daemon)
	return Versions{Client: client, Daemon: version, Replaced: replaced}, err
}

// version is the last word that a program of open-iscsi says: "iscsiadm version 2.1.8".
func (i *Initiator) version(ctx context.Context, program string) (string, error) {
	limit, cancel := context.WithTimeout(ctx, versionLimit)
	defer cancel()
	output, err := i.run.Run(limit, program, "--version")
	if err != nil {
		return "", fmt.Errorf("ask the version of open-iscsi: %w", err)
	}
	words := strings.Fields(string(output))
	if len(words) < 2 || words[len(words)-2] != "version" {
		return "", fmt.Errorf("`%s --version` says %.80q, which holds no version", program, output)
	}
	return words[len(words)-1], nil
}

const versionLimit = 5 * time.Second

// Reach finds out whether anybody listens at a portal: ErrUnreachable if not.
func (i *Initiator) Reach(ctx context.Context, portal Portal) error {
	portal, err := canonical(portal)
	if err != nil {
		return err
	}
	return i.checkPortal(ctx, portal)
}
