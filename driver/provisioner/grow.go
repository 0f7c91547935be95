package provisioner

import (
	"context"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"datera-flexvolume/driver"
)

// When a claim grows, Kubernetes writes the new size into its PersistentVolume (the expand
// controller calls no FlexVolume driver) and has kubelet grow the file system. The driver
// on the node grows the volume on the array, too, if it has credentials. The grower does it
// from here, so that no node needs them.

// grower grows volumes on the array as their claims grow.
type grower struct {
	provisioner *Provisioner
	volumes     cache.SharedIndexInformer
	claims      cache.SharedIndexInformer
	queue       workqueue.TypedRateLimitingInterface[string]
}

func newGrower(p *Provisioner, factory informers.SharedInformerFactory, limiter workqueue.TypedRateLimiter[string]) *grower {
	g := &grower{
		provisioner: p,
		volumes:     factory.Core().V1().PersistentVolumes().Informer(),
		claims:      factory.Core().V1().PersistentVolumeClaims().Informer(),
		queue:       workqueue.NewTypedRateLimitingQueue(limiter),
	}
	look := func(before, now any) {
		old, _ := before.(*v1.PersistentVolume)
		pv, _ := now.(*v1.PersistentVolume)
		if pv != nil && (old == nil || old.Spec.Capacity.Storage().Cmp(*pv.Spec.Capacity.Storage()) < 0) {
			g.queue.Add(pv.Name)
		}
	}
	// The two lists come by ways of their own: a volume may be seen to have grown before its claim is seen to be bound.
	lookAtClaim := func(before, now any) {
		old, _ := before.(*v1.PersistentVolumeClaim)
		claim, _ := now.(*v1.PersistentVolumeClaim)
		if claim != nil && claim.Status.Phase == v1.ClaimBound && (old == nil || old.UID != claim.UID || old.Status.Phase != v1.ClaimBound) {
			g.queue.Add(claim.Spec.VolumeName)
		}
	}
	// It fails for an informer that has ended, and these have not begun.
	_, _ = g.volumes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(pv any) { look(nil, pv) },
		UpdateFunc: look,
	})
	_, _ = g.claims.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(claim any) { lookAtClaim(nil, claim) },
		UpdateFunc: lookAtClaim,
	})
	return g
}

// run grows until ctx is done, so many volumes at a time.
func (g *grower) run(ctx context.Context, workers int) {
	defer context.AfterFunc(ctx, g.queue.ShutDown)()
	if !cache.WaitForCacheSync(ctx.Done(), g.volumes.HasSynced, g.claims.HasSynced) {
		return
	}
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for g.next(ctx) {
			}
		})
	}
	running.Wait()
}

// next takes one volume from the queue; false: there will be none any more.
func (g *grower) next(ctx context.Context) bool {
	name, over := g.queue.Get()
	if over {
		return false
	}
	defer g.queue.Done(name)
	pv, claim := g.outgrown(name)
	if pv == nil {
		g.queue.Forget(name)
		return true
	}
	if err := g.provisioner.grow(ctx, pv); err != nil {
		g.provisioner.Events.Event(claim, v1.EventTypeWarning, "VolumeResizeFailed", oneLine(err).Error())
		g.queue.AddRateLimited(name)
		return true
	}
	g.queue.Forget(name)
	return true
}

// outgrown is a PersistentVolume of ours that is to be larger than its claim has seen it
// yet, and the claim; nil if it is not.
func (g *grower) outgrown(name string) (*v1.PersistentVolume, *v1.PersistentVolumeClaim) {
	object, _, _ := g.volumes.GetStore().GetByKey(name)
	pv, _ := object.(*v1.PersistentVolume)
	if pv == nil || !isOurs(pv) || pv.Spec.ClaimRef == nil {
		return nil, nil
	}
	object, _, _ = g.claims.GetStore().GetByKey(pv.Spec.ClaimRef.Namespace + "/" + pv.Spec.ClaimRef.Name)
	claim, _ := object.(*v1.PersistentVolumeClaim)
	if claim == nil || claim.UID != pv.Spec.ClaimRef.UID || claim.Status.Phase != v1.ClaimBound {
		return nil, nil
	}
	wanted, seen := pv.Spec.Capacity[v1.ResourceStorage], claim.Status.Capacity[v1.ResourceStorage]
	if wanted.Cmp(seen) <= 0 {
		return nil, nil
	}
	return pv, claim
}

// grow makes the volume on the array as large as its PersistentVolume says.
func (p *Provisioner) grow(ctx context.Context, pv *v1.PersistentVolume) error {
	ctx, cancel := context.WithTimeout(ctx, driver.CallDeadline)
	defer cancel()
	begin := time.Now()
	d := p.Driver()
	volume, err := p.volumeOf(ctx, d, pv)
	if err != nil {
		return err
	}
	wanted := pv.Spec.Capacity[v1.ResourceStorage]
	size, err := d.Grow(ctx, volume, wanted.Value())
	if err != nil {
		return err
	}
	p.Log.InfoContext(ctx, "grown", "pv", pv.Name, "volume", volume.AppInstance, "size_gib", size/gib, "seconds", time.Since(begin).Seconds())
	return nil
}
