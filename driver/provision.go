package driver

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"datera-flexvolume/datera"
)

// opStateCloning is the op_state of an app instance whose data is still being copied.
const opStateCloning = "cloning"

// The access control modes of a storage instance.
const (
	denyAll  = "deny_all"
	allowAll = "allow_all"
)

// createMode tells the array which integration made an app instance.
const createMode = "kubernetes"

// provision makes sure that the volume is on the array and online, as its options say.
func (d *Driver) provision(ctx context.Context, array Array, volume Volume) (ai *datera.AppInstance, created bool, err error) {
	ai, err = array.AppInstance(ctx, volume.AppInstance)
	switch {
	case errors.Is(err, datera.ErrNotFound) && volume.Provisioned:
		err = fmt.Errorf("it was made for its claim and is not there: it was deleted on the array, or the configuration names another array or tenant "+
			"than the provisioner's; nothing is made in its place: %w", err)
	case errors.Is(err, datera.ErrNotFound):
		ai, created, err = array.CreateAppInstance(ctx, d.request(volume))
		err = d.explainCreate(err, volume)
	}
	if err == nil {
		err = d.refuseAnothers(ai, volume)
	}
	if err != nil {
		return nil, false, fmt.Errorf("provision volume %s on %s: %w", volume.AppInstance, array.Server(), err)
	}
	ai, err = d.ready(ctx, array, ai, created, volume)
	return ai, created, err
}

// ready makes an app instance fit the options, and waits until it can be used.
func (d *Driver) ready(ctx context.Context, array Array, ai *datera.AppInstance, created bool, volume Volume) (*datera.AppInstance, error) {
	if err := d.fit(ctx, array, ai, created, volume); err != nil {
		return nil, err
	}
	if ai.AdminState != datera.AdminOnline {
		if _, err := array.SetAdminState(ctx, ai.ID, datera.AdminOnline, false); err != nil {
			return nil, fmt.Errorf("bring volume %s online on %s: %w", volume.AppInstance, array.Server(), err)
		}
		ai = nil
	}
	return awaitAvailable(ctx, array, volume.AppInstance, ai)
}

func (d *Driver) request(volume Volume) datera.AppInstanceRequest {
	request := datera.AppInstanceRequest{
		Name:              volume.AppInstance,
		Descr:             d.Config.descriptionOf(volume.Name),
		CreateMode:        createMode,
		AccessControlMode: denyAll,
		SizeGiB:           volume.SizeGiB,
		ReplicaCount:      volume.Replicas,
		PlacementMode:     volume.PlacementMode,
		PlacementPolicy:   volume.PlacementPolicy,
		IPPool:            volume.IPPool,
		Template:          volume.Template,
		Auth:              d.chapFor(volume).forArray(),
		PerformancePolicy: limits(volume),
	}
	if strings.Contains(volume.Source, "/snapshots/") {
		request.CloneSnapshot = volume.Source
	} else {
		request.CloneVolume = volume.Source
	}
	return request
}

func limits(volume Volume) datera.PerformancePolicy {
	return datera.PerformancePolicy{TotalIOPSMax: volume.MaxIOPS, TotalBandwidthMax: volume.MaxBandwidthKiB}
}

// explainCreate says which option, or which tenant of the configuration, a refused creation is about.
func (d *Driver) explainCreate(err error, volume Volume) error {
	if !errors.Is(err, datera.ErrNotFound) {
		return err
	}
	var named []string
	for _, option := range []struct{ name, value string }{
		{optTemplate, volume.Template}, {optSource, volume.Source}, {optIPPool, volume.IPPool},
		{optPlacementPolicy, volume.PlacementPolicy}, {optTenant, volume.Tenant},
	} {
		if option.value != "" {
			named = append(named, fmt.Sprintf("%s %q", option.name, option.value))
		}
	}
	var unknown []string
	if len(named) > 0 {
		unknown = append(unknown, fmt.Sprintf("something that the options name (%s)", strings.Join(named, ", ")))
	}
	if tenant := d.tenantOf(volume); volume.Tenant == "" && strings.TrimSuffix(tenant, "/") != "/root" {
		unknown = append(unknown, fmt.Sprintf("tenant %s: correct tenant in %s", tenant, d.Config.place()))
	}
	if len(unknown) == 0 {
		return err
	}
	return fmt.Errorf("the array does not know %s: %w", strings.Join(unknown, ", or "), err)
}

