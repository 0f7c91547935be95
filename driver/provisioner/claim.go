package provisioner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"datera-flexvolume/driver"
)

const gib = 1 << 30

func gibQuantity(size int64) resource.Quantity {
	return *resource.NewQuantity(size*gib, resource.BinarySI)
}

// design is the PersistentVolume that a claim and its class ask for, checked as far as that
// is possible without making anything.
func (p *Provisioner) design(ctx context.Context, d *driver.Driver, options controller.ProvisionOptions) (*v1.PersistentVolume, error) {
	claim, class := options.PVC, options.StorageClass
	if err := errors.Join(checkClaim(claim, class.Parameters[optSource] != ""), checkClass(class)); err != nil {
		return nil, err
	}
	pv := draft(options)
	volume, err := p.volumeOf(ctx, d, pv)
	if err != nil {
		return nil, fmt.Errorf("StorageClass %s: %w", class.Name, err)
	}
	pv.Spec.FlexVolume.FSType, pv.Spec.FlexVolume.Options[optVolumeID] = volume.Filesystem, volume.AppInstance
	if volume.Secret != nil && volume.Secret.Server != (driver.Server{}) && volume.Server == (driver.Server{}) {
		// The nodes must look for it on the array that it is made on, and not on their own.
		pv.Spec.FlexVolume.Options[optServer] = volume.Secret.Server.String()
	}
	if pv.Annotations[annotationMadeOn], err = d.PlaceOf(volume); err != nil {
		return nil, err
	}
	if sourceOf(claim) == nil {
		return pv, nil
	}
	path, err := p.source(ctx, d, claim, pv, volume)
	if err != nil {
		return nil, err
	}
	pv.Spec.FlexVolume.Options[optSource] = path
	_, err = p.volumeOf(ctx, d, pv)
	return pv, err
}

// draft is the PersistentVolume as it will be, but for what a source or a secret adds.
func draft(options controller.ProvisionOptions) *v1.PersistentVolume {
	claim, class := options.PVC, options.StorageClass
	request := claim.Spec.Resources.Requests[v1.ResourceStorage]
	sizeGiB := driver.RoundUpGiB(request.Value())
	flex := &v1.FlexPersistentVolumeSource{
		Driver:    driver.DriverName,
		FSType:    class.Parameters[paramFSType],
		SecretRef: secretOf(class),
		ReadOnly:  onlyReads(claim),
		Options:   optionsOf(class),
	}
	flex.Options[optProvisioned] = "true"
	flex.Options[optSize] = strconv.FormatInt(sizeGiB, 10)
	filesystem := v1.PersistentVolumeFilesystem
	return &v1.PersistentVolume{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolume"},
		ObjectMeta: metav1.ObjectMeta{
			Name:        options.PVName,
			Annotations: map[string]string{annotationProvisionedBy: Name},
		},
		Spec: v1.PersistentVolumeSpec{
			Capacity:                      v1.ResourceList{v1.ResourceStorage: gibQuantity(sizeGiB)},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: reclaimPolicy(class),
			StorageClassName:              class.Name,
			VolumeMode:                    &filesystem,
			ClaimRef: &v1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			PersistentVolumeSource: v1.PersistentVolumeSource{FlexVolume: flex},
		},
	}
}

func onlyReads(claim *v1.PersistentVolumeClaim) bool {
	return len(claim.Spec.AccessModes) > 0 &&
		!slices.ContainsFunc(claim.Spec.AccessModes, func(mode v1.PersistentVolumeAccessMode) bool { return mode != v1.ReadOnlyMany })
}

// checkClaim refuses what no volume of the array can be, and says what can.
func checkClaim(claim *v1.PersistentVolumeClaim, classHasSource bool) error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	spec := claim.Spec
	if spec.VolumeMode != nil && *spec.VolumeMode == v1.PersistentVolumeBlock {
		refuse("volumeMode Block: FlexVolume knows file systems only; use volumeMode Filesystem")
	}
	if slices.Contains(spec.AccessModes, v1.ReadWriteMany) {
		refuse("access mode ReadWriteMany: xfs and ext4 are written by one node at a time; use ReadWriteOnce, or ReadOnlyMany for a clone")
	}
	hasSource := sourceOf(claim) != nil
	if onlyReads(claim) && !hasSource && !classHasSource {
		refuse("access mode ReadOnlyMany alone: a new volume is blank, and nobody could ever write to it; give the claim a dataSource, or use ReadWriteOnce")
	}
	if spec.Selector != nil {
		refuse("selector: it chooses among existing PersistentVolumes, and this one is made for the claim; leave it out")
	}
	if spec.VolumeAttributesClassName != nil && *spec.VolumeAttributesClassName != "" {
		refuse("volumeAttributesClassName %s: it is for CSI drivers; limits and placement are parameters of the StorageClass", *spec.VolumeAttributesClassName)
	}
	request, limit := spec.Resources.Requests[v1.ResourceStorage], spec.Resources.Limits[v1.ResourceStorage]
	if size := gibQuantity(driver.RoundUpGiB(request.Value())); !limit.IsZero() && size.Cmp(limit) > 0 {
		refuse("the array counts in GiB: %s becomes %s, which is more than the claim's limit of %s", request.String(), size.String(), limit.String())
	}
	if hasSource && classHasSource {
		refuse("the claim has a dataSource and its StorageClass a %s: one volume has one source", optSource)
	}
	if _, given := claim.Annotations[annotationSnapshot]; given && !hasSource {
		refuse("annotation %s needs a dataSource: the claim whose snapshot it is", annotationSnapshot)
	}
	return errors.Join(append(errs, checkSource(claim))...)
}
