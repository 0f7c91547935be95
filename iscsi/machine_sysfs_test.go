package iscsi

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// addSession makes the kernel's side of a login.
func (m *machine) addSession(iqn, portal, state string) (name string) {
	host, id := m.nextHost, m.nextHost+11
	m.nextHost++
	name = "session" + strconv.Itoa(id)
	dir := fmt.Sprintf("sys/devices/platform/host%d/session%d", host, id)
	class := fmt.Sprintf("%s/iscsi_session/session%d", dir, id)
	connection := fmt.Sprintf("%s/connection%d:0/iscsi_connection/connection%[2]d:0", dir, id)
	address, port, err := net.SplitHostPort(portal)
	m.check(err)
	for path, value := range map[string]string{
		class + "/targetname": iqn, class + "/state": state, class + "/target_id": "0", class + "/recovery_tmo": "120",
		connection + "/address": address, connection + "/port": port,
		connection + "/persistent_address": address, connection + "/persistent_port": port,
	} {
		m.write(path, value+"\n")
	}
	m.write(fmt.Sprintf("sys/class/scsi_host/host%d/scan", host), "")
	m.link(class+"/device", "../../../"+name)
	m.link("sys/class/iscsi_session/"+name, fmt.Sprintf("../../devices/platform/host%d/%s/iscsi_session/%[2]s", host, name))
	return name
}

func (m *machine) setState(name, state string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.write("sys/class/iscsi_session/"+name+"/state", state+"\n")
}

// scan is a write to a SCSI host's scan file.
func (m *machine) scan(path, address string) error {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.scanned = append(m.scanned, address)
	var channel, id, lun int
	if _, err := fmt.Sscanf(address, "%d %d %d", &channel, &id, &lun); err != nil {
		return syscall.EINVAL
	}
	host := filepath.Base(filepath.Dir(path))
	sessions, _ := filepath.Glob(m.path("sys/devices/platform", host, "session*/iscsi_session/session*"))
	for _, class := range sessions {
		s, _ := readSession(class)
		if found, ok := m.targets[s.iqn].luns[lun]; ok {
			m.addDisk(s, lun, found)
		}
	}
	return nil
}

// addDisk is what the kernel shows of a LUN it has found.
func (m *machine) addDisk(s session, lun int, found fakeLUN) {
	hctl := fmt.Sprintf("%d:0:0:%d", s.host, lun)
	dir := fmt.Sprintf("sys/devices/platform/host%d/session%d/target%[1]d:0:0/%[3]s", s.host, s.id, hctl)
	if exists(m.path(dir)) {
		return
	}
	name := "sd" + string(rune('a'+m.nextDisk))
	block := dir + "/block/" + name
	m.write(dir+"/type", "0\n")
	m.write(dir+"/state", "running\n")
	m.write(dir+"/vpd_pg80", "\x00\x80\x00"+string(rune(len(found.serial)+1))+" "+found.serial)
	m.write(block+"/size", strconv.FormatInt(found.bytes/512, 10)+"\n")
	m.write(block+"/dev", fmt.Sprintf("8:%d\n", 16*m.nextDisk))
	m.mkdir(block + "/holders")
	m.link(block+"/device", "../../../"+hctl)
	m.link("sys/class/block/"+name, fmt.Sprintf("../../devices/platform/host%d/session%d/target%[1]d:0:0/%[3]s/block/%[4]s", s.host, s.id, hctl, name))
	m.write("dev/"+name, "")
	m.serials[name] = found.serial
	m.nextDisk++
	if m.multipathd {
		m.addPath(name, found)
	}
}

// addUnserved is what the kernel shows of a LUN that the target knows and does not serve.
func (m *machine) addUnserved(s session, lun int) (dir string) {
	dir = fmt.Sprintf("sys/devices/platform/host%d/session%d/target%[1]d:0:0/%[1]d:0:0:%[3]d", s.host, s.id, lun)
	m.write(dir+"/type", "0\n")
	m.write(dir+"/state", "running\n")
	return m.path(dir)
}

