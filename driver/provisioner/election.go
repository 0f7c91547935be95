package provisioner

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// leaseName is the Lease by which the replicas agree on who works.
const leaseName = "datera-provisioner"

// election decides when to work.
type election interface {
	// run works while leading, until ctx is done.
	run(ctx context.Context, work func(context.Context)) error
	IsLeader() bool
	GetLeader() string
	// Check fails for a leader whose Lease ran out longer ago than is tolerable, and who has not noticed.
	Check(tolerable time.Duration) error
}

// alone is the election of a provisioner that has no replicas.
type alone struct{}

func (alone) run(ctx context.Context, work func(context.Context)) error {
	work(ctx)
	return nil
}
func (alone) IsLeader() bool            { return true }
func (alone) GetLeader() string         { return "" }
func (alone) Check(time.Duration) error { return nil }

// leaseElection is an election by a Lease.
type leaseElection struct {
	*leaderelection.LeaderElector
	lease string
	lead  func(context.Context)
}

func (s Settings) election() (election, error) {
	if !s.LeaderElect {
		return alone{}, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	lock, err := resourcelock.New(resourcelock.LeasesResourceLock, s.Namespace, leaseName, s.Client.CoreV1(), s.Client.CoordinationV1(),
		resourcelock.ResourceLockConfig{Identity: host + "_" + uuid.NewString()})
	if err != nil {
		return nil, err
	}
	e := &leaseElection{lease: s.Namespace + "/" + leaseName}
	e.LeaderElector, err = leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, Name: leaseName, ReleaseOnCancel: true,
		LeaseDuration: s.pace.lease, RenewDeadline: s.pace.renew, RetryPeriod: s.pace.poll,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) { e.lead(ctx) },
			OnStoppedLeading: func() {},
		},
	})
	return e, err
}

// run gives the Lease back when the work has ended, and not before. A Lease that is lost is
// an error: the process must not go on.
func (e *leaseElection) run(ctx context.Context, work func(context.Context)) error {
	electing, end := context.WithCancel(context.WithoutCancel(ctx)) // it outlives ctx
	defer end()
	e.lead = func(leading context.Context) {
		defer end()
		leading, cancel := context.WithCancel(leading)
		defer context.AfterFunc(ctx, cancel)()
		work(leading)
	}
	defer context.AfterFunc(ctx, func() {
		if !e.IsLeader() {
			end() // a leader ends when its work has
		}
	})()
	e.Run(electing)
	if ctx.Err() == nil {
		return fmt.Errorf("the Lease %s was lost: another provisioner may lead now", e.lease)
	}
	return nil
}
