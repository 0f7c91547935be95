package driver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"datera-flexvolume/datera"
	"datera-flexvolume/mount"
)

// In attach mode none nobody calls attach, waitforattach, mountdevice or their
// counterparts: mount goes the whole way, and unmount back.

// directBehind finds the record of a volume that mount attached by itself, by where its
// file system is mounted besides path.
func (d *Driver) directBehind(path string) (string, record, bool) {
	mounted, found, err := d.Mounter.At(path)
	if err != nil || !found {
		return "", record{}, false
	}
	mounts, err := d.Mounter.Same(mounted)
	if err != nil {
		return "", record{}, false
	}
	for _, other := range mounts {
		key := filepath.Base(other.Path)
		r, found := d.journal().read(key)
		if !found || r.Direct == nil {
			continue
		}
		// Mounts are listed by their real paths, which the record's need not be.
		if global, found, err := d.Mounter.At(r.Direct.Mount); err == nil && found && global.Path == other.Path {
			return key, r, true
		}
	}
	return "", record{}, false
}

// directKey names a volume that mount attaches by itself, on this node. A volume of one
// name may be on two arrays or in two tenants; an in-line volume's own name says nothing.
func (d *Driver) directKey(volume Volume) (string, error) {
	connection, err := d.Config.connectionFor(volume)
	if err != nil {
		return "", err
	}
	server := connection.Credentials.Server
	// Until its last pod is gone a volume keeps the key that a former version gave it, which went by how array and tenant are
	// spelt.
	former := keyOf(volume, server.String(), volume.Tenant)
	if r, found := d.journal().read(former); found && r.Direct != nil {
		return former, nil
	}
	return keyOf(volume, server.canonical().String(), d.tenantOf(volume)), nil
}

func keyOf(volume Volume, server, tenant string) string {
	sum := sha256.Sum256([]byte(server + "\x00" + tenant))
	return volume.AppInstance + "-" + hex.EncodeToString(sum[:4])
}

// mountDirect goes the whole way: nobody called attach, waitforattach or mountdevice.
func (d *Driver) mountDirect(ctx context.Context, path string, pod podVolume, volume Volume) (err error) {
	key, err := d.directKey(volume)
	if err != nil {
		return err
	}
	array, err := d.arrayFor(volume)
	if err != nil {
		return err
	}
	unlock, err := d.lockVolume(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	global := pod.globalPath(key)
	_, bound, err := d.Mounter.At(path)
	if err != nil {
		return err
	}
	_, mounted, err := d.Mounter.At(global)
	if err != nil {
		return err
	}
	switch {
	case bound:
	case mounted:
		// Another pod of this node has it; this one must be allowed to have it, too.
		_, err = array.AppInstance(ctx, volume.AppInstance)
	default:
		err = d.mountGlobal(ctx, array, global, key, volume)
	}
	if err != nil {
		return err
	}
	if err := d.bind(ctx, global, path, key, volume); err != nil {
		return errors.Join(err, d.undoUnused(ctx, key))
	}
	return nil
}

// mountGlobal attaches the volume to this node and mounts it. A failure is undone here, because kubelet calls no unmount
// after it: the node logs out, and then removes its claim.
func (d *Driver) mountGlobal(ctx context.Context, array Array, global, key string, volume Volume) (err error) {
	node, err := d.Config.NodeName()
	if err != nil {
		return err
	}
	p, err := d.prepare(ctx, array, volume, node)
	if err != nil {
		return err
	}
	target := p.attachment.Target
	r := record{Name: volume.Name, AppInstance: volume.AppInstance, Device: p.attachment.String(),
		Direct: &directAttachment{Mount: global, Server: array.Server(), Tenant: volume.Tenant}}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.undoDirect(ctx, key, r, p))
		}
	}()
	if err := d.releaseFormer(ctx, key, target); err != nil {
		return err
	}
	if err := d.join(ctx, p); err != nil {
		return err
	}
	if err := d.journal().write(key, r); err != nil {
		return err
	}
	if err := d.Initiator.Login(ctx, target, d.chapFor(volume).forLogin()); err != nil {
		return fmt.Errorf("log in to volume %s: %w", volume.AppInstance, err)
	}
	if err := p.claim.Confirm(ctx, p.ai.ID); err != nil {
		return err
	}
	disk, err := d.Initiator.Scan(ctx, target)
	if err != nil {
		return fmt.Errorf("find the disk of volume %s: %w", volume.AppInstance, err)
	}
	if in, err := d.Initiator.LoggedIn(target); err != nil || !in {
		return errors.Join(err, fmt.Errorf("the session of volume %s has ended since the login: kubelet repeats the mount", volume.AppInstance))
	}
	formatted, err := d.mountDisk(ctx, global, disk.Path, r, volume)
	if formatted {
		d.noteFormatted(ctx, array, volume)
	}
	return err
}

