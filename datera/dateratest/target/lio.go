package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

// LIO serves by the Linux kernel's own target, driven through configfs.
//
// A volume is an iblock back store over a loop device over its file. A target has one portal group for each portal,
// so that a portal can go down for itself: disabling a group ends its sessions.
type LIO struct {
	tree   tree
	loops  loopDevices
	load   func(context.Context) error
	listen func(netip.AddrPort) error // tells whether a portal can be listened on
	hba    string                     // folder of this cluster's back stores
	prefix string                     // of this cluster's IQNs
	serves map[string][]string        // serials by IQN
}

// NewLIO makes a back end; Open makes it ready.
func NewLIO() *LIO {
	return &LIO{tree: configFS{configRoot + "/target"}, loops: loops{}, load: loadLIO, listen: canListen, serves: map[string][]string{}}
}

// Name is "lio".
func (*LIO) Name() string { return "lio" }

// FirstLUN is 0.
func (*LIO) FirstLUN() int { return 0 }

// Open loads the kernel modules and removes what an earlier run left behind.
func (l *LIO) Open(ctx context.Context, dir, prefix string, portals []netip.AddrPort) error {
	if err := l.load(ctx); err != nil {
		return err
	}
	// A back store's folder must be called iblock_N; N is taken from the cluster's part of its IQNs.
	id, err := strconv.ParseUint(prefix[strings.LastIndexByte(prefix, ':')+1:], 16, 32)
	if err != nil {
		return fmt.Errorf("IQN prefix %s does not end in eight hexadecimal digits: %w", prefix, err)
	}
	l.hba, l.prefix = fmt.Sprintf("core/iblock_%d", id), prefix
	if err := l.removeAll(ctx); err != nil {
		return fmt.Errorf("remove the targets of an earlier run: %w", err)
	}
	for _, device := range l.loops.Of(dir) {
		if err := l.loops.Detach(device); err != nil {
			return fmt.Errorf("remove the loop devices of an earlier run: %w", err)
		}
	}
	for _, p := range portals {
		if err := l.listen(p); err != nil {
			return fmt.Errorf("portal %s: %w; stop the other iSCSI target or choose other portals", p, err)
		}
	}
	return l.tree.Mkdir(l.hba)
}

// canListen tries. The kernel itself would say so only when the first target is made.
func canListen(p netip.AddrPort) error {
	listener, err := net.Listen("tcp", p.String())
	if err != nil {
		return errors.Unwrap(err)
	}
	return listener.Close()
}

// Close removes all targets, back stores and loop devices.
func (l *LIO) Close(ctx context.Context) error {
	if l.hba == "" {
		return nil
	}
	return l.removeAll(ctx)
}

func (l *LIO) removeAll(ctx context.Context) error {
	var failed []error
	for _, iqn := range l.targets() {
		failed = append(failed, l.Remove(ctx, iqn))
	}
	for _, serial := range l.tree.Folders(l.hba) {
		failed = append(failed, l.removeStore(serial))
	}
	return errors.Join(append(failed, l.tree.Remove(l.hba))...)
}

// targets are the IQNs that belong to this cluster.
func (l *LIO) targets() []string {
	return slices.DeleteFunc(l.tree.Folders("iscsi"), func(name string) bool { return !strings.HasPrefix(name, l.prefix) })
}

// Apply makes a target be as described.
func (l *LIO) Apply(_ context.Context, t Target) error {
	if err := l.apply(t); err != nil {
		return fmt.Errorf("iSCSI target %s: %w", t.IQN, err)
	}
	return nil
}

func (l *LIO) apply(t Target) error {
	var serials []string
	for _, lun := range t.LUNs {
		if err := l.putStore(lun); err != nil {
			return err
		}
		serials = append(serials, lun.Serial)
	}
	base := path.Join("iscsi", t.IQN)
	if err := l.tree.Mkdir(base); err != nil {
		return err
	}
	var groups []string
	for i, portal := range t.Portals {
		g := group{l.tree, path.Join(base, fmt.Sprintf("tpgt_%d", i+1)), l.hba}
		if err := g.put(t, portal); err != nil {
			return fmt.Errorf("portal %s: %w", portal.Address, err)
		}
		groups = append(groups, path.Base(g.at))
	}
	for _, name := range l.groups(base) {
		if !slices.Contains(groups, name) {
			if err := (group{l.tree, path.Join(base, name), l.hba}).remove(); err != nil {
				return err
			}
		}
	}
	l.serves[t.IQN] = serials
	return l.removeUnused()
}

