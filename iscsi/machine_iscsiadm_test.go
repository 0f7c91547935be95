package iscsi

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

type exitError int

func (e exitError) Error() string { return "exit status " + strconv.Itoa(int(e)) }
func (e exitError) ExitCode() int { return int(e) }

// said is what a program said in reality, and its exit.
func said(t *testing.T, name string) ([]byte, error) {
	content, err := os.ReadFile(filepath.Join("testdata", "said", name+".txt"))
	if err != nil {
		t.Error(err)
		return nil, err
	}
	first, output, _ := strings.Cut(string(content), "\n")
	code, err := strconv.Atoi(strings.TrimPrefix(first, "exit "))
	if err != nil {
		t.Errorf("%s.txt: %v", name, err)
	}
	if code == 0 {
		return []byte(output), nil
	}
	return []byte(output), exitError(code)
}

// Run is what a program does.
func (m *machine) Run(ctx context.Context, program string, args ...string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.ran = append(m.ran, program+" "+strings.Join(args, " "))
	fault := m.fault
	m.mu.Unlock()
	if fault != nil {
		if answer, handled := fault(ctx, program, args); handled {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return said(m.t, answer)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch program {
	case "iscsiadm":
		return said(m.t, m.iscsiadm(args))
	case "multipath":
		return nil, m.flushMap(args[1])
	case "multipathd":
		m.growMap(args[2])
		return []byte("ok\n"), nil
	}
	return nil, fmt.Errorf("unexpected program %s", program)
}

// iscsiadm returns the name of what it says.
func (m *machine) iscsiadm(args []string) string {
	option := func(name string) string {
		if n := slices.Index(args, name); n >= 0 && n+1 < len(args) {
			return args[n+1]
		}
		return ""
	}
	iqn, portal := option("-T"), option("-p")
	key := iqn + "|" + portal
	switch {
	case option("-o") == "new":
		if info, err := os.Stat(m.recordPath(iqn, portal)); err == nil && info.Size() == 0 {
			return "new-over-empty-record"
		}
		m.write(strings.TrimPrefix(m.recordPath(iqn, portal), m.root), m.newRecord)
		m.records[key] = map[string]string{}
		return "new"
	case option("-o") == "update":
		record, ok := m.records[key]
		if !ok {
			return "delete-again"
		}
		for n := range args {
			if args[n] == "-n" {
				if args[n+1] == reopenMax && !strings.Contains(m.newRecord, reopenMax) {
					return "update-bad-name"
				}
				record[args[n+1]] = args[n+3]
			}
		}
		return "update"
	case option("-o") == "delete":
		return m.deleteRecords(iqn, portal)
	case slices.Contains(args, "--login"):
		return m.login(iqn, portal)
	case slices.Contains(args, "--logout"):
		if number := option("-r"); number != "" {
			return m.logoutSession("session"+number, "logout-no-session-number")
		}
		says := "logout-again"
		for name := m.sessionAt(iqn, portal); name != ""; name = m.sessionAt(iqn, portal) {
			says = m.logoutSession(name, says)
		}
		return says
	}
	m.t.Errorf("unexpected iscsiadm %q", args)
	return "delete-again"
}

func (m *machine) recordPath(iqn, portal string) string {
	host, port, err := net.SplitHostPort(portal)
	m.check(err)
	return m.path("etc/iscsi/nodes", iqn, host+","+port)
}

func (m *machine) deleteRecords(iqn, portal string) string {
	says := "delete-again"
	for key := range m.records {
		name, at, _ := strings.Cut(key, "|")
		if name != iqn || portal != "" && at != portal {
			continue
		}
		if m.sessionAt(iqn, at) != "" {
			return "delete-with-session"
		}
		delete(m.records, key)
		m.check(os.Remove(m.recordPath(iqn, at)))
		says = "delete"
	}
	_ = os.Remove(m.path("etc/iscsi/nodes", iqn))
	return says
}

func (m *machine) login(iqn, portal string) string {
	target := m.targets[iqn]
	switch {
	case m.records[iqn+"|"+portal] == nil:
		return "login-no-record"
	case m.sessionAt(iqn, portal) != "":
		return "login-again"
	case target == nil || !slices.Contains(target.portals, portal):
		return "login-dead-port"
	case target.says != "":
		return target.says
	}
	s, _ := readSession(m.path("sys/class/iscsi_session", m.addSession(iqn, portal, "LOGGED_IN")))
	if m.records[iqn+"|"+portal]["node.session.scan"] != "manual" {
		for lun, found := range target.luns { // iscsid scans for all
			m.addDisk(s, lun, found)
		}
	}
	return "login"
}

// sessionAt is the name of a session, "" when there is none.
func (m *machine) sessionAt(iqn, portal string) string {
	names, _ := os.ReadDir(m.path("sys/class/iscsi_session"))
	for _, name := range names {
		s, ok := readSession(m.path("sys/class/iscsi_session", name.Name()))
		if ok && s.iqn == iqn && s.at(portal) {
			return name.Name()
		}
	}
	return ""
}

func (m *machine) logoutSession(name, otherwise string) string {
	s, ok := readSession(m.path("sys/class/iscsi_session", name))
	if name == "" || !ok {
		return otherwise
	}
	for _, d := range s.disks() {
		m.removeDisk(d.dir)
	}
	m.check(os.Remove(s.class))
	m.check(os.RemoveAll(s.dir))
	return "logout"
}
