package driver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// VolumeStatus is one volume on this node.
type VolumeStatus struct {
	PV      string         `json:"pv,omitempty"`     // name in Kubernetes
	Volume  string         `json:"volume,omitempty"` // name on the array
	IQN     string         `json:"iqn,omitempty"`
	LUN     int            `json:"lun"`
	Serial  string         `json:"serial,omitempty"`
	Portals []PortalStatus `json:"portals"`
	Device  string         `json:"device,omitempty"`
	Bytes   int64          `json:"bytes,omitempty"`
	Mounts  []MountStatus  `json:"mounts"`
	// Health is what is wrong, in words; ["ok"] when nothing is.
	Health []string `json:"health"`
}

// PortalStatus is one way to a volume: up, down, or without a session.
type PortalStatus struct {
	Portal string `json:"portal"`
	State  string `json:"state"`
}

// The states of a portal.
const (
	portalUp        = "up"
	portalDown      = "down"
	portalNoSession = "no session"
)

// MountStatus is one place where a volume is mounted.
type MountStatus struct {
	Path       string `json:"path"`
	Filesystem string `json:"filesystem"`
	ReadOnly   bool   `json:"readOnly"`
}

// The first words of health.
const (
	healthy  = "ok"
	leftover = "leftover"
)

// Status lists the volumes on this node: those of the journal, and those of the array that the journal does not know. It
// starts no program, takes no lock and changes nothing.
func (o *Operator) Status(ctx context.Context) ([]VolumeStatus, error) {
	s, err := o.look()
	if err != nil {
		return nil, err
	}
	volumes := []VolumeStatus{}
	known := map[lun]bool{}
	shown := map[string]bool{} // mounts, by their paths
	for _, e := range o.entries(s) {
		known[lunOf(e.target)] = true
		volumes = append(volumes, o.statusOf(ctx, e))
	}
	for _, e := range strangers(s, known) {
		volumes = append(volumes, o.statusOf(ctx, e))
	}
	for _, volume := range volumes {
		for _, mounted := range volume.Mounts {
			shown[mounted.Path] = true
		}
	}
	for _, e := range orphans(s, shown) {
		volumes = append(volumes, o.statusOf(ctx, e))
	}
	slices.SortStableFunc(volumes, func(a, b VolumeStatus) int {
		return cmp.Or(cmp.Compare(a.PV, b.PV), cmp.Compare(a.IQN, b.IQN), cmp.Compare(a.LUN, b.LUN))
	})
	return volumes, nil
}

// errUnknown marks a volume that is not in the journal.
var errUnknown = errors.New("not in this driver's journal")

// strangers are disks and sessions of the array that the journal does not know.
func strangers(s scene, known map[lun]bool) []entry {
	var entries []entry
	for _, session := range s.sessions {
		if !OfTheArray(session.IQN) {
			continue
		}
		var luns []lun
		for _, disk := range session.Disks {
			if disk.Vendor == diskVendor {
				luns = append(luns, lun{session.IQN, disk.LUN, disk.Serial})
			}
		}
		if len(session.Disks) == 0 && !knowsTarget(known, session.IQN) {
			luns = []lun{{iqn: session.IQN}}
		}
		for _, l := range luns {
			if known[l] {
				continue
			}
			known[l] = true
			e := entry{err: errUnknown, target: iscsi.Target{IQN: l.iqn, LUN: l.number, Serial: l.serial}, sessions: s.sessionsOf(l.iqn), disks: s.disks(l)}
			e.mounts = s.mountsOf(e.disks)
			e.record.Name = nameOf(e.mounts)
			entries = append(entries, e)
		}
	}
	return entries
}

func knowsTarget(known map[lun]bool, iqn string) bool {
	for l := range known {
		if l.iqn == iqn {
			return true
		}
	}
	return false
}

// orphans are mounts where kubelet mounts this driver's volumes, without a session behind them.
func orphans(s scene, shown map[string]bool) []entry {
	var entries []entry
	for _, mounted := range s.mounts {
		name, _, ours := volumeAt(mounted.Path)
		if !ours || shown[mounted.Path] {
			continue
		}
		same := func(e entry) bool { return numberOf(e.mounts[0]) == numberOf(mounted) }
		if i := slices.IndexFunc(entries, same); i >= 0 {
			entries[i].mounts = append(entries[i].mounts, mounted)
			continue
		}
		entries = append(entries, entry{err: errUnknown, record: record{Name: name}, mounts: []mount.Mount{mounted}})
	}
	return entries
}

// nameOf is the volume's name in Kubernetes by where it is mounted.
func nameOf(mounts []mount.Mount) string {
	for _, mounted := range mounts {
		if name, _, ours := volumeAt(mounted.Path); ours {
			return name
		}
	}
	return ""
}

