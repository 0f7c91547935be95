package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"datera-flexvolume/datera"
	"datera-flexvolume/iscsi"
)

// openISCSI knows open-iscsi's releases by what they do to this driver.
func (e *examination) openISCSI(ctx context.Context) []Finding {
	if _, err := e.Host.lookPath("iscsiadm"); err != nil { // the check of programs says what to do
		return []Finding{warning("", "not known: iscsiadm is not there")}
	}
	versions, err := e.Node.Versions(ctx)
	if err != nil {
		return []Finding{problem("install open-iscsi (iscsi-initiator-utils)", "%v", err)}
	}
	client, daemon := release(versions.Client), release(versions.Daemon)
	switch {
	case daemon == "2.1.10":
		return []Finding{problem("upgrade open-iscsi to 2.1.11 or later, and restart iscsid; sessions stay",
			"iscsid is 2.1.10, which never answers a login with node.session.scan=manual: each takes half a minute")}
	case client != daemon && client == "2.1.10":
		return []Finding{problem("upgrade the older half of open-iscsi, and restart iscsid; sessions stay",
			"iscsiadm is 2.1.10 and iscsid is %s: the two wait for each other for ever", versions.Daemon)}
	case client != daemon:
		return []Finding{warning("restart iscsid; sessions stay",
			"iscsiadm is %s and the iscsid that runs is %s: only equal ones are known to understand each other", versions.Client, versions.Daemon)}
	case versions.Replaced:
		return []Finding{warning("restart iscsid; sessions stay", "iscsid was replaced on disk since it started; %s runs", versions.Daemon)}
	}
	return fine("%s, iscsiadm and iscsid alike", versions.Client)
}

// release is an open-iscsi version without what distributions add: 6.2.1.4-1 is 2.1.4.
func release(version string) string {
	version, _, _ = strings.Cut(version, "-")
	return strings.TrimPrefix(version, "6.")
}

func (e *examination) iscsid(context.Context) []Finding {
	if err := e.Node.CheckDaemon(); err != nil {
		return []Finding{problem("", "%v", err)}
	}
	if e.Node.DaemonRuns() {
		return fine("it runs")
	}
	sessions, err := e.Node.Sessions()
	if err != nil || len(sessions) > 0 {
		return []Finding{problem("systemctl start iscsid", "it does not run, and there are sessions: one that is lost will not come back")}
	}
	return fine("it is started with the first login")
}

// initiatorName is what the array knows this node by; no other node may have it.
func (e *examination) initiatorName(context.Context) []Finding {
	iqn, err := e.Initiator.Name()
	if err != nil {
		return []Finding{problem("", "%v", err)}
	}
	if err := CheckIQN(iqn); err != nil {
		return []Finding{problem("", "%v", err)}
	}
	initiator, err := e.known()
	if err != nil {
		return fine("%s", iqn) // that the array cannot be asked is for other checks to say
	}
	node, err := e.Config.NodeName()
	if err != nil {
		return []Finding{problem("set node in the configuration", "%v", err)}
	}
	if remedy := iqnTakenRemedy(e.Config.Cluster, node, initiator.Name); remedy != "" {
		return []Finding{problem(remedy, "%s is registered on the array for another node than this, %s, as %s", iqn, node, initiator.Name)}
	}
	return fine("%s", iqn)
}

// nodeRecords looks for records that act on their own, or block their portal.
func (e *examination) nodeRecords(context.Context) []Finding {
	records, err := e.Node.Records()
	if err != nil {
		return []Finding{problem("", "%v", err)}
	}
	var found []Finding
	ours := 0
	for _, r := range records {
		switch {
		case r.Empty && OfTheArray(r.IQN):
			found = append(found, problem("`iscsi reap --yes`", "%s is empty, as a killed iscsiadm leaves it: no iscsiadm can use or replace it", r.Path))
		case r.Empty:
			found = append(found, warning("rm "+r.Path, "%s is empty, as a killed iscsiadm leaves it", r.Path))
		case OfTheArray(r.IQN):
			ours++
			if r.Startup != "manual" {
				found = append(found, problem(fmt.Sprintf("iscsiadm -m node -T %s -p %s -o update -n node.startup -v manual", r.IQN, r.Portal),
					"the record of %s at %s has node.startup = %s: at its next start this machine logs in to a volume that may be another node's by then", r.IQN, r.Portal, r.Startup))
			}
		}
	}
	if len(found) > 0 {
		return found
	}
	return fine("%d of the array's targets, none that logs in by itself", ours)
}

