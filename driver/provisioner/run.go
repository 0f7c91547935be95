package provisioner

import (
	"context"
	"log/slog"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller/metrics"

	"datera-flexvolume/driver"
)

// Settings is what the program's flags say.
type Settings struct {
	Client       kubernetes.Interface
	Driver       func() *driver.Driver // see Provisioner.Driver
	Namespace    string                // the provisioner's own: Lease and journal are there
	LeaderElect  bool
	HealthListen string // host:port of /healthz and /metrics; empty: none
	Workers      int    // claims, and volumes to delete, that are worked on at a time
	Log          *slog.Logger

	pace pace
}

// pace is how long what takes.
type pace struct {
	retry, longestRetry time.Duration // between attempts at a claim or a deletion
	journal             time.Duration // between looks through the journal
	lease, renew, poll  time.Duration // of the election
}

// The election's times are those of Kubernetes' own controllers: a leader that dies is
// followed within 15 s, one that stops within 2 s.
func defaultPace() pace {
	return pace{
		retry: time.Second, longestRetry: 5 * time.Minute, journal: time.Minute,
		lease: 15 * time.Second, renew: 10 * time.Second, poll: 2 * time.Second,
	}
}

// Run provisions until ctx is done, which is no error; what is under way is ended first.
func Run(ctx context.Context, settings Settings) error {
	s := settings
	if s.pace == (pace{}) {
		s.pace = defaultPace()
	}
	ctx = klog.NewContext(ctx, klog.Background())
	measures := metrics.New("controller")
	election, err := s.election()
	if err != nil {
		return err
	}
	stop, err := serveHealth(s, measures, election)
	if err != nil {
		return err
	}
	defer stop()
	return election.run(ctx, func(ctx context.Context) { s.work(ctx, measures) })
}

// work provisions until ctx is done.
func (s Settings) work(ctx context.Context, measures metrics.Metrics) {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedv1.EventSinkImpl{Interface: s.Client.CoreV1().Events(v1.NamespaceAll)})
	defer broadcaster.Shutdown()
	p := &Provisioner{
		Client: s.Client, Driver: s.Driver, Namespace: s.Namespace, Log: s.Log,
		Events: broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: Name}),
	}
	factory := informers.NewSharedInformerFactory(s.Client, controller.DefaultResyncPeriod)
	defer factory.Shutdown()
	grower := newGrower(p, factory, s.patience())
	claims := s.claims(ctx, p, factory, measures)
	var workers sync.WaitGroup
	claims.ControllerWaitGroup(&workers)
	factory.Start(ctx.Done())
	workers.Go(func() { s.keepJournal(ctx, p) })
	workers.Go(func() { grower.run(ctx, s.Workers) })
	s.Log.InfoContext(ctx, "provisioning", "provisioner", Name, "namespace", s.Namespace)
	claims.Run(ctx)
	workers.Wait()
}

// patience tries again for ever, and each claim by itself: one that cannot be satisfied
// holds up no other.
func (s Settings) patience() workqueue.TypedRateLimiter[string] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[string](s.pace.retry, s.pace.longestRetry)
}

// claims is the claims' controller.
func (s Settings) claims(ctx context.Context, p *Provisioner, factory informers.SharedInformerFactory, measures metrics.Metrics) *controller.ProvisionController {
	return controller.NewProvisionController(ctx, s.Client, Name, p,
		controller.LeaderElection(false), // ours gives the Lease back
		controller.ClaimsInformer(factory.Core().V1().PersistentVolumeClaims().Informer()),
		controller.VolumesInformer(factory.Core().V1().PersistentVolumes().Informer()),
		controller.Threadiness(s.Workers),
		controller.RateLimiter(s.patience()),
		controller.CreateProvisionedPVLimiter(s.patience()),
		controller.FailedProvisionThreshold(0),
		controller.FailedDeleteThreshold(0),
		controller.ProvisionTimeout(driver.CallDeadline),
		controller.DeletionTimeout(driver.CallDeadline),
		controller.AddFinalizer(true),
		controller.MetricsInstance(measures),
	)
}

// keepJournal looks through the journal, at once and from time to time.
func (s Settings) keepJournal(ctx context.Context, p *Provisioner) {
	ticker := time.NewTicker(s.pace.journal)
	defer ticker.Stop()
	for {
		if err := p.FinishInterrupted(ctx); err != nil && ctx.Err() == nil {
			s.Log.ErrorContext(ctx, "the journal could not be worked off; it is tried again", "err", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
