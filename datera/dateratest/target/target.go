// Package target serves files as iSCSI targets, in the way a Datera storage node does.
//
// A [Backend] is level-triggered: it is told how one target shall be and makes it so, whatever is there.
package target

import (
	"context"
	"net/netip"
)

// What an initiator reads of a volume; the unit serial number is the volume's UUID.
const (
	vendor   = "DATERA"
	product  = "IBLOCK"
	revision = "4.0"
)

// Target is one iSCSI target as it shall be.
type Target struct {
	IQN        string
	Portals    []Portal
	LUNs       []LUN
	AllowAll   bool
	Initiators []string // IQNs that may log in unless AllowAll
	Auth       Auth
}

// Portal is an address that a target is reached at. One that is down keeps its place in the list.
type Portal struct {
	Address netip.AddrPort
	Down    bool
}

// LUN is one volume. Its number is its place in the list, counted from the back end's first.
type LUN struct {
	Serial string // SCSI unit serial number
	File   string // backing file, absolute; it is there and at least Size long
	Size   int64  // bytes
}

// Auth is what CHAP asks for. Without a User there is no CHAP, without a MutualUser it goes one way.
type Auth struct {
	User, Password             string // what the initiator presents
	MutualUser, MutualPassword string // what the target presents in return
}

// Backend makes targets. Only Sessions may be called while another method runs.
type Backend interface {
	// Name is for people: "lio" or "tgt".
	Name() string
	// FirstLUN is the number of the first LUN of a target.
	FirstLUN() int
	// Open makes the back end ready to serve files of a folder at these portals. What an earlier run left behind
	// is removed: targets whose IQN begins with prefix, and whatever else serves a file of the folder.
	Open(ctx context.Context, dir, prefix string, portals []netip.AddrPort) error
	// Apply makes a target be as described. Sessions of hosts that may not log in any more, and those through
	// portals that are down, have ended when it returns.
	Apply(ctx context.Context, t Target) error
	// Remove ends all sessions of a target and removes it; one that is not there is no error.
	Remove(ctx context.Context, iqn string) error
	// Sessions are the IQNs of the hosts that are logged in, by target IQN.
	Sessions(ctx context.Context) (map[string][]string, error)
	// Close removes everything that the back end made.
	Close(ctx context.Context) error
}
