package driver

import (
	"errors"
	"fmt"
	"strings"

	"datera-flexvolume/datera"
)

// initiatorFile is open-iscsi's.
const initiatorFile = "/etc/iscsi/initiatorname.iscsi"

// NameTaken says that the array has another initiator under this node's name. It can be an old one of this node, or one of
// another cluster of this name; whose it is, only people can tell, so it is left alone.
func NameTaken(server, cluster, node, theirs, ours string) error {
	return fmt.Errorf("%s has another machine as node %s: %s is registered with initiator %s, this node's is %s. %s; nothing was changed",
		server, node, InitiatorName(cluster, node), theirs, ours, nameTakenRemedy(cluster, node, theirs))
}

// nameTakenRemedy is how to tell, and what to do in each case.
func nameTakenRemedy(cluster, node, theirs string) string {
	return fmt.Sprintf("Either this node was set up again and had %[3]s before: then delete initiator %[3]s on the array, or write it back to %[4]s and restart iscsid. "+
		"Or another cluster called %[1]q uses this array: then a node %[2]s of that cluster has %[3]s in its %[4]s, and each cluster needs a `cluster` of its own; "+
		"change it in the one that has no volumes yet, as volumes without volumeID are called after it", cluster, node, theirs, initiatorFile)
}

// ownerOf takes the name of an initiator apart that InitiatorName made: a cluster's name has no underscore.
func ownerOf(initiatorName string) (cluster, node string, ours bool) {
	rest, ours := strings.CutPrefix(initiatorName, groupPrefix)
	cluster, node, found := strings.Cut(rest, "_")
	return cluster, node, ours && found
}

// IQNTaken says that the array has this node's initiator as another node's; nil: it has not. What other software calls the
// initiator says nothing about nodes.
func IQNTaken(server, cluster, node string, registered datera.Initiator) error {
	if remedy := iqnTakenRemedy(cluster, node, registered.Name); remedy != "" {
		return fmt.Errorf("initiator %s of this node, %s, is registered on %s for another one, as %s. %s; nothing was changed",
			registered.ID, node, server, registered.Name, remedy)
	}
	return nil
}

// iqnTakenRemedy is what to do about an initiator that is registered as another node's; "": it is not. Names are compared as
// the array has them, where a long one is cut.
func iqnTakenRemedy(cluster, node, registered string) string {
	of, other, ours := ownerOf(registered)
	if !ours || registered == InitiatorName(cluster, node) {
		return ""
	}
	remedy := fmt.Sprintf("Two machines with one initiator name, as copies of an image are, are one to the array, and both could write: give this one a name of its own "+
		"(echo \"InitiatorName=$(iscsi-iname)\" >%s, restart iscsid, `iscsi register %s`)", initiatorFile, node)
	switch {
	case of != cluster:
		remedy += fmt.Sprintf(". If this machine was a node of cluster %q before, delete that initiator on the array", of)
	case len(registered) < initiatorNameLimit: // else it may be cut
		remedy += fmt.Sprintf(". If %s is what Kubernetes calls this node, set node: %[1]s in the configuration", other)
	}
	return remedy
}

// ExplainRegistration says what to do where the array refuses a node's registration because it has its initiator as another's.
func ExplainRegistration(err error, server, cluster, node string) error {
	var renamed *datera.InitiatorNameError
	if errors.As(err, &renamed) {
		if taken := IQNTaken(server, cluster, node, datera.Initiator{ID: renamed.IQN, Name: renamed.Have}); taken != nil {
			return fmt.Errorf("%w (%w)", taken, err)
		}
	}
	return err
}
