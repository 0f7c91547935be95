package driver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"datera-flexvolume/datera"
)

// Identity tells the cluster from all others. Claims and descriptions carry it, names do not: those that the array has for
// app instances and initiators stay as they are, whatever the identity.
func (c Config) Identity() string {
	if c.ClusterID != "" {
		return c.ClusterID
	}
	return c.Cluster
}

// KnownByNameAlone tells of a cluster that another one of its name cannot be told from.
func (c Config) KnownByNameAlone() bool { return c.Identity() == c.Cluster }

// longestClusterID is beyond any UID of Kubernetes, and leaves room for a volume's name in a description.
const longestClusterID = 48

var (
	likeIQN         = pattern(`\A(?i:iqn|eui|naa)\.`)
	exemptInitiator = pattern(`\A(?:iqn|eui|naa)\.[a-z0-9.:_-]{1,219}\z`)
	exemptGroup     = pattern(`\A[A-Za-z_][A-Za-z0-9_.-]{2,63}\z`)
)

// checkTenancy checks what the configuration says of clusters and tenants.
func (c Config) checkTenancy(refuse func(field, value, accepts string)) {
	if len(c.Cluster) > 32 || !clusterName().MatchString(c.Cluster) {
		refuse("cluster", c.Cluster, "1 to 32 letters, digits and '-'")
	}
	if c.ClusterID != "" && (len(c.ClusterID) > longestClusterID || !clusterName().MatchString(c.ClusterID)) {
		refuse("cluster_id", c.ClusterID, "the UID of the cluster's namespace kube-system, 1 to 48 letters, digits and '-'")
	}
	for _, exempt := range c.Exempt {
		if !mayBeExempt(exempt) {
			refuse("exempt", exempt, "an initiator (its IQN, in lower case), or the name of an initiator group that is not this driver's")
		}
	}
	for _, tenant := range c.Tenants {
		if !isTenantPath(strings.Trim(tenant, "/")) {
			refuse("tenants", tenant, tenantAccepts)
		}
	}
}

// mayBeExempt: what begins like an IQN is one, though a group, too, may be called so. This driver's own groups always count.
func mayBeExempt(name string) bool {
	if likeIQN().MatchString(name) {
		return exemptInitiator().MatchString(name)
	}
	return exemptGroup().MatchString(name) && !strings.HasPrefix(name, groupPrefix) && !strings.HasPrefix(name, kindOfReaders+"_")
}

// CheckIQN refuses an initiator's name with capitals. They mean nothing (RFC 3722), so one side folds them and the other
// does not: what was registered is then not what logs in.
func CheckIQN(iqn string) error {
	lower := strings.ToLower(iqn)
	if lower == iqn {
		return nil
	}
	return fmt.Errorf("initiator name %s has capital letters, so the array would refuse its logins: write InitiatorName=%s to /etc/iscsi/initiatorname.iscsi "+
		"in lower case (RFC 3722), restart iscsid and repeat this", iqn, lower)
}

// TenantLister is an array that is asked for its tenants.
type TenantLister interface {
	Server() string
	Tenants(ctx context.Context) ([]string, error)
}

// SearchTenants are the paths of the tenants in which volumes of this cluster may be, the configured one first. A user who
// may not list the array's tenants has them in the configuration.
func (c Config) SearchTenants(ctx context.Context, array TenantLister) ([]string, error) {
	beside := c.Tenants
	if beside == nil {
		var err error
		if beside, err = array.Tenants(ctx); err != nil {
			return nil, c.explainTenants(fmt.Errorf("list the tenants of %s: %w", array.Server(), err))
		}
	}
	tenants := []string{tenantPathOf(c.Tenant)}
	for _, tenant := range beside {
		if path := tenantPathOf(tenant); !slices.Contains(tenants, path) {
			tenants = append(tenants, path)
		}
	}
	return tenants, nil
}

// explainTenants adds what helps a user who may not list tenants.
func (c Config) explainTenants(err error) error {
	var refusal *datera.APIError
	if errors.As(err, &refusal) && refusal.Status == http.StatusForbidden {
		return fmt.Errorf("%w; name the tenants beside %s in which this cluster has volumes under `tenants` in %s ([] for none), or let the user list tenants",
			err, tenantPathOf(c.Tenant), c.place())
	}
	return err
}

// tenantPathOf is the path of a tenant that may be given by its name alone.
func tenantPathOf(tenant string) string {
	switch name := strings.Trim(tenant, "/"); {
	case name == "" || name == "root":
		return "/root"
	case strings.HasPrefix(name, "root/"):
		return "/" + name
	default:
		return "/root/" + name
	}
}