// fit refuses an app instance that exists but is too small for the options. A larger one
// is fine: it has been grown. A clone begins with the size and the limits of its source.
func (d *Driver) fit(ctx context.Context, array Array, ai *datera.AppInstance, created bool, volume Volume) error {
	onArray, err := ai.Volume()
	if err != nil {
		return fmt.Errorf("volume %s: %w", volume.AppInstance, err)
	}
	if volume.Source != "" {
		if err := d.fitLimits(ctx, array, ai, created, onArray, volume); err != nil {
			return fmt.Errorf("set the limits of the clone %s: %w", volume.AppInstance, err)
		}
	}
	if onArray.SizeGiB < volume.SizeGiB && volume.Source != "" {
		if _, err := array.ResizeVolume(ctx, onArray.Path, volume.SizeGiB); err != nil {
			return fmt.Errorf("grow the clone %s to %d GiB: %w", volume.AppInstance, volume.SizeGiB, err)
		}
		onArray.SizeGiB = volume.SizeGiB
	}
	if onArray.SizeGiB < volume.SizeGiB {
		return fmt.Errorf("volume %s exists on the array with %d GiB, but option %s is %q: accepted is %d or less; "+
			"grow it (on the array, or by the claim), or use another %s",
			volume.AppInstance, onArray.SizeGiB, optSize, fmt.Sprint(volume.SizeGiB), onArray.SizeGiB, optVolumeID)
	}
	return nil
}

// fitLimits gives a clone the limits of its options, instead of its source's. Once a node has had it, they are the
// administrator's to change.
func (d *Driver) fitLimits(ctx context.Context, array Array, ai *datera.AppInstance, created bool, onArray *datera.Volume, volume Volume) error {
	wanted := limits(volume)
	if wanted == (datera.PerformancePolicy{}) || wanted == onArray.PerformancePolicy {
		return nil
	}
	if !created && !d.isUnused(ai, volume) { // by this call: an earlier one may have been killed before it came to the limits
		return nil
	}
	return array.SetPerformancePolicy(ctx, onArray.Path, wanted)
}

// isUnused reports whether an app instance was made for the volume, and no node has had it since.
func (d *Driver) isUnused(ai *datera.AppInstance, volume Volume) bool {
	return d.madeFor(ai, volume) == nil && !everClaimed(ai)
}

// everClaimed reports whether a node has, or had, a claim: references of groups without members stay in the policy.
func everClaimed(ai *datera.AppInstance) bool {
	return slices.ContainsFunc(ai.StorageInstances, func(instance datera.StorageInstance) bool {
		return len(instance.ACL.InitiatorGroups)+len(instance.ACL.Initiators) > 0
	})
}

// awaitAvailable waits until the storage instance serves its portals. What creation or
// the first read returned is looked at first.
func awaitAvailable(ctx context.Context, array Array, name string, ai *datera.AppInstance) (*datera.AppInstance, error) {
	last := "it has not answered yet"
	look := func() (*datera.AppInstance, error) {
		if ai == nil {
			var err error
			if ai, err = array.AppInstance(ctx, name); err != nil {
				return nil, backoff.Permanent(err)
			}
		}
		instance, err := ai.StorageInstance()
		if err != nil {
			return nil, backoff.Permanent(err)
		}
		if instance.OpState == datera.OpStateFailed {
			return nil, backoff.Permanent(fmt.Errorf("its op_state is %q: look at the storage instance on the array", instance.OpState))
		}
		if ai.OpState != opStateCloning && instance.OpState == datera.OpStateAvailable && len(instance.Access.IPs) > 0 && instance.Access.IQN != "" {
			return ai, nil
		}
		last = fmt.Sprintf("its op_state is %q, it has %d portals", instance.OpState, len(instance.Access.IPs))
		ai = nil
		return nil, errors.New(last)
	}
	available, err := backoff.Retry(ctx, look, backoff.WithBackOff(pace(time.Second)), backoff.WithMaxElapsedTime(0))
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("wait for volume %s to become available on %s: %s: look at the storage instance on the array; the call is tried again: %w",
			name, array.Server(), last, context.Cause(ctx))
	}
	if err != nil {
		return nil, fmt.Errorf("wait for volume %s to become available on %s: %w", name, array.Server(), err)
	}
	return available, nil
}