// noteFormatted leaves the vendor's mark on the array. Without it the volume is still
// protected by what is on it.
func (d *Driver) noteFormatted(ctx context.Context, array Array, volume Volume) {
	note := map[string]string{metadataFormatted: "true", "fs_type": volume.Filesystem}
	if err := array.SetMetadata(ctx, volume.AppInstance, note); err != nil {
		d.Log.WarnContext(ctx, "the array was not told that the volume is formatted", "volume", volume.AppInstance, "error", err)
	}
}

// undoUnused takes a volume off again that no pod has got.
func (d *Driver) undoUnused(ctx context.Context, key string) error {
	r, found := d.journal().read(key)
	if !found || r.Direct == nil {
		return nil
	}
	users, err := d.usersOf(r)
	if err != nil || len(users) > 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if err := d.journal().leave(key); err != nil {
		return err
	}
	return d.releaseDirect(ctx, key, r)
}

// abandonUnused finds volumes that a killed mount has left without a pod: nobody calls
// unmount for them. Whoever works on a volume holds its lock, so one that is free and has
// no user is one of them.
func (d *Driver) abandonUnused(ctx context.Context) {
	for _, key := range d.journal().used() {
		if ctx.Err() != nil {
			return // the call's own work is waiting
		}
		if err := d.ifFree(key, func() error { return d.undoUnused(ctx, key) }); err != nil {
			d.Log.WarnContext(ctx, "a volume without a pod stays on this node", "volume", key, "error", err)
		}
	}
}

// undoDirect takes back a mount that failed half-way, also when its time is up.
func (d *Driver) undoDirect(ctx context.Context, key string, r record, p prepared) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	d.noteLeaving(ctx, key)
	if err := d.takeOff(ctx, key, r); err != nil {
		return err
	}
	if err := p.claim.Leave(ctx, p.ai.ID); err != nil && !errors.Is(err, datera.ErrNotFound) {
		return err
	}
	d.forgetDirect(ctx, key, r)
	return nil
}