func (e *examination) recordLock(context.Context) []Finding {
	if path, stale := e.Node.StaleLock(); stale {
		return []Finding{problem("`iscsi reap --yes`, or any login of this driver",
			"%s is there, and no iscsiadm lives that could hold it: each waits for it for 30 s and fails", path)}
	}
	return fine("no stale one")
}

// deviceSection is what a configuration of multipathd should hold. multipathd wants each setting on a line of its own.
const deviceSection = `vendor "` + diskVendor + `", product "` + diskProduct + `", path_grouping_policy group_by_prio, prio alua, path_checker tur, ` +
	`failback immediate, no_path_retry 24`

func (e *examination) multipath(context.Context) []Finding {
	m, err := e.Node.Multipath(diskVendor, diskProduct)
	if err != nil {
		return []Finding{problem("", "%v", err)}
	}
	config := "/etc/multipath.conf"
	if len(m.Configs) > 0 {
		config = strings.Join(m.Configs, ", ")
	}
	switch {
	case len(m.Claimed) > 0:
		return []Finding{problem("start multipathd, or put the disks into its blacklist; then `udevadm trigger --subsystem-match=block`",
			"udev keeps %s for multipath, and there is no map: nobody can use it", strings.Join(m.Claimed, ", "))}
	case !m.Runs:
		return fine("multipathd does not run: of a volume's portals one is used")
	case m.Blacklist:
		return fine("multipathd leaves the array's disks alone (%s): of a volume's portals one is used", config)
	case !m.Section:
		return []Finding{warning("add to devices { } there a device { } with "+deviceSection+", each on a line of its own, and run `multipathd reconfigure`",
			"multipathd runs without a device section for %s %s in %s, and has none built in", diskVendor, diskProduct, config)}
	case m.Queues:
		return []Finding{warning("set no_path_retry 24 for "+diskVendor+" and run `multipathd reconfigure`",
			"%s lets I/O wait for ever when all portals are gone: such a volume can be neither used nor unmounted", config)}
	}
	return fine("multipathd runs, with a device section for %s %s", diskVendor, diskProduct)
}

// portals tries those of the volumes here.
func (e *examination) portals(ctx context.Context) []Finding {
	s, err := e.look()
	if err != nil {
		return []Finding{problem("", "%v", err)}
	}
	portals := e.portalsIn(s)
	failures := make(chan error, len(portals))
	for _, portal := range portals {
		go func() {
			failures <- e.guarded(ctx, func() error {
				if err := e.Node.Reach(ctx, portal); err != nil {
					return fmt.Errorf("%s: %w", portal, err)
				}
				return nil
			})
		}()
	}
	var texts []string
	for range portals {
		if err := <-failures; err != nil {
			texts = append(texts, err.Error())
		}
	}
	slices.Sort(texts)
	var found []Finding
	for _, text := range texts {
		found = append(found, problem("look at route, firewall and port from this node, and at the array", "%s", text))
	}
	switch {
	case len(found) > 0:
		return found
	case len(portals) == 0:
		return fine("there is no volume here that would tell one")
	}
	return fine("%s: all can be reached", strings.Join(portals, ", "))
}

func (e *examination) portalsIn(s scene) []iscsi.Portal {
	var portals []iscsi.Portal
	add := func(portal iscsi.Portal) {
		if portal != "" && !slices.ContainsFunc(portals, func(known string) bool { return samePortal(known, portal) }) {
			portals = append(portals, portal)
		}
	}
	for _, entry := range e.entries(s) {
		for _, portal := range entry.target.Portals {
			add(portal)
		}
	}
	for _, session := range s.sessions {
		if OfTheArray(session.IQN) {
			add(session.Portal)
		}
	}
	slices.Sort(portals)
	return portals
}

// isNotKnown tells that the array was asked and has no such initiator, from that it has no such tenant.
func isNotKnown(err error) bool {
	var refusal *datera.APIError
	return errors.Is(err, datera.ErrNotFound) && !errors.As(err, &refusal)
}
