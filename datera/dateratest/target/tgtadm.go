package target

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Apply makes a target be as described.
func (g *TGT) Apply(ctx context.Context, t Target) error {
	if err := g.apply(ctx, t); err != nil {
		return fmt.Errorf("iSCSI target %s: %w", t.IQN, err)
	}
	return nil
}

func (g *TGT) apply(ctx context.Context, t Target) error {
	if err := g.putPortals(ctx, t.Portals); err != nil {
		return err
	}
	s := g.targets[t.IQN]
	if s == nil {
		s = &served{Target: Target{IQN: t.IQN}, tid: g.lastTID + 1}
		if err := g.on(ctx, s, "target", "new", "--targetname", t.IQN); err != nil {
			return err
		}
		g.lastTID++
		g.targets[t.IQN] = s
	}
	if err := g.putLUNs(ctx, s, t.LUNs); err != nil {
		return err
	}
	if err := g.putAuth(ctx, s, t.Auth); err != nil {
		return err
	}
	return g.putHosts(ctx, s, t)
}

// on runs a command about one target.
func (g *TGT) on(ctx context.Context, s *served, mode, operation string, args ...string) error {
	return g.admin(ctx, mode, operation, append([]string{"--tid", strconv.Itoa(s.tid)}, args...)...)
}

