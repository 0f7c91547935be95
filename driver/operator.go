package driver

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"

	"datera-flexvolume/datera"
	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// How the array's targets and disks can be told from others.
const (
	targetPrefix = "iqn.2013-05.com.daterainc:"
	diskVendor   = "DATERA"
	diskProduct  = "IBLOCK"
)

// Operator answers people at a shell: what is on this node (Status), what is wrong with it (Doctor), what a crash has
// left behind (Leftovers, Reap). It works on what the driver's calls work on, by the same code and under the same locks.
type Operator struct {
	*Driver
	Node     NodeInitiator
	Mounts   NodeMounts
	Programs Programs
	Host     Host
	// OpenProbe is OpenArray without a session key of earlier calls, so that user and password are really tried.
	OpenProbe func(scheme string, credentials Credentials, tenant string) (ArrayProbe, error)
	// AskCluster is for the identity of the cluster that this process runs in; nil: in none.
	AskCluster func(context.Context) (string, error)
}

// NodeInitiator is what the verbs for people need of the initiator.
type NodeInitiator interface {
	Sessions() ([]iscsi.Session, error)
	Records() ([]iscsi.Record, error)
	DeleteRecords(ctx context.Context, iqn string) error
	StaleLock() (path string, stale bool)
	BreakStaleLock(ctx context.Context) error
	CheckDaemon() error
	DaemonRuns() bool
	Versions(ctx context.Context) (iscsi.Versions, error)
	Multipath(vendor, product string) (iscsi.Multipath, error)
	Reach(ctx context.Context, portal iscsi.Portal) error
}

// NodeMounts is what they need of the mounts.
type NodeMounts interface {
	All() ([]mount.Mount, error)
	Trouble(ctx context.Context, mounted mount.Mount) error
	Holding(path string) (mount.Mount, error)
	Users(ctx context.Context, devices ...string) ([]string, error)
}

// Programs starts programs, to ask their versions.
type Programs interface {
	Run(ctx context.Context, program string, args ...string) ([]byte, error)
}

// ArrayProbe is what Doctor asks the array.
type ArrayProbe interface {
	Server() string
	About(ctx context.Context) (datera.About, error)
	Initiator(ctx context.Context, iqn string) (*datera.Initiator, error)
	InitiatorByName(ctx context.Context, name string) (*datera.Initiator, error)
	Initiators(ctx context.Context) ([]datera.Initiator, error)
	InitiatorGroupsWithPrefix(ctx context.Context, prefix string) ([]datera.InitiatorGroup, error)
	AppInstanceOutlines(ctx context.Context) ([]datera.AppInstance, error)
	Tenants(ctx context.Context) ([]string, error)
}

// scene is what the kernel shows at one moment.
type scene struct {
	sessions []iscsi.Session
	mounts   []mount.Mount
}

func (o *Operator) look() (scene, error) {
	sessions, err := o.Node.Sessions()
	if err != nil {
		return scene{}, err
	}
	mounts, err := o.Mounts.All()
	return scene{sessions, mounts}, err
}

// lun is a LUN of a target as a key.
type lun struct {
	iqn    string
	number int
	serial string
}

func lunOf(target iscsi.Target) lun { return lun{target.IQN, target.LUN, target.Serial} }

// disks are those of a LUN, of all its sessions.
func (s scene) disks(l lun) []iscsi.Disk {
	var disks []iscsi.Disk
	for _, session := range s.sessions {
		for _, disk := range session.Disks {
			if (lun{session.IQN, disk.LUN, disk.Serial}) == l {
				disks = append(disks, disk)
			}
		}
	}
	return disks
}

// sessionsOf are those with one target.
func (s scene) sessionsOf(iqn string) []iscsi.Session {
	var sessions []iscsi.Session
	for _, session := range s.sessions {
		if session.IQN == iqn {
			sessions = append(sessions, session)
		}
	}
	return sessions
}

// mountsOf are those of disks, and of what stands on them.
func (s scene) mountsOf(disks []iscsi.Disk) []mount.Mount {
	numbers := map[string]bool{}
	for _, disk := range disks {
		numbers[disk.Number] = true
		for _, layer := range disk.Layers {
			numbers[layer.Number] = true
		}
	}
	var mounts []mount.Mount
	for _, mounted := range s.mounts {
		if numbers[numberOf(mounted)] {
			mounts = append(mounts, mounted)
		}
	}
	return mounts
}

func numberOf(mounted mount.Mount) string { return fmt.Sprintf("%d:%d", mounted.Major, mounted.Minor) }

// OfTheArray tells whether a target is one of the array's, by its name.
func OfTheArray(iqn string) bool { return strings.HasPrefix(iqn, targetPrefix) }

// guarded makes a panic an error: one check or one leftover must not hide the others.
func (o *Operator) guarded(ctx context.Context, work func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			o.Log.ErrorContext(ctx, "panic", "cause", cause, "stack", string(debug.Stack()))
			err = fmt.Errorf("fault in the driver itself: %v; stderr has the details", cause)
		}
	}()
	return work()
}
