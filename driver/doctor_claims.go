package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"datera-flexvolume/datera"
	"datera-flexvolume/driver/access"
)

// mostClaims is how many claims without a session are named one by one.
const mostClaims = 10

// cluster says by what the cluster is known: two that are known by one identity take each other's claims for their own.
func (e *examination) cluster(ctx context.Context) []Finding {
	if e.ConfigError != nil {
		return []Finding{warning("", "not known: the configuration cannot be used")}
	}
	if iqn, err := e.Initiator.Name(); err == nil && slices.Contains(e.Config.Exempt, iqn) {
		return []Finding{problem("take it out of exempt in "+e.Config.place(),
			"this node's initiator %s is exempt: what it has keeps no other node out, and two can write", iqn)}
	}
	const find = "the UID of the namespace kube-system (`kubectl get namespace kube-system -o jsonpath={.metadata.uid}`)"
	if e.Config.KnownByNameAlone() {
		return []Finding{warning("give each cluster on the array a `cluster` of its own; let the installer read, or set as cluster_id while no volume is attached, "+find,
			"the cluster is known by its name %q alone: clusters of one name on an array cannot be told apart", e.Config.Cluster)}
	}
	if e.AskCluster != nil {
		if found, err := e.AskCluster(ctx); err == nil && found != e.Config.Identity() {
			return []Finding{warning("if that was not meant, as for a cluster that took over another one's volumes: set cluster_id to it while no volume is attached",
				"the identity in force is %s, and the namespace kube-system has the UID %s", e.Config.Identity(), found)}
		}
	}
	return fine("%s, identity %s", e.Config.Cluster, e.Config.Identity())
}

// claims names what keeps nodes from the cluster's volumes and is not known to be in use: entries that other software or people
// put into the ACL policies, and nodes without a session.
func (e *examination) claims(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, arrayTime)
	defer cancel()
	array, err := e.probe()
	if err != nil {
		return notAsked(err)
	}
	tenants, err := e.Config.SearchTenants(ctx, array)
	var refusal *datera.APIError
	switch {
	case errors.As(err, &refusal) && refusal.Status == http.StatusForbidden:
		return []Finding{problem("", "a detach looks for volumes in every tenant: %v", err)}
	case err != nil:
		return notAsked(err)
	}
	reach := reachOf{Config: e.Config, foreign: map[string][]string{}}
	for _, tenant := range tenants {
		if err := e.lookInto(ctx, tenant, &reach); err != nil {
			return []Finding{warning("", "not known: look who may reach the volumes of tenant %s: %v", tenant, err)}
		}
	}
	if found := reach.findings(); len(found) > 0 {
		return found
	}
	return fine("each is of a node of this cluster, which has a session")
}

func (e *examination) lookInto(ctx context.Context, tenant string, reach *reachOf) error {
	connection, err := e.Config.connectionFor(Volume{})
	if err != nil {
		return err
	}
	array, err := e.OpenProbe(connection.Scheme, connection.Credentials, tenant)
	if err != nil {
		return err
	}
	volumes, err := array.AppInstanceOutlines(ctx)
	if err != nil {
		return err
	}
	groups, err := array.InitiatorGroupsWithPrefix(ctx, "")
	if err != nil {
		return err
	}
	initiators, err := array.Initiators(ctx)
	if err != nil {
		return err
	}
	members, names := map[string][]string{}, map[string]string{}
	for _, group := range groups {
		members[group.Name] = group.Members
	}
	for _, initiator := range initiators {
		names[initiator.ID] = initiator.Name
	}
	for _, ai := range volumes {
		reach.add(ai, members, names)
	}
	return nil
}

// reachOf is who may reach the volumes of a cluster.
type reachOf struct {
	Config
	open    []string            // volumes that let everybody in
	foreign map[string][]string // volumes by what is in their policies and is not this driver's
	idle    []Finding           // claims without a session
}

// add looks at an app instance, if it is a volume of the cluster.
func (r *reachOf) add(ai datera.AppInstance, members map[string][]string, names map[string]string) {
	if !r.isOurs(ai, members, names) {
		return
	}
	for _, instance := range ai.StorageInstances {
		if instance.AccessControlMode == allowAll {
			r.open = append(r.open, ai.Name)
		}
		for _, entry := range instance.ACL.Initiators {
			if iqn := lastOfPath(entry.Path); !slices.Contains(r.Exempt, iqn) {
				r.note("initiator "+called(iqn, names), ai.Name)
			}
		}
		for _, entry := range instance.ACL.InitiatorGroups {
			group := lastOfPath(entry.Path)
			counted := without(members[group], r.Exempt)
			switch {
			case slices.Contains(r.Exempt, group) || len(counted) == 0: // it lets nobody in who counts
			case strings.HasPrefix(group, groupPrefix):
				r.addClaims(ai, group, counted, instance.ActiveInitiators, names)
			default:
				r.note(fmt.Sprintf("initiator group %s with %s", group, strings.Join(counted, " and ")), ai.Name)
			}
		}
	}
}

