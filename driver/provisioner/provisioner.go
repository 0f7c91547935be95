// Package provisioner makes a volume on the array and a PersistentVolume for each claim of
// its StorageClasses, and deletes both again when the reclaim policy says so. It is the
// logic of the program datera-provisioner; the claims' controller is
// sig-storage-lib-external-provisioner's.
package provisioner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"datera-flexvolume/datera"
	"datera-flexvolume/driver"
)

const (
	// Name is what a StorageClass says as its provisioner.
	Name = "datera.io/provisioner-datera"
	// annotationProvisionedBy marks a PersistentVolume with the name of its provisioner.
	annotationProvisionedBy = "pv.kubernetes.io/provisioned-by"
	// annotationMadeOn marks a PersistentVolume with array and tenant that its volume was made on.
	annotationMadeOn = "datera.io/made-on"
	// annotationSnapshot, on a claim with another claim as its source, names the snapshot
	// of the source to clone, by its time stamp on the array.
	annotationSnapshot = "datera.io/snapshot"
)

// Provisioner answers the claims' controller.
type Provisioner struct {
	Client kubernetes.Interface
	// Driver is the driver as the configuration says now: it may change under a running provisioner.
	Driver func() *driver.Driver
	// Namespace is the provisioner's own, where its journal is.
	Namespace string
	Events    record.EventRecorder
	Log       *slog.Logger

	busy sync.Map // the names of the PersistentVolumes that are worked on
}

// Provision makes the volume of a claim and returns its PersistentVolume. It can be
// repeated, by this process or another, and goes on where it was cut off.
func (p *Provisioner) Provision(ctx context.Context, options controller.ProvisionOptions) (*v1.PersistentVolume, controller.ProvisioningState, error) {
	// Nothing goes on in the background, and what was begun is in the journal.
	const state = controller.ProvisioningFinished
	release, free := p.workOn(options.PVName)
	if !free {
		return nil, state, fmt.Errorf("volume %s is being worked on: it is tried again", options.PVName)
	}
	defer release()
	begin := time.Now()
	pv, err := p.provision(ctx, options)
	if err != nil {
		return nil, state, oneLine(err)
	}
	p.Log.InfoContext(ctx, "provisioned", "pv", pv.Name, "namespace", options.PVC.Namespace, "claim", options.PVC.Name,
		"volume", pv.Spec.FlexVolume.Options[optVolumeID], "size_gib", pv.Spec.FlexVolume.Options[optSize], "seconds", time.Since(begin).Seconds())
	p.tellSize(options.PVC, pv)
	return pv, state, nil
}

func (p *Provisioner) provision(ctx context.Context, options controller.ProvisionOptions) (*v1.PersistentVolume, error) {
	d := p.Driver()
	pv, err := p.design(ctx, d, options)
	if err != nil {
		return nil, err
	}
	// What cannot be reached is not begun: the journal would hold on to it.
	if volume, err := p.volumeOf(ctx, d, pv); err != nil {
		return nil, err
	} else if _, err := d.IsProvisioned(ctx, volume); err != nil {
		return nil, err
	}
	if pv, err = p.begin(ctx, d, pv); err != nil {
		return nil, err
	}
	volume, err := p.volumeOf(ctx, d, pv)
	if err != nil {
		return nil, err
	}
	sizeGiB, err := d.Provision(ctx, volume)
	if errors.Is(err, datera.ErrNotFound) {
		err = errors.Join(err, p.withdraw(ctx, d, volume))
	}
	if err != nil {
		return nil, err
	}
	setSize(pv, sizeGiB)
	return pv, nil
}

// setSize says how large the volume became.
func setSize(pv *v1.PersistentVolume, sizeGiB int64) {
	pv.Spec.Capacity = v1.ResourceList{v1.ResourceStorage: gibQuantity(sizeGiB)}
	pv.Spec.FlexVolume.Options[optSize] = strconv.FormatInt(sizeGiB, 10)
}

// tellSize tells who made the claim that the volume is larger than was asked for.
func (p *Provisioner) tellSize(claim *v1.PersistentVolumeClaim, pv *v1.PersistentVolume) {
	wanted, made := claim.Spec.Resources.Requests[v1.ResourceStorage], pv.Spec.Capacity[v1.ResourceStorage]
	if made.Cmp(wanted) == 0 {
		return
	}
	why := "the array counts in GiB"
	if pv.Spec.FlexVolume.Options[optSource] != "" {
		why += ", and a clone is not smaller than its source"
	}
	p.Events.Eventf(claim, v1.EventTypeNormal, "VolumeSize", "asked for %s, the volume has %s: %s", wanted.String(), made.String(), why)
}

// Delete deletes the volume of a released PersistentVolume with its data, if it was made
// for it. A volume that is still in use is refused, and tried again by the controller.
func (p *Provisioner) Delete(ctx context.Context, pv *v1.PersistentVolume) error {
	if !isOurs(pv) {
		return fmt.Errorf("PersistentVolume %s was not made by %s (annotation %s is %q): its volume is left alone",
			pv.Name, Name, annotationProvisionedBy, pv.Annotations[annotationProvisionedBy])
	}
	release, free := p.workOn(pv.Name)
	if !free {
		return fmt.Errorf("volume %s is being worked on: it is tried again", pv.Name)
	}
	defer release()
	d := p.Driver()
	volume, err := p.volumeOf(ctx, d, pv)
	if err == nil {
		_, err = isThere(ctx, d, pv, volume, fmt.Sprintf("remove the annotation %s of PersistentVolume %s", annotationMadeOn, pv.Name))
	}
	if err == nil {
		err = d.Reclaim(ctx, volume)
	}
	if err != nil {
		return oneLine(err)
	}
	p.Log.InfoContext(ctx, "deleted", "pv", pv.Name, "volume", volume.AppInstance)
	return nil
}

// isOurs reports whether a PersistentVolume says that it was made by this provisioner. What
// proves it is on the array.
func isOurs(pv *v1.PersistentVolume) bool {
	return pv.Annotations[annotationProvisionedBy] == Name && pv.Spec.FlexVolume != nil && pv.Spec.FlexVolume.Driver == driver.DriverName
}

// SupportsBlock lets claims for raw block volumes through to Provision, which says better
// than the controller why there are none.
func (p *Provisioner) SupportsBlock(context.Context) bool { return true }

// workOn keeps this process from working on one volume twice at a time.
func (p *Provisioner) workOn(pv string) (release func(), free bool) {
	_, taken := p.busy.LoadOrStore(pv, true)
	return func() { p.busy.Delete(pv) }, !taken
}

// oneLine makes of several errors, one to a line, the text of an event.
func oneLine(err error) error {
	if !strings.Contains(err.Error(), "\n") {
		return err
	}
	return fmt.Errorf("%s", strings.ReplaceAll(err.Error(), "\n", "; "))
}