func (l *LIO) groups(base string) []string {
	return slices.DeleteFunc(l.tree.Folders(base), func(name string) bool { return !strings.HasPrefix(name, "tpgt_") })
}

// Remove ends all sessions of a target and removes it with its back stores.
func (l *LIO) Remove(_ context.Context, iqn string) error {
	base := path.Join("iscsi", iqn)
	for _, name := range l.groups(base) {
		if err := (group{l.tree, path.Join(base, name), l.hba}).remove(); err != nil {
			return fmt.Errorf("remove iSCSI target %s: %w", iqn, err)
		}
	}
	if err := l.tree.Remove(base); err != nil {
		return fmt.Errorf("remove iSCSI target %s: %w", iqn, err)
	}
	delete(l.serves, iqn)
	return l.removeUnused()
}

// Sessions reads who is logged in.
func (l *LIO) Sessions(context.Context) (map[string][]string, error) {
	hosts := map[string][]string{}
	for _, iqn := range l.targets() {
		base := path.Join("iscsi", iqn)
		for _, name := range l.groups(base) {
			hosts[iqn] = append(hosts[iqn], group{l.tree, path.Join(base, name), l.hba}.sessions()...)
		}
		slices.Sort(hosts[iqn])
		hosts[iqn] = slices.Compact(hosts[iqn])
	}
	return hosts, nil
}

// putStore makes the back store of a volume, or lets it grow.
func (l *LIO) putStore(lun LUN) error {
	store := path.Join(l.hba, lun.Serial)
	if device := l.tree.Read(store + "/udev_path"); device != "" && l.tree.Read(store+"/enable") == "1" {
		if l.loops.Size(device) < lun.Size {
			return l.loops.Fit(device)
		}
		return nil
	}
	if err := l.removeStore(lun.Serial); err != nil { // half made
		return err
	}
	device, err := l.loops.Attach(lun.File)
	if err != nil {
		return err
	}
	if err := l.makeStore(store, device, lun.Serial); err != nil {
		return errors.Join(fmt.Errorf("volume %s: %w", lun.Serial, err), l.tree.Remove(store), l.loops.Detach(device))
	}
	return nil
}

// makeStore writes the identity before the store is enabled: afterwards parts of it cannot be changed.
func (l *LIO) makeStore(store, device, serial string) error {
	if err := l.tree.Mkdir(store); err != nil {
		return err
	}
	for _, w := range [][2]string{
		{"control", "udev_path=" + device}, {"udev_path", device},
		{"wwn/vendor_id", vendor}, {"wwn/product_id", product}, {"wwn/revision", revision}, {"wwn/vpd_unit_serial", serial},
		{"enable", "1"},
		{"attrib/emulate_tpu", "1"}, // lets discard through: thin volumes give space back
	} {
		if err := l.tree.Write(path.Join(store, w[0]), w[1]); err != nil {
			return fmt.Errorf("write %s: %w", w[0], err)
		}
	}
	return nil
}

func (l *LIO) removeStore(serial string) error {
	store := path.Join(l.hba, serial)
	device := l.tree.Read(store + "/udev_path")
	if err := l.tree.Remove(store); err != nil {
		return err
	}
	if device == "" {
		return nil
	}
	return l.loops.Detach(device)
}

// removeUnused removes the back stores of volumes that no target has any more.
func (l *LIO) removeUnused() error {
	var used []string
	for _, serials := range l.serves {
		used = append(used, serials...)
	}
	var failed []error
	for _, serial := range l.tree.Folders(l.hba) {
		if !slices.Contains(used, serial) {
			failed = append(failed, l.removeStore(serial))
		}
	}
	return errors.Join(failed...)
}