// putPortals opens and closes portals. They are common to all targets, and tgtd does not say which session came through
// which portal: when one goes down, all sessions end, and those through the others come back at once.
func (g *TGT) putPortals(ctx context.Context, portals []Portal) error {
	for _, p := range portals {
		operation := "new"
		if p.Down {
			operation = "delete"
		}
		if g.portals[p.Address] == !p.Down {
			continue
		}
		if err := g.admin(ctx, "portal", operation, "--param", "portal="+p.Address.String()); err != nil {
			return fmt.Errorf("portal %s: %w", p.Address, err)
		}
		g.portals[p.Address] = !p.Down
		if !p.Down {
			continue
		}
		for _, iqn := range sortedIQNs(g.targets) {
			if err := g.endSessions(ctx, g.targets[iqn], nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// putLUNs removes the volumes from the first that is not in its place any more, and adds what is missing.
func (g *TGT) putLUNs(ctx context.Context, s *served, luns []LUN) error {
	same := 0
	for same < min(len(luns), len(s.LUNs)) && luns[same].Serial == s.LUNs[same].Serial {
		same++
	}
	for len(s.LUNs) > same {
		last := len(s.LUNs) - 1
		if err := g.on(ctx, s, "logicalunit", "delete", "--lun", g.number(last)); err != nil {
			return err
		}
		s.LUNs = s.LUNs[:last]
	}
	for i, lun := range luns[:same] {
		if err := g.grow(ctx, s, i, lun); err != nil {
			return err
		}
	}
	for _, lun := range luns[same:] {
		if err := g.export(ctx, s, lun); err != nil {
			return fmt.Errorf("export volume %s: %w", lun.Serial, err)
		}
	}
	return nil
}

func (g *TGT) export(ctx context.Context, s *served, lun LUN) error {
	number := g.number(len(s.LUNs))
	if err := g.on(ctx, s, "logicalunit", "new", "--lun", number, "--backing-store", lun.File); err != nil {
		return err
	}
	s.LUNs = append(s.LUNs, lun)
	identity := fmt.Sprintf("vendor_id=%s,product_id=%s,product_rev=%s,scsi_sn=%s,scsi_id=%s,thin_provisioning=1",
		vendor, product, revision, lun.Serial, lun.Serial)
	return g.on(ctx, s, "logicalunit", "update", "--lun", number, "--params", identity)
}

func (g *TGT) number(i int) string { return strconv.Itoa(g.FirstLUN() + i) }

// grow lets tgtd open the file anew, which is how it learns of a new size. Sessions stay.
func (g *TGT) grow(ctx context.Context, s *served, i int, lun LUN) error {
	if lun.Size == s.LUNs[i].Size {
		return nil
	}
	if err := g.on(ctx, s, "logicalunit", "update", "--lun", g.number(i), "--params", "online=0,path="+lun.File); err != nil {
		return fmt.Errorf("resize volume %s: %w", lun.Serial, err)
	}
	s.LUNs[i] = lun
	return nil
}

// putAuth binds the accounts of the target, and makes and deletes them as needed.
func (g *TGT) putAuth(ctx context.Context, s *served, a Auth) error {
	if a == s.Auth {
		return nil
	}
	if err := errors.Join(g.unbind(ctx, s, s.Auth.User), g.unbind(ctx, s, s.Auth.MutualUser, "--outgoing")); err != nil {
		return err
	}
	s.Auth = Auth{}
	if err := g.bind(ctx, s, a.User, a.Password); err != nil {
		return err
	}
	s.Auth = Auth{User: a.User, Password: a.Password}
	if err := g.bind(ctx, s, a.MutualUser, a.MutualPassword, "--outgoing"); err != nil {
		return err
	}
	s.Auth = a
	return nil
}

func (g *TGT) bind(ctx context.Context, s *served, user, password string, direction ...string) error {
	if user == "" {
		return nil
	}
	if other := g.accounts[user]; other != nil && other.password != password {
		return fmt.Errorf("CHAP user %s has another password at target %s; tgtd has one for all: choose another user name", user, other.targets[0])
	}
	if g.accounts[user] == nil {
		if err := g.admin(ctx, "account", "new", "--user", user, "--password", password); err != nil {
			return err
		}
		g.accounts[user] = &account{password: password}
	}
	if err := g.on(ctx, s, "account", "bind", append([]string{"--user", user}, direction...)...); err != nil {
		return err
	}
	g.accounts[user].targets = append(g.accounts[user].targets, s.IQN)
	return nil
}

func (g *TGT) unbind(ctx context.Context, s *served, user string, direction ...string) error {
	a := g.accounts[user]
	if a == nil {
		return nil
	}
	if err := g.on(ctx, s, "account", "unbind", append([]string{"--user", user}, direction...)...); err != nil {
		return err
	}
	return g.release(ctx, s, user)
}

// release forgets that a target uses an account, and deletes the account when none does.
func (g *TGT) release(ctx context.Context, s *served, user string) error {
	a := g.accounts[user]
	if a == nil {
		return nil
	}
	if i := slices.Index(a.targets, s.IQN); i >= 0 {
		a.targets = slices.Delete(a.targets, i, i+1)
	}
	if len(a.targets) > 0 {
		return nil
	}
	delete(g.accounts, user)
	return g.admin(ctx, "account", "delete", "--user", user)
}

// putHosts binds who may log in. Who may not any more is unbound first, so that he cannot come back, and then cut off.
func (g *TGT) putHosts(ctx context.Context, s *served, t Target) error {
	wanted := t.Initiators
	if t.AllowAll {
		wanted = nil
	}
	var out []string
	for _, host := range slices.Clone(s.Initiators) {
		if slices.Contains(wanted, host) {
			continue
		}
		if err := g.on(ctx, s, "target", "unbind", "--initiator-name", host); err != nil {
			return err
		}
		s.Initiators = slices.DeleteFunc(s.Initiators, func(h string) bool { return h == host })
		out = append(out, host)
	}
	if s.AllowAll && !t.AllowAll {
		if err := g.on(ctx, s, "target", "unbind", "--initiator-address", "ALL"); err != nil {
			return err
		}
		s.AllowAll = false
		if err := g.endSessions(ctx, s, func(host string) bool { return !slices.Contains(wanted, host) }); err != nil {
			return err
		}
	}
	if !s.AllowAll && t.AllowAll {
		if err := g.on(ctx, s, "target", "bind", "--initiator-address", "ALL"); err != nil {
			return err
		}
		s.AllowAll = true
	}
	for _, host := range wanted {
		if slices.Contains(s.Initiators, host) {
			continue
		}
		if err := g.on(ctx, s, "target", "bind", "--initiator-name", host); err != nil {
			return fmt.Errorf("let %s in: %w", host, err)
		}
		s.Initiators = append(s.Initiators, host)
	}
	if len(out) == 0 || t.AllowAll {
		return nil
	}
	return g.endSessions(ctx, s, func(host string) bool { return slices.Contains(out, host) })
}

// endSessions cuts the connections of some hosts, of all if whose is nil.
func (g *TGT) endSessions(ctx context.Context, s *served, whose func(host string) bool) error {
	out, err := g.show(ctx, "conn", "show", "--tid", strconv.Itoa(s.tid))
	if err != nil {
		return err
	}
	for _, c := range parseConnections(out) {
		if whose != nil && !whose(c.host) {
			continue
		}
		if err := g.on(ctx, s, "conn", "delete", "--sid", c.session, "--cid", c.connection); err != nil {
			return fmt.Errorf("end the session of %s: %w", c.host, err)
		}
	}
	return nil
}

// Remove ends all sessions of a target and removes it.
func (g *TGT) Remove(ctx context.Context, iqn string) error {
	s := g.targets[iqn]
	if s == nil {
		return nil
	}
	if err := g.on(ctx, s, "target", "delete", "--force"); err != nil {
		return fmt.Errorf("remove iSCSI target %s: %w", iqn, err)
	}
	delete(g.targets, iqn)
	return errors.Join(g.release(ctx, s, s.Auth.User), g.release(ctx, s, s.Auth.MutualUser))
}

// Sessions asks tgtd who is logged in.
func (g *TGT) Sessions(ctx context.Context) (map[string][]string, error) {
	out, err := g.show(ctx, "target", "show")
	if err != nil {
		return nil, err
	}
	return parseSessions(out), nil
}

type connection struct{ session, connection, host string }

// parseConnections reads what tgtadm shows of connections:
//
//	Session: 2
//	    Connection: 0
//	        Initiator: iqn.1993-08.org.debian:01:node
func parseConnections(out string) []connection {
	var all []connection
	var c connection
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "Session":
			c = connection{session: value}
		case "Connection":
			c.connection = value
		case "Initiator":
			c.host, _, _ = strings.Cut(value, " ")
			all = append(all, c)
		}
	}
	return all
}

// parseSessions reads the initiators by target from what tgtadm shows of targets:
//
//	Target 1: iqn.2013-05.com.daterainc:tc:01:sn:aa
//	    I_T nexus information:
//	        I_T nexus: 1
//	            Initiator: iqn.1993-08.org.debian:01:node alias: node
func parseSessions(out string) map[string][]string {
	hosts := map[string][]string{}
	iqn := ""
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch {
		case strings.HasPrefix(key, "Target "):
			iqn = value
			hosts[iqn] = nil
		case key == "Initiator" && iqn != "":
			host, _, _ := strings.Cut(value, " ")
			if !slices.Contains(hosts[iqn], host) {
				hosts[iqn] = append(hosts[iqn], host)
			}
		}
	}
	return hosts
}