// addPath is what multipathd does about a new disk.
func (m *machine) addPath(name string, found fakeLUN) {
	owner := ""
	for candidate, paths := range m.pathsOf {
		if m.serials[paths[0]] == found.serial {
			owner = candidate
		}
	}
	if owner == "" {
		owner = "dm-" + strconv.Itoa(len(m.pathsOf))
		block := "sys/devices/virtual/block/" + owner
		m.write(block+"/size", strconv.FormatInt(found.bytes/512, 10)+"\n")
		m.write(block+"/dev", "253:"+strings.TrimPrefix(owner, "dm-")+"\n")
		m.write(block+"/dm/uuid", "mpath-3600000000000000e00000000"+strconv.Itoa(len(found.serial))+"\n")
		m.write(block+"/dm/name", "mpath"+strings.TrimPrefix(owner, "dm-")+"\n")
		m.mkdir(block + "/holders")
		m.mkdir(block + "/slaves")
		m.link("sys/class/block/"+owner, "../../devices/virtual/block/"+owner)
		m.write("dev/"+owner, "")
	}
	m.pathsOf[owner] = append(m.pathsOf[owner], name)
	m.join(owner, name)
}

// join makes name a path of a map.
func (m *machine) join(owner, name string) {
	m.link("sys/class/block/"+owner+"/slaves/"+name, m.path("sys/class/block", name))
	m.link("sys/class/block/"+name+"/holders/"+owner, m.path("sys/class/block", owner))
}

func (m *machine) flushMap(alias string) error {
	for owner, paths := range m.pathsOf {
		if attribute(m.path("sys/class/block", owner), "dm/name") != alias {
			continue
		}
		for _, name := range paths {
			_ = os.Remove(m.path("sys/class/block", name, "holders", owner))
		}
		delete(m.pathsOf, owner)
		m.remove("sys/class/block/" + owner)
		m.remove("sys/devices/virtual/block/" + owner)
		m.remove("dev/" + owner)
		return nil
	}
	return exitError(1)
}

func (m *machine) growMap(alias string) {
	for owner, paths := range m.pathsOf {
		if attribute(m.path("sys/class/block", owner), "dm/name") == alias {
			m.write("sys/class/block/"+owner+"/size", attribute(m.path("sys/class/block", paths[0]), "size")+"\n")
		}
	}
}

func (m *machine) removeDisk(dir string) {
	names, _ := os.ReadDir(filepath.Join(dir, "block"))
	for _, name := range names {
		_ = os.Remove(m.path("sys/class/block", name.Name()))
		_ = os.Remove(m.path("dev", name.Name()))
	}
	m.check(os.RemoveAll(dir))
}

// rescan reads a disk's size anew, as its target has it now.
func (m *machine) rescan(d disk) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.write("sys/class/block/"+d.name+"/size", strconv.FormatInt(m.targets[d.session.iqn].luns[d.lun].bytes/512, 10)+"\n")
	return nil
}

// loadTree lays out a tree captured from a real machine.
func loadTree(t *testing.T, name string) *machine {
	m := newMachine(t)
	m.remove("proc/self/mountinfo")
	m.remove("proc/net/unix")
	content, err := os.ReadFile(filepath.Join("testdata", name+".tree"))
	require.NoError(t, err)
	for line := range strings.Lines(string(content)) {
		kind, rest, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		switch kind {
		case "#":
		case "dir":
			m.mkdir(rest)
		case "node":
			m.write(rest, "")
		case "link":
			path, target, _ := strings.Cut(rest, " -> ")
			m.link(path, target)
		case "text":
			path, value, _ := strings.Cut(rest, ": ")
			earlier, _ := os.ReadFile(m.path(path)) // several lines of one file
			m.write(path, string(earlier)+value+"\n")
		case "hex":
			path, value, _ := strings.Cut(rest, ": ")
			bytes, err := hex.DecodeString(value)
			require.NoError(t, err)
			m.write(path, string(bytes))
		default:
			t.Fatalf("%s.tree: %q", name, line)
		}
	}
	return m
}
