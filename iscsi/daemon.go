package iscsi

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
)

// checkDaemon finds out whether a login has anybody to make it, before iscsiadm waits for nobody.
func (i *Initiator) checkDaemon() error {
	if i.listens("@ISCSIADM_ABSTRACT_NAMESPACE") || i.startsDaemon() {
		return nil
	}
	return ErrNoDaemon
}

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
