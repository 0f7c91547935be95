package iscsi

import (
	"cmp"
	"slices"
)

// Session is an iSCSI session of this machine, whoever logged in.
type Session struct {
	ID     int
	IQN    string
	Portal Portal // as the login was asked for; "" while the kernel does not know it
	State  string // LOGGED_IN; FAILED while the connection is lost; FREE before and after
	Disks  []Disk
}

// Up tells whether I/O goes through.
func (s Session) Up() bool { return s.State == loggedIn }

// Disk is a SCSI disk of a session.
type Disk struct {
	Path   string // /dev/sdb
	Number string // 8:16, as mountinfo names it
	LUN    int
	Vendor string // as the target says
	Serial string // "" when the kernel could not read it
	State  string // running, blocked while the session is lost, offline when the kernel gave it up, …
	Bytes  int64
	Layers []Layer // block devices that stand on it, one on the other
}

// Layer is a block device that stands on a disk: its multipath map, a partition, or another one.
type Layer struct {
	Path      string
	Number    string
	Multipath bool
}

// Sessions lists all sessions, the oldest first. It starts no program.
func (i *Initiator) Sessions() ([]Session, error) {
	all, err := i.sessionsWith(func(string) bool { return true })
	if err != nil {
		return nil, err
	}
	sessions := make([]Session, 0, len(all))
	for _, s := range all {
		listed := Session{ID: s.id, IQN: s.iqn, Portal: cmp.Or(s.persistent, s.current), State: s.state}
		for _, d := range s.disks() {
			if d.name != "" {
				listed.Disks = append(listed.Disks, i.describe(d))
			}
		}
		sessions = append(sessions, listed)
	}
	return sessions, nil
}

func (i *Initiator) describe(d disk) Disk {
	described := Disk{
		Path: i.node(d.name), Number: attribute(i.block(d.name), "dev"), LUN: plainLUN(d.lun),
		Vendor: attribute(d.dir, "vendor"), State: d.state(),
	}
	described.Serial, _ = d.serial()
	described.Bytes, _ = i.bytes(d.name)
	seen := []string{d.name}
	for n := 0; n < len(seen); n++ {
		for _, above := range append(i.holders(seen[n]), i.partitions(seen[n])...) {
			if slices.Contains(seen, above) {
				continue
			}
			seen = append(seen, above)
			described.Layers = append(described.Layers, Layer{
				Path: i.node(above), Number: attribute(i.block(above), "dev"), Multipath: i.isMap(above),
			})
		}
	}
	return described
}
