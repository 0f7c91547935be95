package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"datera-flexvolume/datera"
)

// maxSkew is how far this node's clock may be from the array's.
const maxSkew = time.Minute

func (e *examination) configuration(context.Context) []Finding {
	if e.ConfigError != nil {
		return []Finding{problem("", "%v", e.ConfigError)}
	}
	if _, err := e.Config.connectionFor(Volume{}); err != nil && e.Config.Attach != AttachNone {
		return []Finding{warning("", "%v. Without them this node cannot grow volumes%s", err, onlyIf(e.Config.Attach == AttachKubelet, ", nor attach them"))}
	}
	if e.Config.Path == "" {
		return fine("from the environment alone, attach mode %s, cluster %s", e.Config.Attach, e.Config.Cluster)
	}
	info, err := os.Stat(e.Config.Path)
	if err != nil {
		return []Finding{problem("", "%v", err)}
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return []Finding{warning("chmod 0600 "+e.Config.Path, "%s holds the array's password and has mode %04o", e.Config.Path, mode)}
	}
	return fine("%s, attach mode %s, cluster %s", e.Config.Path, e.Config.Attach, e.Config.Cluster)
}

func onlyIf(condition bool, text string) string {
	if condition {
		return text
	}
	return ""
}

// notAsked is the finding of a check that needs an answer which is not there. Why not is another check's finding.
func notAsked(err error) []Finding {
	if errors.Is(err, errNoProbe) {
		return []Finding{warning("", "not known: %v", err)}
	}
	return []Finding{warning("", "not known: the array does not answer this node's questions")}
}

// array finds out whether the array can be reached, is who it should be, and speaks the API.
func (e *examination) array(context.Context) []Finding {
	about, err := e.about()
	if errors.Is(err, errNoProbe) {
		return notAsked(err)
	}
	if err != nil {
		return []Finding{problem("", "%v", err)}
	}
	array, err := e.probe()
	if err != nil {
		return []Finding{problem("", "%v", err)}
	}
	wanted := strings.TrimPrefix(cmp.Or(e.Config.APIVersion, "2.2"), "v")
	if len(about.Versions) > 0 && !slices.Contains(about.Versions, wanted) {
		return []Finding{problem("set api_version in the configuration to one of them",
			"%s speaks versions %s of the API, not %s", array.Server(), strings.Join(about.Versions, ", "), wanted)}
	}
	switch {
	case !strings.HasPrefix(array.Server(), "https:"):
	case e.Config.TLSFingerprint != "":
		return fine("%s answers with the certificate that tls_fingerprint names, and API %s is used", array.Server(), wanted)
	default:
		return fine("%s answers, its certificate is good, and API %s is used", array.Server(), wanted)
	}
	return fine("%s answers, without TLS, and API %s is used", array.Server(), wanted)
}

// credentials tries user, password and tenant with a login of its own.
func (e *examination) credentials(context.Context) []Finding {
	_, err := e.byName()
	var refusal *datera.APIError
	var shared *datera.SharedNameError
	switch {
	case err == nil, isNotKnown(err), errors.As(err, &shared):
		return fine("user %q is let in, in tenant %s", e.Config.Username, e.Config.Tenant)
	case datera.IsAuth(err):
		return []Finding{problem("correct username and password in "+e.Config.place(), "%v", err)}
	case errors.As(err, &refusal) && (refusal.Status == http.StatusNotFound || refusal.Status == http.StatusForbidden):
		return []Finding{problem("correct tenant in "+e.Config.place()+", or the user's rights on the array", "%v", err)}
	}
	return notAsked(err)
}

// clock compares this node's time with the array's: certificates and logs depend on it.
func (e *examination) clock(context.Context) []Finding {
	about, err := e.about()
	switch {
	case err != nil:
		return notAsked(err)
	case about.Clock.IsZero():
		return fine("the array does not tell its time")
	}
	skew := time.Since(about.Clock).Round(time.Second)
	if skew.Abs() > maxSkew {
		return []Finding{warning("synchronise both with NTP (`timedatectl`)", "this node is %s off the array's clock", skew)}
	}
	return fine("within %s of the array's", maxSkew)
}

// registration makes sure that the control plane finds this node's initiator by the node's name.
func (e *examination) registration(context.Context) []Finding {
	node, err := e.Config.NodeName()
	if err != nil {
		return []Finding{problem("set node in the configuration", "%v", err)}
	}
	iqn, err := e.Initiator.Name()
	if err != nil {
		return []Finding{warning("", "not known: this node has no initiator name")}
	}
	initiator, err := e.byName()
	var shared *datera.SharedNameError
	switch {
	case errors.As(err, &shared):
		return []Finding{problem(fmt.Sprintf("delete on the array all of them but this node's, %s, then `iscsi register %s`", iqn, node),
			"initiators %s have the same name %q on the array: nothing can be attached to node %s", strings.Join(shared.IQNs, " and "), shared.Name, node)}
	case err == nil && initiator.ID == iqn:
		return fine("%s, as %s", node, initiator.Name)
	case err == nil:
		return []Finding{problem(nameTakenRemedy(e.Config.Cluster, node, initiator.ID),
			"node %s is registered with initiator %s, but its initiator is %s: the array refuses its logins", node, initiator.ID, iqn)}
	case !isNotKnown(err):
		return notAsked(err)
	case e.Config.Attach != AttachController:
		return fine("%s is not registered yet: its first attach does that", node)
	}
	return []Finding{problem(fmt.Sprintf("`iscsi register %s`; if Kubernetes calls this node otherwise, set node in the configuration", node),
		"no initiator on the array has the name %q: volumes cannot be attached to node %s", InitiatorName(e.Config.Cluster, node), node)}
}
