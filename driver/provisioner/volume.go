package provisioner

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"datera-flexvolume/driver"
)

// volumeOf reads a PersistentVolume as the driver does on a node.
func (p *Provisioner) volumeOf(ctx context.Context, d *driver.Driver, pv *v1.PersistentVolume) (driver.Volume, error) {
	flex := pv.Spec.FlexVolume
	secret, err := p.secret(ctx, secretRefOf(pv))
	if err != nil {
		return driver.Volume{}, err
	}
	return driver.ParseVolume(driver.OptionsOf(pv.Name, flex.FSType, flex.ReadOnly, flex.Options, secret), d.Config.Cluster)
}

// isThere reports whether the volume of a PersistentVolume is on the array. Not to find it
// proves nothing where the configuration leads elsewhere by now. remedy is for a volume
// that is nowhere.
func isThere(ctx context.Context, d *driver.Driver, pv *v1.PersistentVolume, volume driver.Volume, remedy string) (bool, error) {
	there, err := d.IsProvisioned(ctx, volume)
	if there || err != nil {
		return there, err
	}
	made := pv.Annotations[annotationMadeOn]
	place, err := d.PlaceOf(volume)
	if err != nil || made == "" || made == place {
		return false, err
	}
	return false, fmt.Errorf("volume %s belongs on %s; the configuration leads to %s now, where it is not: nothing is deleted or forgotten; "+
		"let the configuration lead back or, if the volume is not there, %s", volume.AppInstance, made, place, remedy)
}

// secretRefOf fills in the namespace as kubelet does: where none is said, it is the pod's.
func secretRefOf(pv *v1.PersistentVolume) *v1.SecretReference {
	ref := pv.Spec.FlexVolume.SecretRef
	if ref == nil || ref.Namespace != "" || pv.Spec.ClaimRef == nil {
		return ref
	}
	return &v1.SecretReference{Name: ref.Name, Namespace: pv.Spec.ClaimRef.Namespace}
}

func (p *Provisioner) secret(ctx context.Context, ref *v1.SecretReference) (map[string][]byte, error) {
	if ref == nil {
		return nil, nil
	}
	secret, err := p.Client.CoreV1().Secrets(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsForbidden(err):
		return nil, fmt.Errorf("the provisioner may not read Secret %s/%s: allow it with a Role and a RoleBinding in namespace %s: %w", ref.Namespace, ref.Name, ref.Namespace, err)
	case err != nil:
		return nil, fmt.Errorf("read Secret %s/%s: %w", ref.Namespace, ref.Name, err)
	case secret.Type != driver.DriverName:
		return nil, fmt.Errorf("the Secret %s/%s has type %q: kubelet hands the driver Secrets of type %s only", ref.Namespace, ref.Name, secret.Type, driver.DriverName)
	}
	return secret.Data, nil
}