// unmountDirect unbinds the pod's directory; with the last one the volume goes, too.
func (d *Driver) unmountDirect(ctx context.Context, path, key string, r record) error {
	unlock, err := d.lockVolume(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	if err := d.lastOne(ctx, path, key, r); err != nil {
		return err
	}
	if err := d.Mounter.Unmount(ctx, path); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	err = d.releaseDirect(ctx, key, r)
	if errors.Is(err, errClaimStays) {
		// An array that is down must not keep a pod from being deleted. The record stays, so a later call removes the claim;
		// and a node that needs the volume before evicts it.
		d.Log.WarnContext(ctx, "the claim is removed later", "volume", key, "error", err)
		return nil
	}
	return err
}

// lastOne marks the removal as begun before the pod's directory is unmounted, because
// kubelet does not repeat a call for a directory that is no mount point any more.
func (d *Driver) lastOne(ctx context.Context, path, key string, r record) error {
	mounted, found, err := d.Mounter.At(path)
	if err != nil || !found {
		return err
	}
	users, err := d.usersOf(r)
	if err != nil || len(users) > 1 || len(users) == 1 && users[0] != mounted.Path {
		return err
	}
	d.noteLeaving(ctx, key)
	return nil
}

// usersOf lists where the volume is mounted besides its global path.
func (d *Driver) usersOf(r record) ([]string, error) {
	global, found, err := d.Mounter.At(r.Direct.Mount)
	if err != nil || !found {
		return nil, err
	}
	mounts, err := d.Mounter.Same(global)
	if err != nil {
		return nil, err
	}
	var users []string
	for _, other := range mounts {
		if other.Path != global.Path {
			users = append(users, other.Path)
		}
	}
	return users, nil
}

// releaseDirect removes the volume from the node unless a pod still uses it, and then the node's claim.
func (d *Driver) releaseDirect(ctx context.Context, key string, r record) error {
	users, err := d.usersOf(r)
	if err != nil || len(users) > 0 {
		return err
	}
	if err := d.takeOff(ctx, key, r); err != nil {
		return err
	}
	array, err := d.arrayOf(r.Direct)
	if err != nil {
		// Without credentials of its own the node cannot remove its claim; the next node evicts it, because this one has no
		// session any more.
		d.Log.WarnContext(ctx, "the claim stays until another node evicts it", "volume", key, "reason", err)
		d.forgetDirect(ctx, key, r)
		return nil
	}
	limit, cancel := context.WithTimeout(ctx, giveBackTime)
	defer cancel()
	if err := d.giveBack(limit, array, key, r); err != nil {
		return fmt.Errorf("%w: %w", errClaimStays, err)
	}
	return nil
}

// errClaimStays says that a volume is off the node, but the array still lets the node in.
var errClaimStays = errors.New("the array was not told that this node has let the volume go")

// giveBackTime bounds how long a removal waits for an array that does not answer.
const giveBackTime = 10 * time.Second

// arrayOf connects to the array of a volume that mount attached, with the credentials of
// the configuration: those of the volume's secret came with mount only.
func (d *Driver) arrayOf(direct *directAttachment) (Array, error) {
	_, address, _ := strings.Cut(direct.Server, "://")
	server, err := ParseServer(address)
	if err != nil {
		return nil, err
	}
	return d.arrayFor(Volume{Server: server, Tenant: direct.Tenant})
}

// takeOff unmounts the global path and removes the disk.
func (d *Driver) takeOff(ctx context.Context, key string, r record) error {
	if err := d.Mounter.Unmount(ctx, r.Direct.Mount); err != nil {
		return fmt.Errorf("unmount volume %s: %w", key, err)
	}
	target, err := targetOf(r)
	if err != nil {
		return err
	}
	return d.removeDisk(ctx, key, target)
}

// forgetDirect ends a removal. The directory was made by mount, so nobody else removes it: where that fails, the record
// stays for a later call. What somebody put into it is his.
func (d *Driver) forgetDirect(ctx context.Context, key string, r record) {
	err := d.Mounter.RemoveDir(r.Direct.Mount)
	if err != nil {
		d.Log.WarnContext(ctx, "the directory of a volume that is gone stays", "volume", key, "error", err)
	}
	if err == nil || errors.Is(err, mount.ErrHasContent) {
		d.noteGone(ctx, key)
	}
}

// giveBack removes this node's claims and forgets the volume.
func (d *Driver) giveBack(ctx context.Context, array Array, key string, r record) error {
	ai, err := array.AppInstance(ctx, r.AppInstance)
	if err == nil {
		var iqn string
		if iqn, err = d.Initiator.Name(); err == nil {
			err = d.claim(array, Volume{Name: r.AppInstance, AppInstance: r.AppInstance}, d.Config.Node, iqn).Leave(ctx, ai.ID)
		}
	}
	if err != nil && !errors.Is(err, datera.ErrNotFound) { // a volume that is gone has no claims
		return err
	}
	d.forgetDirect(ctx, key, r)
	return nil
}
