package iscsi

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// session is an iSCSI session as /sys/class/iscsi_session has it (Documentation: scsi_transport_iscsi.c).
type session struct {
	id         int
	dir        string // …/hostH/sessionN, above its connections and SCSI devices
	class      string // /sys/class/iscsi_session/sessionN
	host       int    // number of the SCSI host
	targetID   int    // the target's number on that host
	iqn        string
	state      string
	persistent Portal // as the login was asked for
	current    Portal // as it is connected; differs when the target redirected the login or moved
}

// loggedIn is the state of a session whose I/O goes through. FAILED is a lost connection, FREE one that is not there yet
// or any more.
const loggedIn = "LOGGED_IN"

func (s session) live() bool { return s.state == loggedIn }

// at tells whether this is the session to a portal in canonical spelling.
func (s session) at(portal Portal) bool { return s.persistent == portal || s.current == portal }

func (s session) String() string {
	return fmt.Sprintf("session %d (%s, %s)", s.id, s.persistent, s.state)
}

// sessions are those with one target, the oldest first.
func (i *Initiator) sessions(iqn string) ([]session, error) {
	return i.sessionsWith(func(target string) bool { return SameName(target, iqn) })
}

// sessionsWith are those with the targets that are wanted, the oldest first.
func (i *Initiator) sessionsWith(wanted func(iqn string) bool) ([]session, error) {
	class := filepath.Join(i.opt.SysRoot, "class", "iscsi_session")
	entries, err := os.ReadDir(class)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the kernel's iSCSI modules are not loaded: no session
	}
	if err != nil {
		return nil, fmt.Errorf("list iSCSI sessions: %w", err)
	}
	var found []session
	for _, entry := range entries {
		path := filepath.Join(class, entry.Name())
		if !wanted(attribute(path, "targetname")) {
			continue
		}
		if s, ok := readSession(path); ok {
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(a, b session) int { return cmp.Compare(a.id, b.id) })
	return found, nil
}

// readSession reads one session's directory; false when it is going away meanwhile.
func readSession(class string) (session, bool) {
	dir, err := filepath.EvalSymlinks(filepath.Join(class, "device"))
	if err != nil {
		return session{}, false
	}
	id, idErr := numberAfter("session", filepath.Base(dir))
	host, hostErr := numberAfter("host", filepath.Base(filepath.Dir(dir)))
	if idErr != nil || hostErr != nil {
		return session{}, false
	}
	s := session{
		id: id, dir: dir, class: class, host: host,
		iqn:   attribute(class, "targetname"),
		state: attribute(class, "state"),
	}
	s.targetID, _ = strconv.Atoi(attribute(class, "target_id")) // old kernels do not tell; software iSCSI has 0 only
	if connections, _ := filepath.Glob(filepath.Join(dir, "connection*", "iscsi_connection", "*")); len(connections) > 0 {
		s.persistent = portalOf(attribute(connections[0], "persistent_address"), attribute(connections[0], "persistent_port"))
		s.current = portalOf(attribute(connections[0], "address"), attribute(connections[0], "port"))
	}
	return s, true
}

// portalOf is "" when the kernel does not know it (yet).
func portalOf(address, port string) Portal {
	portal, err := canonical(net.JoinHostPort(address, port))
	if err != nil {
		return ""
	}
	return portal
}

// alive reads a session's state anew: false when it is gone.
func (s session) alive() (session, bool) {
	now, ok := readSession(s.class)
	return now, ok && now.iqn == s.iqn
}

// attribute is a sysfs file's content without its line end; "" when it cannot be read, or the kernel has no value.
func attribute(dir, name string) string {
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	value := strings.TrimSpace(string(content))
	if value == "(null)" {
		return ""
	}
	return value
}

func numberAfter(prefix, text string) (int, error) {
	digits, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return 0, fmt.Errorf("%q does not begin with %q", text, prefix)
	}
	return strconv.Atoi(digits)
}
