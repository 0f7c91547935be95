package access

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// An Owner is who claims a volume: a PersistentVolume of a cluster. In attach mode none, where in-line volumes of different
// pods may share a name, it is the app instance's name instead.
type Owner struct {
	Cluster string // its identity: the UID of its namespace kube-system, or the configured name
	PV      string
	Former  string // the name of the group that versions before this one kept for the PersistentVolume
}

// A group belongs to one owner and one volume, and says what it grants:
//
//	k8s_<owner: 12 hex>_<volume's UUID: 12 hex>_<rw|ro>_<PersistentVolume, cut>
//
// The array's schema allows 64 characters. Former versions take each k8s_ group but their own for another's, and keep out.
const nameLimit, namePrefix = 64, "k8s_"

// Grants is the access that a group of this form grants, "rw" or "ro", of whichever cluster; "" for any other group.
func Grants(group string) string {
	parts := strings.SplitN(group, "_", 5)
	isDigest := func(s string) bool { return len(s) == 12 && strings.Trim(s, "0123456789abcdef") == "" }
	if len(parts) == 5 && parts[0]+"_" == namePrefix && isDigest(parts[1]) && isDigest(parts[2]) && (parts[3] == "rw" || parts[3] == "ro") {
		return parts[3]
	}
	return ""
}

// Prefix begins the names of the owner's groups.
func (o Owner) Prefix() string { return namePrefix + digest(o.Cluster+"\x00"+o.PV) + "_" }

// volumePart is in the names of all groups of a volume.
func volumePart(volumeID string) string { return "_" + digest(strings.ToLower(volumeID)) + "_" }

func (o Owner) group(volumeID string, readOnly bool) string {
	access := "rw_"
	if readOnly {
		access = "ro_"
	}
	name := strings.TrimSuffix(o.Prefix(), "_") + volumePart(volumeID) + access + strings.ReplaceAll(o.PV, " ", "_")
	return name[:min(len(name), nameLimit)]
}

// Owns reports whether a group holds claims of the owner, on whichever volume.
func (o Owner) Owns(group string) bool {
	return group != "" && group == o.Former || strings.HasPrefix(group, o.Prefix()) && Grants(group) != ""
}

// Lets reports whether a member of the group has a claim of the owner's that is enough to write or, with readOnly, to read.
func (o Owner) Lets(group string, readOnly bool) bool {
	return o.Owns(group) && (readOnly || Grants(group) != "ro")
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}