// pace looks at once, then after 10 ms, growing by half up to the longest pause.
func pace(longest time.Duration) backoff.BackOff {
	return &backoff.ExponentialBackOff{InitialInterval: 10 * time.Millisecond, Multiplier: 1.5, MaxInterval: longest}
}

// ensureAuth gives the storage instance the configured CHAP secrets. The array never
// shows passwords, so a changed password needs a changed user name to be noticed.
func (d *Driver) ensureAuth(ctx context.Context, array Array, instance *datera.StorageInstance, volume Volume) error {
	wanted := d.chapFor(volume).forArray()
	if instance.Auth.Type == wanted.Type && instance.Auth.TargetUserName == wanted.TargetUserName &&
		instance.Auth.InitiatorUserName == wanted.InitiatorUserName {
		return nil
	}
	if wanted.Type == datera.AuthNone {
		if instance.Auth.Type == "" {
			return nil
		}
		return fmt.Errorf("%s asks for %s as user %q, and the configuration has no chap for this array: add its secrets there (and mgmt_ip, if a secretRef names the array), or switch CHAP off on the array",
			instance.Path, instance.Auth.Type, instance.Auth.TargetUserName)
	}
	if err := array.SetAuth(ctx, instance.Path, wanted); err != nil {
		return fmt.Errorf("set CHAP of %s: %w", instance.Path, err)
	}
	return nil
}

// attachmentOf describes an app instance to the node.
func (d *Driver) attachmentOf(ctx context.Context, array Array, ai *datera.AppInstance, created bool, volume Volume) (Attachment, error) {
	instance, err := ai.StorageInstance()
	if err != nil {
		return Attachment{}, err
	}
	onArray, err := ai.Volume()
	if err != nil {
		return Attachment{}, err
	}
	never, err := d.knowsData(ctx, array, ai, onArray, created, volume)
	if err != nil {
		return Attachment{}, err
	}
	attachment := Attachment{SizeGiB: onArray.SizeGiB, AppInstance: volume.AppInstance, ReadOnly: volume.ReadOnly, NeverFormat: never}
	attachment.Target.Portals = portalsOf(instance.Access.IPs)
	attachment.Target.IQN = instance.Access.IQN
	attachment.Target.Serial = onArray.UUID
	if onArray.LUN != nil {
		attachment.Target.LUN = *onArray.LUN
	}
	// What the array said is foreign input as well: read it back as the node will.
	readBack, err := ParseAttachment(attachment.String())
	readBack.Target.Portals = attachment.Target.Portals // an address may be written in several ways
	if err == nil && !reflect.DeepEqual(readBack, attachment) {
		err = fmt.Errorf("device string %s reads as another volume's", quoteShort(attachment.String()))
	}
	if err != nil {
		return Attachment{}, fmt.Errorf("the array %s describes volume %s in a way that cannot be used: %w", array.Server(), volume.AppInstance, err)
	}
	return attachment, nil
}

// metadataFormatted is the key under which the vendor's drivers note that mkfs was run.
const metadataFormatted = "formatted"

// knowsData reports whether the array has reason to think that there is data on the
// volume: it is a clone, blocks of it are in use, or somebody noted that it was formatted.
func (d *Driver) knowsData(ctx context.Context, array Array, ai *datera.AppInstance, onArray *datera.Volume, created bool, volume Volume) (bool, error) {
	if volume.Source != "" || onArray.CapacityInUseGiB > 0 {
		return true, nil
	}
	if created || d.Config.Attach != AttachNone && d.Config.describes(ai.Descr, volume.Name) {
		return false, nil // only attach mode none has somebody at hand to note it on the array
	}
	metadata, err := array.Metadata(ctx, ai.ID)
	if err != nil {
		return false, fmt.Errorf("ask %s whether volume %s was formatted before: %w", array.Server(), volume.AppInstance, err)
	}
	return metadata[metadataFormatted] == "true", nil
}
