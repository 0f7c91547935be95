package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"datera-flexvolume/driver"
	"datera-flexvolume/driver/access"
)

// readUID is how people find the identity that this program finds in a pod.
const readUID = "kubectl get namespace kube-system -o jsonpath={.metadata.uid}"

// identify gives the configuration the identity of the cluster, by which claims are found: what was configured, else what the
// cluster itself says, else what is installed, else the cluster's name. It is written into the node's configuration in any
// case, so that an installed identity can be told from the configuration of a version that knew none.
//
// An identity that is installed is not changed while a claim of it stands: nobody would find that again.
func (i *Installer) identify(ctx context.Context, config driver.Config) (identified driver.Config, message string, changed bool, err error) {
	installed, _ := i.installed() // what cannot be read holds no identity
	id, origin, err := i.identityFor(ctx, config, installed)
	if err != nil {
		return config, "", false, err
	}
	former := installed.ClusterID
	config.ClusterID = id.text
	if former != "" && former != id.text {
		switch err := i.refuseClaims(ctx, config, installed); {
		case err != nil && id.chosen:
			return config, "", false, fmt.Errorf("the cluster's identity is not changed from %s to %s: %w; or keep the identity: cluster_id: %[1]s in datera-config", former, id.text, err)
		case err != nil:
			config.ClusterID, origin = former, fmt.Sprintf("as installed; it becomes %s (%s) when no claim of it stands: %v", id.text, origin, err)
		}
	}
	if _, err := config.ForNode(config.Node, ""); err != nil {
		return config, "", false, err
	}
	return config, fmt.Sprintf("identity %s, %s", config.ClusterID, origin), config.ClusterID != former, nil
}

// identity is one that a node may get. One that was chosen is there for a reason: it is put in force, or its failure is said.
type identity struct {
	text   string
	chosen bool
}

func (i *Installer) identityFor(ctx context.Context, config, installed driver.Config) (id identity, origin string, err error) {
	if i.ClusterID != "" {
		return identity{i.ClusterID, true}, "by --cluster-id", nil
	}
	if config.ClusterID != "" {
		return identity{config.ClusterID, true}, "cluster_id of datera-config", nil
	}
	found, err := i.askCluster(ctx)
	if err == nil {
		return identity{found, false}, "the UID of the namespace " + kubeSystem, nil
	}
	if installed.ClusterID != "" && !installed.KnownByNameAlone() {
		return identity{installed.ClusterID, false}, fmt.Sprintf("as installed; it could not be compared with the cluster's: %v", err), nil
	}
	if installed.ClusterID == "" && !errors.Is(err, ErrNoAPI) && !errors.Is(err, ErrForbidden) {
		// To begin with another identity than the other nodes would be worse than to wait.
		return identity{}, "", fmt.Errorf("find the cluster's identity, the UID of the namespace %s: %w; or set cluster_id in datera-config (`%s`)", kubeSystem, err, readUID)
	}
	return identity{config.Cluster, true}, fmt.Sprintf("the cluster's name alone: clusters of one name on an array cannot be told apart; set cluster_id in datera-config (`%s`), "+
		"as it could not be found: %v", readUID, err), nil
}

// askCluster asks once: a cluster keeps its identity for life.
func (i *Installer) askCluster(ctx context.Context) (string, error) {
	switch {
	case i.clusterID != "":
		return i.clusterID, nil
	case i.AskCluster == nil:
		return "", ErrNoAPI
	}
	found, err := i.AskCluster(ctx)
	i.clusterID = found
	return found, err
}

// refuseClaims names claims that were made under the installed identity by whoever has this configuration: in attach mode
// controller the control plane's, on all nodes; else this node's own. Workers make none in that mode.
func (i *Installer) refuseClaims(ctx context.Context, config, installed driver.Config) error {
	if registersByItself(config) {
		return i.refuseInUse(ctx, installed)
	}
	own := i.ownInitiators()
	if iqn, err := i.Initiator.Name(); err == nil {
		own = append(own, iqn)
	}
	concerns := func(member member) (bool, error) { return slices.Contains(own, member.iqn), nil }
	remedy := "drain the node, so that its volumes are detached"
	if installed.Attach == driver.AttachController {
		if !i.ControlPlane {
			return nil
		}
		concerns, remedy = isOfCluster(installed.Cluster), "scale the cluster's pods with volumes down, so that these are detached"
	}
	claims, err := i.groupsWith(ctx, config, func(group string) bool { return access.Grants(group) != "" }, concerns)
	if err != nil {
		return fmt.Errorf("look for claims on volumes: %w", err)
	}
	if len(claims) == 0 {
		return nil
	}
	return fmt.Errorf("claims stand that are found by it alone: %s; %s", strings.Join(claims, ", "), remedy)
}

// checkIdentity tells whether the node has the identity that was configured.
func (i *Installer) checkIdentity(installed driver.Config) error {
	source, _ := i.Load() // what is wrong with it is said by who installs it
	wanted := cmp.Or(i.ClusterID, source.ClusterID)
	if wanted == "" || wanted == installed.Identity() {
		return nil
	}
	return fmt.Errorf("this node has the cluster identity %s, and %s is configured: it is not changed while claims of it stand; the log of `iscsi install` names them",
		installed.Identity(), wanted)
}
