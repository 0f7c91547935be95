package provisioner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"datera-flexvolume/driver"
)

// Between the moment when a volume is on the array and the one when its PersistentVolume is
// saved, nothing in Kubernetes would know of it if this process ended and the claim went.
// So a ConfigMap of the provisioner's namespace, named after the PersistentVolume, holds it
// from before the first change on the array until it is saved. What an interrupted process
// left is finished, not undone: the PersistentVolume is saved, and its reclaim policy says
// what becomes of it.

const (
	// journalLabel marks the ConfigMaps of the journal.
	journalLabel = "datera.io/provisioning"
	// journalKey is where a ConfigMap holds the PersistentVolume, as JSON.
	journalKey = "persistentVolume"
)

// begin writes the journal before anything is made. Where an earlier attempt has made the
// volume already, and differently, because the class was replaced in the meantime, what it
// began is returned to be finished: otherwise there would be two.
func (p *Provisioner) begin(ctx context.Context, d *driver.Driver, pv *v1.PersistentVolume) (*v1.PersistentVolume, error) {
	entry, err := p.entryOf(pv)
	if err != nil {
		return nil, err
	}
	journal := p.Client.CoreV1().ConfigMaps(p.Namespace)
	if _, err = journal.Create(ctx, entry, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		return pv, p.journalError(pv.Name, err)
	}
	there, err := journal.Get(ctx, pv.Name, metav1.GetOptions{})
	if err != nil {
		return nil, p.journalError(pv.Name, err)
	}
	earlier, err := readEntry(there)
	if err != nil || reflect.DeepEqual(there.Data, entry.Data) {
		return pv, err
	}
	volume, err := p.volumeOf(ctx, d, earlier)
	if err != nil {
		return nil, fmt.Errorf("look for what an earlier attempt made, noted in ConfigMap %s/%s: %w; if the volume is not on the array, %s", p.Namespace, pv.Name, err, p.forget(pv.Name))
	}
	made, err := isThere(ctx, d, earlier, volume, p.forget(pv.Name))
	if err != nil {
		return nil, err
	}
	if made {
		// What becomes of the data is as the class says now.
		earlier.Spec.PersistentVolumeReclaimPolicy = pv.Spec.PersistentVolumeReclaimPolicy
		pv = earlier
		if entry, err = p.entryOf(pv); err != nil {
			return nil, err
		}
	}
	entry.ResourceVersion = there.ResourceVersion
	_, err = journal.Update(ctx, entry, metav1.UpdateOptions{})
	return pv, p.journalError(pv.Name, err)
}

// withdraw forgets a volume that was refused because the array does not know its tenant,
// template or source: the next attempt may be made elsewhere.
func (p *Provisioner) withdraw(ctx context.Context, d *driver.Driver, volume driver.Volume) error {
	made, err := d.IsProvisioned(ctx, volume)
	if made || err != nil {
		return err
	}
	err = p.Client.CoreV1().ConfigMaps(p.Namespace).Delete(ctx, volume.Name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// forget is what to do about an entry of a volume that was never made.
func (p *Provisioner) forget(name string) string {
	return fmt.Sprintf("delete ConfigMap %s/%s", p.Namespace, name)
}

func (p *Provisioner) journalError(name string, err error) error {
	if err != nil {
		return fmt.Errorf("note in ConfigMap %s/%s that the volume is being made: %w", p.Namespace, name, err)
	}
	return nil
}

func (p *Provisioner) entryOf(pv *v1.PersistentVolume) (*v1.ConfigMap, error) {
	document, err := json.Marshal(pv)
	return &v1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: pv.Name, Namespace: p.Namespace, Labels: map[string]string{journalLabel: "true"}},
		Data:       map[string]string{journalKey: string(document)},
	}, err
}

func readEntry(entry *v1.ConfigMap) (*v1.PersistentVolume, error) {
	pv := &v1.PersistentVolume{}
	err := json.Unmarshal([]byte(entry.Data[journalKey]), pv)
	if err == nil && (pv.Name != entry.Name || pv.Spec.FlexVolume == nil || pv.Spec.ClaimRef == nil) {
		err = errors.New("it is not the PersistentVolume of that name")
	}
	if err != nil {
		return nil, fmt.Errorf("understand ConfigMap %s/%s: %w; delete it after a look on the array for the volume", entry.Namespace, entry.Name, err)
	}
	return pv, nil
}

// FinishInterrupted looks through the journal. Entries whose PersistentVolume is saved are
// removed; those whose claim is gone, or has another volume, are finished. The others are the controller's work.
func (p *Provisioner) FinishInterrupted(ctx context.Context) error {
	entries, err := p.Client.CoreV1().ConfigMaps(p.Namespace).List(ctx, metav1.ListOptions{LabelSelector: journalLabel + "=true"})
	if err != nil {
		return fmt.Errorf("list the journal, the ConfigMaps with label %s in namespace %s: %w", journalLabel, p.Namespace, err)
	}
	var errs []error
	for i := range entries.Items {
		release, free := p.workOn(entries.Items[i].Name)
		if !free {
			continue
		}
		errs = append(errs, p.finish(ctx, &entries.Items[i]))
		release()
	}
	return errors.Join(errs...)
}

func (p *Provisioner) finish(ctx context.Context, entry *v1.ConfigMap) error {
	pv, err := readEntry(entry)
	if err != nil {
		return err
	}
	done, err := p.settle(ctx, pv)
	if err == nil && done {
		err = p.Client.CoreV1().ConfigMaps(p.Namespace).Delete(ctx, entry.Name, metav1.DeleteOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("finish the interrupted provisioning of %s: %w", pv.Name, err)
	}
	return nil
}

// settle reports whether the journal need not know of a PersistentVolume any more: it is
// saved, now at the latest, or its volume was never made.
func (p *Provisioner) settle(ctx context.Context, pv *v1.PersistentVolume) (bool, error) {
	_, err := p.Client.CoreV1().PersistentVolumes().Get(ctx, pv.Name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return err == nil, err
	}
	ref := pv.Spec.ClaimRef
	claim, err := p.Client.CoreV1().PersistentVolumeClaims(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	switch {
	case err == nil && claim.UID == ref.UID && (claim.Spec.VolumeName == "" || claim.Spec.VolumeName == pv.Name):
		return false, nil // the controller is at it
	case err != nil && !apierrors.IsNotFound(err):
		return false, err
	}
	orphan, err := p.isOrphan(ctx, pv)
	if err != nil || !orphan {
		return err == nil, err
	}
	_, err = p.Client.CoreV1().PersistentVolumes().Create(ctx, pv, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return false, err
	}
	p.Log.InfoContext(ctx, "saved the PersistentVolume of a claim that has gone, or has another volume", "pv", pv.Name,
		"namespace", ref.Namespace, "claim", ref.Name, "volume", pv.Spec.FlexVolume.Options[optVolumeID])
	return true, nil
}

// isOrphan reports whether the volume was made and never had a PersistentVolume. One that
// a node has had, had one: where that is gone and the volume is not, somebody wanted to keep it.
func (p *Provisioner) isOrphan(ctx context.Context, pv *v1.PersistentVolume) (bool, error) {
	d := p.Driver()
	volume, err := p.volumeOf(ctx, d, pv)
	if err != nil {
		return false, err
	}
	made, err := isThere(ctx, d, pv, volume, p.forget(pv.Name))
	if err != nil || !made {
		return false, err
	}
	attached, err := d.WasAttached(ctx, volume)
	return !attached, err
}
