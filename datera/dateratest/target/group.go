package target

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// group is one target portal group of a LIO target.
type group struct {
	tree tree
	at   string
	hba  string
}

// put makes the group be as the target and the portal say. It is enabled last, when everything is in place.
func (g group) put(t Target, p Portal) error {
	if err := g.tree.Mkdir(g.at); err != nil {
		return err
	}
	if p.Down {
		if err := g.set("enable", "0"); err != nil {
			return err
		}
		return g.putPortals("")
	}
	if !t.AllowAll && g.read("attrib/generate_node_acls") == "1" { // the sessions of hosts without an ACL have to end
		if err := g.set("enable", "0"); err != nil {
			return err
		}
	}
	for _, step := range []func() error{
		func() error { return g.putAttributes(t) },
		func() error { return g.putLUNs(t.LUNs) },
		func() error { return g.putHosts(t) },
		func() error { return g.putPortals(p.Address.String()) },
		func() error { return g.set("enable", "1") },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (g group) putAttributes(t Target) error {
	authenticate, everybody := "0", "0"
	if t.Auth.User != "" {
		authenticate = "1"
	}
	if t.AllowAll {
		everybody = "1"
	}
	for _, w := range [][2]string{{"attrib/authentication", authenticate}, {"attrib/generate_node_acls", everybody},
		{"attrib/cache_dynamic_acls", everybody}, {"attrib/demo_mode_write_protect", "0"}} {
		if err := g.set(w[0], w[1]); err != nil {
			return err
		}
	}
	if t.AllowAll {
		return g.putAuth("auth", t.Auth)
	}
	return nil
}

func (g group) putAuth(at string, a Auth) error {
	for _, w := range [][2]string{{"userid", a.User}, {"password", a.Password}, {"userid_mutual", a.MutualUser},
		{"password_mutual", a.MutualPassword}} {
		if w[1] == "" {
			w[1] = "NULL" // how the kernel wants to be told that there is none
		}
		if g.read(path.Join(at, w[0])) == "" && w[1] == "NULL" {
			continue
		}
		if err := g.set(path.Join(at, w[0]), w[1]); err != nil {
			return err
		}
	}
	return nil
}

// putLUNs exports the volumes in their order, and takes away what is not in the list any more.
func (g group) putLUNs(luns []LUN) error {
	var wanted []string
	for i, lun := range luns {
		name := fmt.Sprintf("lun_%d", i)
		wanted = append(wanted, name)
		at := path.Join(g.at, "lun", name)
		if g.tree.Linked(path.Join(at, lun.Serial)) == lun.Serial {
			continue
		}
		if err := g.removeLUN(name); err != nil {
			return err
		}
		if err := g.tree.Mkdir(at); err != nil {
			return err
		}
		if err := g.tree.Link(path.Join(g.hba, lun.Serial), path.Join(at, lun.Serial)); err != nil {
			return fmt.Errorf("export volume %s: %w", lun.Serial, err)
		}
	}
	for _, name := range g.tree.Folders(path.Join(g.at, "lun")) {
		if !slices.Contains(wanted, name) {
			if err := g.removeLUN(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g group) removeLUN(name string) error {
	for _, host := range g.hosts() {
		if err := g.removeWithLinks(path.Join(g.at, "acls", host, name)); err != nil {
			return err
		}
	}
	return g.removeWithLinks(path.Join(g.at, "lun", name))
}

func (g group) removeWithLinks(at string) error {
	for _, link := range g.tree.Links(at) {
		if err := g.tree.Remove(path.Join(at, link)); err != nil {
			return err
		}
	}
	return g.tree.Remove(at)
}

func (g group) hosts() []string { return g.tree.Folders(path.Join(g.at, "acls")) }

// putHosts lets the hosts in and removes the others, which ends their sessions.
func (g group) putHosts(t Target) error {
	wanted := t.Initiators
	if t.AllowAll {
		wanted = nil
	}
	for _, host := range g.hosts() {
		if !slices.Contains(wanted, host) {
			if err := g.removeHost(host); err != nil {
				return err
			}
		}
	}
	for _, host := range wanted {
		if err := g.putHost(host, len(t.LUNs), t.Auth); err != nil {
			return fmt.Errorf("let %s in: %w", host, err)
		}
	}
	return nil
}

func (g group) putHost(host string, luns int, a Auth) error {
	at := path.Join(g.at, "acls", host)
	if err := g.tree.Mkdir(at); err != nil {
		return err
	}
	if err := g.putAuth(path.Join("acls", host, "auth"), a); err != nil {
		return err
	}
	for i := range luns {
		name := fmt.Sprintf("lun_%d", i)
		if err := g.tree.Mkdir(path.Join(at, name)); err != nil {
			return err
		}
		if g.tree.Linked(path.Join(at, name, "lun")) == name {
			continue
		}
		if err := g.tree.Link(path.Join(g.at, "lun", name), path.Join(at, name, "lun")); err != nil {
			return err
		}
	}
	return nil
}

func (g group) removeHost(host string) error {
	at := path.Join(g.at, "acls", host)
	for _, lun := range g.tree.Folders(at) {
		if !strings.HasPrefix(lun, "lun_") {
			continue
		}
		if err := g.removeWithLinks(path.Join(at, lun)); err != nil {
			return err
		}
	}
	if err := g.tree.Remove(at); err != nil {
		return fmt.Errorf("shut %s out: %w", host, err)
	}
	return nil
}

// putPortals leaves only the wanted network portal, or none.
func (g group) putPortals(wanted string) error {
	for _, name := range g.tree.Folders(path.Join(g.at, "np")) {
		if name != wanted {
			if err := g.tree.Remove(path.Join(g.at, "np", name)); err != nil {
				return err
			}
		}
	}
	if wanted == "" {
		return nil
	}
	if err := g.tree.Mkdir(path.Join(g.at, "np", wanted)); err != nil {
		return fmt.Errorf("listen on it: %w", err)
	}
	return nil
}

// remove unmakes the group from the outside in, as the kernel wants it.
func (g group) remove() error {
	if err := g.set("enable", "0"); err != nil {
		return err
	}
	var failed []error
	for _, host := range g.hosts() {
		failed = append(failed, g.removeHost(host))
	}
	failed = append(failed, g.putLUNs(nil), g.putPortals(""))
	return errors.Join(append(failed, g.tree.Remove(g.at))...)
}

// sessions are the hosts that are logged in through this group.
func (g group) sessions() []string {
	// The kernel ends each name with a line feed and a NUL.
	active := strings.FieldsFunc(g.read("dynamic_sessions"), func(r rune) bool { return r == '\n' || r == 0 })
	for _, host := range g.hosts() {
		if about := g.read(path.Join("acls", host, "info")); about != "" && !strings.HasPrefix(about, "No active iSCSI Session") {
			active = append(active, host)
		}
	}
	return active
}

func (g group) read(attribute string) string { return g.tree.Read(path.Join(g.at, attribute)) }

// set writes an attribute unless it has the value already.
func (g group) set(attribute, value string) error {
	if g.read(attribute) == value {
		return nil
	}
	if err := g.tree.Write(path.Join(g.at, attribute), value); err != nil {
		return fmt.Errorf("write %s: %w", attribute, err)
	}
	return nil
}
