package driver

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"datera-flexvolume/datera"
)

// longestDescription keeps a description within what the array's other names allow.
const longestDescription = 128

const ofCluster, withID = " of Kubernetes cluster ", " with ID "

// descriptionOf says what an app instance was made for. It is written with the app instance itself, so a crash cannot part them.
func (c Config) descriptionOf(volume string) string {
	if c.KnownByNameAlone() {
		return formerDescriptionOf(c.Cluster, volume)
	}
	tail := ofCluster + c.Cluster + withID + c.Identity() // no brackets: the array's schema knows letters, digits, '_', '-', '.' and blanks
	longest := longestDescription - len("volume ") - len(tail)
	if len(volume) > longest {
		sum := sha256.Sum256([]byte(volume))
		digest := "-" + hex.EncodeToString(sum[:6])
		volume = volume[:longest-len(digest)] + digest
	}
	return "volume " + volume + tail
}

// formerDescriptionOf is what was written where no more was known of the cluster than its name.
func formerDescriptionOf(cluster, volume string) string {
	description := "volume " + volume + ofCluster + cluster
	return description[:min(len(description), longestDescription)]
}

// describes reports whether a description says that an app instance was made for a volume of this cluster. One that names no
// identity was made by a cluster of this name.
func (c Config) describes(description, volume string) bool {
	return description == c.descriptionOf(volume) || description == formerDescriptionOf(c.Cluster, volume)
}

// madeBy is the cluster that a description names, with its identity; "" where it names none.
func madeBy(description string) (cluster, identity string) {
	at := strings.LastIndex(description, ofCluster)
	if at < 0 {
		return "", ""
	}
	cluster, identity, _ = strings.Cut(description[at+len(ofCluster):], withID)
	return cluster, identity
}

// refuseAnothers keeps two clusters of one name from sharing a volume that neither of them named: from equal names of
// PersistentVolumes equal names on the array are derived. Who names a volume by volumeID means it, whoever made it.
func (d *Driver) refuseAnothers(ai *datera.AppInstance, volume Volume) error {
	cluster, identity := madeBy(ai.Descr)
	if !volume.Derived || identity == "" || identity == d.Config.Identity() {
		return nil
	}
	return fmt.Errorf("it is there, and was made for cluster %q with identity %s, while this one's is %s: it is left alone. Give each cluster a `cluster` of its own, "+
		"or this volume the option %s; if this cluster takes over what that one had, set cluster_id: %[2]s in the configuration", cluster, identity, d.Config.Identity(), optVolumeID)
}
