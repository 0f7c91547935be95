package driver

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"sync"
)

const (
	// kindOfGroup begins the names of all clusters' groups and initiators, groupPrefix shows them.
	kindOfGroup = "k8s"
	groupPrefix = kindOfGroup + "_"
	// kindOfReaders begins the names of lists of readers.
	kindOfReaders = "k8s-ro"
	// entityNameLimit is the longest name of an app instance or initiator group.
	entityNameLimit = 64
	// initiatorNameLimit is the longest name of an initiator.
	initiatorNameLimit = 128
)

var notInEntityName = pattern(`[^A-Za-z0-9_.-]`)

// pattern compiles a regular expression when it is first needed: most calls need few of
// them, and init, which runs often, none.
func pattern(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

// entityNameFor is the array-side name that stands for a volume of a cluster: of its app
// instance where no volumeID was given, and of its initiator group. Two volumes never
// share one: a name that had to be changed or cut carries a digest of the original.
func entityNameFor(cluster, volume string) string {
	return derivedName(entityNameLimit, kindOfGroup, cluster, volume)
}

// formerReaders names the group in which versions before this one noted who attached read-only. It grants nothing.
func formerReaders(cluster, volume string) string {
	return derivedName(entityNameLimit, "k8s-ro", cluster, volume)
}

// InitiatorName is the name under which the initiator of a node is registered on the array.
func InitiatorName(cluster, node string) string {
	return derivedName(initiatorNameLimit, kindOfGroup, cluster, node)
}

// GroupPrefix begins the names of the initiator groups of former versions that hold a cluster's claims, and of no other cluster's: a
// cluster's name has no underscore.
func GroupPrefix(cluster string) string { return groupPrefix + cluster + "_" }

// AllGroups begins the names of all clusters' groups.
const AllGroups = groupPrefix

// nodeOf is the inverse of InitiatorName where that is possible, for messages.
func nodeOf(cluster, initiatorName string) string {
	if node, found := strings.CutPrefix(initiatorName, GroupPrefix(cluster)); found {
		return node
	}
	return initiatorName
}

func derivedName(limit int, kind, cluster, name string) string {
	plain := kind + "_" + cluster + "_" + name
	safe := notInEntityName().ReplaceAllString(plain, "_")
	if safe == plain && len(plain) <= limit {
		return plain
	}
	sum := sha256.Sum256([]byte(plain))
	digest := hex.EncodeToString(sum[:6])
	return safe[:min(len(safe), limit-len(digest)-1)] + "-" + digest
}

// fileNameFor is a volume's name as the name of a file, where 255 bytes is the limit.
func fileNameFor(name string) string {
	const limit = 200 // also of what comes out, so that a file's name leads back to itself
	if len(name) <= limit {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	digest := hex.EncodeToString(sum[:6])
	return name[:limit-len(digest)-1] + "-" + digest
}

var subdomain = pattern(`\A[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?\z`)

// isSubdomain is what Kubernetes allows as a name.
func isSubdomain(name string) bool { return len(name) <= 253 && subdomain().MatchString(name) }

// checkVolumeName guards every place where the name of a PersistentVolume becomes part of
// a path: it is a DNS subdomain, so it holds no slash and is neither "." nor "..".
func checkVolumeName(name string) error {
	if !isSubdomain(name) || strings.Contains(name, "..") {
		return fmt.Errorf("volume name %s: accepted is the name of a PersistentVolume: lower-case letters, digits, '-' and '.', 253 at most", quoteShort(name))
	}
	return nil
}

// checkNodeName does the same for nodes.
func checkNodeName(name string) error {
	if !isSubdomain(name) {
		return fmt.Errorf("node name %s: accepted is the name of a Kubernetes node: lower-case letters, digits, '-' and '.', 253 at most", quoteShort(name))
	}
	return nil
}