func (r *reachOf) note(entry, volume string) {
	if !slices.Contains(r.foreign[entry], volume) {
		r.foreign[entry] = append(r.foreign[entry], volume)
	}
}

// isOurs tells of a volume that this cluster made, or that a node of it has.
func (r *reachOf) isOurs(ai datera.AppInstance, members map[string][]string, names map[string]string) bool {
	prefix := GroupPrefix(r.Cluster)
	cluster, identity := madeBy(ai.Descr)
	ofThisName := strings.HasPrefix(ai.Name, prefix) || cluster == r.Cluster
	if ofThisName && (identity == "" || identity == r.Identity()) {
		return true
	}
	isNode := func(iqn string) bool { return strings.HasPrefix(names[iqn], prefix) }
	return slices.ContainsFunc(ai.StorageInstances, func(instance datera.StorageInstance) bool {
		return slices.ContainsFunc(instance.ACL.InitiatorGroups, func(entry datera.Reference) bool {
			group := lastOfPath(entry.Path)
			return strings.HasPrefix(group, prefix) || access.Grants(group) != "" && slices.ContainsFunc(members[group], isNode)
		})
	})
}

// addClaims notes members of one of this driver's groups that have no session. An array that does not tell of sessions leaves
// that open.
func (r *reachOf) addClaims(ai datera.AppInstance, group string, members, active []string, names map[string]string) {
	if active == nil {
		return
	}
	for _, iqn := range without(members, active) {
		cluster, node, ours := ownerOf(names[iqn])
		if ours && cluster != r.Cluster {
			continue // its own cluster's doctor names it
		}
		pv := claimedAs(r.Cluster, group, ai.Descr)
		if !ours {
			r.idle = append(r.idle, warning(fmt.Sprintf("if no pod uses it there, remove %s on the array from initiator group %s", iqn, group),
				"%s may reach volume %s and has no session", called(iqn, names), ai.Name))
			continue
		}
		r.idle = append(r.idle, warning(fmt.Sprintf("if no pod there uses it: `iscsi detach %s %s`", pv, node),
			"node %s (%s) may reach volume %s and has no session", node, iqn, ai.Name))
	}
}

func (r *reachOf) findings() []Finding {
	var found []Finding
	if len(r.open) > 0 {
		found = append(found, problem("set access_control_mode to "+denyAll+" on the array", "every initiator may reach %s, so nothing keeps two nodes apart", some(r.open)))
	}
	for _, entry := range slices.Sorted(maps.Keys(r.foreign)) {
		found = append(found, warning("take it out of their ACL policies on the array; if it may reach them beside a node, as a backup host does, name it under exempt in the configuration",
			"%s is in the ACL policy of %s: it counts as a claim, and keeps other nodes out", entry, some(r.foreign[entry])))
	}
	found = append(found, r.idle[:min(len(r.idle), mostClaims)]...)
	if more := len(r.idle) - mostClaims; more > 0 {
		found = append(found, warning("begin with those", "%d more claims have no session", more))
	}
	return found
}

// some names a few of many volumes.
func some(volumes []string) string {
	const few = 3
	text := "volume " + strings.Join(volumes[:min(len(volumes), few)], ", ")
	if more := len(volumes) - few; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// called is an initiator with the name that the array has for it.
func called(iqn string, names map[string]string) string {
	if name := names[iqn]; name != "" {
		return fmt.Sprintf("%s (%s)", iqn, name)
	}
	return iqn + " (registered under no name)"
}

// claimedAs is the PersistentVolume by which a group claims a volume. Where its name was cut, the volume's description may tell.
func claimedAs(cluster, group, description string) string {
	name, _ := strings.CutPrefix(group, GroupPrefix(cluster))
	if access.Grants(group) != "" {
		name = strings.SplitN(group, "_", 5)[4]
	}
	if len(group) < entityNameLimit {
		return name
	}
	words := strings.Fields(description)
	if len(words) > 1 && strings.HasPrefix(words[1], name) {
		return words[1]
	}
	return name + "…"
}

func lastOfPath(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// without is what a has and b has not.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(iqn string) bool { return datera.ContainsIQN(b, iqn) })
}
