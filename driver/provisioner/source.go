package provisioner

import (
	"cmp"
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"datera-flexvolume/driver"
)

const kindClaim = "PersistentVolumeClaim"

// dataSource is where a claim wants its data from: spec.dataSource, or spec.dataSourceRef,
// which is the same for newer kinds.
type dataSource struct {
	group, kind, name, namespace string
}

func sourceOf(claim *v1.PersistentVolumeClaim) *dataSource {
	switch spec := claim.Spec; {
	case spec.DataSourceRef != nil:
		return &dataSource{deref(spec.DataSourceRef.APIGroup), spec.DataSourceRef.Kind, spec.DataSourceRef.Name, deref(spec.DataSourceRef.Namespace)}
	case spec.DataSource != nil:
		return &dataSource{deref(spec.DataSource.APIGroup), spec.DataSource.Kind, spec.DataSource.Name, ""}
	}
	return nil
}

func deref(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}

// checkSource knows one kind of source: another claim of the namespace.
func checkSource(claim *v1.PersistentVolumeClaim) error {
	source := sourceOf(claim)
	switch {
	case source == nil:
		return nil
	case source.namespace != "" && source.namespace != claim.Namespace:
		return fmt.Errorf("dataSourceRef of namespace %s: a volume is cloned within its namespace", source.namespace)
	case source.kind == kindClaim && source.group == "":
		return nil
	case source.kind == "VolumeSnapshot":
		return fmt.Errorf("dataSource VolumeSnapshot %s: VolumeSnapshots are CSI's; to clone a snapshot of the array, give the claim whose volume it is of "+
			"as the dataSource, and the snapshot's time stamp in the annotation %s", source.name, annotationSnapshot)
	}
	return fmt.Errorf("dataSource %s %s: accepted is a %s", source.kind, source.name, kindClaim)
}

// source is the path on the array of what the claim's volume is to be a clone of: the
// volume of another claim, or a snapshot of it. Only what belongs to a claim of the
// namespace can be named, so nobody reads another's data.
func (p *Provisioner) source(ctx context.Context, d *driver.Driver, claim *v1.PersistentVolumeClaim, clone *v1.PersistentVolume, volume driver.Volume) (string, error) {
	name := sourceOf(claim).name
	pv, err := p.volumeOfClaim(ctx, claim.Namespace, name)
	if err != nil {
		return "", fmt.Errorf("dataSource %s: %w", name, err)
	}
	if template := clone.Spec.FlexVolume.Options[optTemplate]; template != "" {
		return "", fmt.Errorf("dataSource %s: the StorageClass names template %s, and a clone has its source's layout: use a class without one", name, template)
	}
	source, err := p.volumeOf(ctx, d, pv)
	if err != nil {
		return "", fmt.Errorf("dataSource %s, PersistentVolume %s: %w", name, pv.Name, err)
	}
	if source.Filesystem != volume.Filesystem {
		return "", fmt.Errorf("dataSource %s holds %s, but the StorageClass says %s %s: use a class with the source's file system",
			name, source.Filesystem, paramFSType, volume.Filesystem)
	}
	path, err := d.SourceOf(ctx, source, volume)
	if err != nil {
		return "", fmt.Errorf("dataSource %s: %w", name, err)
	}
	if stamp, given := claim.Annotations[annotationSnapshot]; given {
		path += "/snapshots/" + stamp
	}
	return path, nil
}

// volumeOfClaim is the PersistentVolume to which a claim is bound.
func (p *Provisioner) volumeOfClaim(ctx context.Context, namespace, name string) (*v1.PersistentVolume, error) {
	claim, err := p.Client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("there is no such claim in namespace %s", namespace)
	}
	if err != nil {
		return nil, err
	}
	if claim.Spec.VolumeName == "" || claim.Status.Phase != v1.ClaimBound {
		return nil, fmt.Errorf("that claim is %s: it is cloned when it is bound", cmp.Or(string(claim.Status.Phase), string(v1.ClaimPending)))
	}
	pv, err := p.Client.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if pv.Spec.FlexVolume == nil || pv.Spec.FlexVolume.Driver != driver.DriverName {
		return nil, fmt.Errorf("its PersistentVolume %s is not of driver %s", pv.Name, driver.DriverName)
	}
	return pv, nil
}