func (o *Operator) statusOf(ctx context.Context, e entry) VolumeStatus {
	volume := VolumeStatus{
		PV: cmp.Or(e.record.Name, e.key), Volume: e.record.AppInstance, IQN: e.target.IQN, LUN: e.target.LUN, Serial: e.target.Serial,
		Portals: e.portals(), Mounts: []MountStatus{},
	}
	volume.Device, volume.Bytes = deviceOf(e.disks, e.mounts)
	for _, mounted := range e.mounts {
		volume.Mounts = append(volume.Mounts, MountStatus{mounted.Path, mounted.Filesystem, mounted.ReadOnly})
	}
	if volume.Device == "" && len(e.mounts) > 0 {
		volume.Device = e.mounts[0].Device
	}
	volume.Health = o.health(ctx, e, volume.Portals)
	return volume
}

// portals are those that the volume was attached by, and those that it has sessions with.
func (e entry) portals() []PortalStatus {
	portals := []PortalStatus{}
	for _, portal := range e.target.Portals {
		portals = append(portals, PortalStatus{portal, portalNoSession})
	}
	for _, session := range e.sessions {
		state := portalDown
		if session.Up() {
			state = portalUp
		}
		i := slices.IndexFunc(portals, func(p PortalStatus) bool { return samePortal(p.Portal, session.Portal) })
		if i < 0 {
			portals = append(portals, PortalStatus{session.Portal, state})
		} else if portals[i].State != portalUp {
			portals[i].State = state
		}
	}
	return portals
}

// health puts into words what is wrong with a volume.
func (o *Operator) health(ctx context.Context, e entry, portals []PortalStatus) []string {
	var wrong []string
	add := func(words string) {
		if !slices.Contains(wrong, words) {
			wrong = append(wrong, words)
		}
	}
	for _, mounted := range e.mounts {
		if err := o.Mounts.Trouble(ctx, mounted); err != nil {
			add(err.Error())
		}
	}
	if e.err != nil {
		add(e.err.Error())
	} else if why, over := isOver(e, DefaultAge); over {
		add(leftover + ": " + why)
		return wrong
	}
	if len(e.sessions) == 0 {
		add("no session")
		return wrong
	}
	for _, portal := range portals {
		switch portal.State {
		case portalDown:
			add("portal " + portal.Portal + " is down")
		case portalNoSession:
			add("portal " + portal.Portal + " has no session")
		}
	}
	for _, disk := range e.disks {
		if disk.State != diskRunning && len(wrong) == 0 {
			add(fmt.Sprintf("disk %s is %s", disk.Path, disk.State))
		}
	}
	switch {
	case len(wrong) > 0:
		return wrong
	case len(e.disks) == 0:
		return []string{"no disk"}
	case len(e.mounts) == 0:
		return []string{healthy + ", not mounted"}
	}
	return []string{healthy}
}

// WriteStatus prints volumes as a table. A volume has as many lines as portals.
func WriteStatus(w io.Writer, volumes []VolumeStatus) error {
	if len(volumes) == 0 {
		_, err := fmt.Fprintln(w, "no volume on this node")
		return err
	}
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PV\tVOLUME\tIQN\tPORTAL\tSTATE\tDEVICE\tSIZE\tMOUNTS\tHEALTH")
	for _, v := range volumes {
		var first PortalStatus
		if len(v.Portals) > 0 {
			first = v.Portals[0]
		}
		fmt.Fprintln(table, strings.Join([]string{orDash(v.PV), orDash(v.Volume), orDash(v.IQN), orDash(first.Portal), orDash(first.State),
			orDash(v.Device), size(v.Bytes), places(v.Mounts), strings.Join(v.Health, "; ")}, "\t"))
		for _, portal := range v.Portals[min(len(v.Portals), 1):] {
			fmt.Fprintf(table, "\t\t\t%s\t%s\t\t\t\t\n", portal.Portal, portal.State)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, trailingBlanks().ReplaceAllString(text.String(), "\n"))
	return err
}

// trailingBlanks is what a table has at the end of lines with empty cells.
var trailingBlanks = pattern(` +\n`)

func orDash(text string) string { return cmp.Or(text, "-") }

func size(bytes int64) string {
	const mib = 1 << 20
	switch {
	case bytes == 0:
		return "-"
	case bytes%gib == 0:
		return fmt.Sprintf("%d GiB", bytes/gib)
	}
	return fmt.Sprintf("%d MiB", bytes/mib)
}

// places counts pods, and names what kubelet has not mounted.
func places(mounts []MountStatus) string {
	var words []string
	pods := 0
	for _, mounted := range mounts {
		switch _, global, ours := volumeAt(mounted.Path); {
		case global:
			words = append(words, "node")
		case ours:
			pods++
		default:
			words = append(words, mounted.Path)
		}
	}
	switch {
	case pods == 1:
		words = append(words, "1 pod")
	case pods > 1:
		words = append(words, fmt.Sprintf("%d pods", pods))
	}
	return orDash(strings.Join(words, ", "))
}

// WriteJSON prints any answer to a person as JSON.
func WriteJSON(w io.Writer, answer any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(answer)
}
