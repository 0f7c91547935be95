package driver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// probe is an array that answers as told.
type probe struct {
	about   datera.About
	byIQN   map[string]string // names
	volumes []datera.AppInstance
	groups  map[string][]string // members
	errs    error
	logins  int
}

func (p *probe) Server() string { return "https://array.example.com:7718" }
func (p *probe) About(context.Context) (datera.About, error) {
	return p.about, p.errs
}

func (p *probe) Initiator(_ context.Context, iqn string) (*datera.Initiator, error) {
	if name, found := p.byIQN[iqn]; found {
		return &datera.Initiator{ID: iqn, Name: name}, p.errs
	}
	return nil, errors.Join(p.errs, &datera.APIError{Status: 404, Name: "NotFoundError"})
}

func (p *probe) InitiatorByName(_ context.Context, name string) (*datera.Initiator, error) {
	p.logins++
	for iqn, found := range p.byIQN {
		if found == name {
			return &datera.Initiator{ID: iqn, Name: name}, p.errs
		}
	}
	return nil, errors.Join(p.errs, fmt.Errorf("initiator named %q: %w", name, datera.ErrNotFound))
}

func (p *probe) Initiators(context.Context) ([]datera.Initiator, error) {
	var all []datera.Initiator
	for iqn, name := range p.byIQN {
		all = append(all, datera.Initiator{ID: iqn, Name: name})
	}
	return all, p.errs
}

func (p *probe) InitiatorGroupsWithPrefix(context.Context, string) ([]datera.InitiatorGroup, error) {
	var all []datera.InitiatorGroup
	for name, members := range p.groups {
		all = append(all, datera.InitiatorGroup{Name: name, Members: members})
	}
	return all, p.errs
}

func (p *probe) AppInstanceOutlines(context.Context) ([]datera.AppInstance, error) {
	return p.volumes, p.errs
}

func (p *probe) Tenants(context.Context) ([]string, error) { return []string{"/root"}, p.errs }

const ownIQN = "iqn.1993-08.org.debian:01:node-a"

// wellDesk is a node with which all is well, and an array that knows it.
func wellDesk(t *testing.T) (*desk, *probe) {
	t.Helper()
	d := newDesk(t)
	config := filepath.Join(filepath.Dir(d.kubelet), "config")
	d.write(t, config, "{}")
	d.Config.ClusterID = kubeSystemUID
	d.Config.Path, d.Config.ManagementIP, d.Config.Username, d.Config.Password = config, "array.example.com", "admin", "canary-password"
	p := &probe{
		about: datera.About{Versions: []string{"2.1", "2.2"}, Clock: time.Now()},
		byIQN: map[string]string{ownIQN: "k8s_kubernetes_node-a"},
	}
	d.OpenProbe = func(string, Credentials, string) (ArrayProbe, error) { return p, nil }
	d.running(t, "pv-1", iqnOne, "/dev/sdb")
	d.records = []iscsi.Record{{IQN: iqnOne, Portal: "10.0.0.1:3260", Path: "/etc/iscsi/nodes/x", Startup: "manual", Own: true}}
	return d, p
}

// findings runs Doctor and wants those that are not ok.
func (d *desk) findings(t *testing.T) []Finding {
	t.Helper()
	var found []Finding
	seen := map[string]bool{}
	for _, f := range d.Doctor(t.Context()) {
		seen[f.Check] = true
		if f.Level != LevelOK {
			found = append(found, f)
		}
		require.NotContains(t, f.Message+f.Remedy, "canary", "a secret is shown")
	}
	require.Len(t, seen, len((&examination{}).checks()), "a check has no finding")
	require.Empty(t, d.takeDone(), "doctor changed something")
	return found
}

func TestDoctorFindsNothing(t *testing.T) {
	d, p := wellDesk(t)
	findings := d.Doctor(t.Context())
	require.True(t, Well(findings))
	require.Equal(t, 1, p.logins, "each check logged in for itself")
	var text bytes.Buffer
	require.NoError(t, WriteFindings(&text, findings))
	goldenText(t, "doctor-well.txt", text.String(), filepath.Dir(d.kubelet))
}

// The array's checks, with the client and the errors that it really gives.
func TestDoctorAsksARealArray(t *testing.T) {
	t.Parallel()
	plain, secure := dateratest.Start(t), dateratest.Start(t, dateratest.WithTLS())
	for _, server := range []*dateratest.Server{plain, secure} {
		require.NoError(t, server.RegisterInitiator(ownIQN, "k8s_kubernetes_node-a"))
	}
	twins := dateratest.Start(t)
	for _, iqn := range []string{ownIQN, "iqn.1993-08.org.debian:01:former"} {
		require.NoError(t, twins.RegisterInitiator(iqn, "k8s_kubernetes_node-a"))
	}
	tests := map[string]struct {
		server *dateratest.Server
		change func(*Config)
		want   map[string]string // message by check, "" for ok
	}{
		"all is well, without TLS": {plain, func(*Config) {}, map[string]string{}},
		"all is well, with TLS":    {secure, func(c *Config) { c.CAFile = secure.CAFile }, map[string]string{}},
		"a wrong password": {
			plain, func(c *Config) { c.Password = "canary-password" },
			map[string]string{"credentials": "the user name or the password is wrong", "registration": "not known", "claims": "not known"},
		},
		"a tenant that is not there": {
			plain, func(c *Config) { c.Tenant = "/root/nobody" },
			map[string]string{"credentials": "/root/nobody", "registration": "not known", "claims": "not known"},
		},
		"an unknown authority": {
			secure, func(*Config) {},
			map[string]string{"array": "not signed by an authority that this host knows", "credentials": "not known", "clock": "not known", "registration": "not known", "claims": "not known"},
		},
		"a pinned certificate": {secure, func(c *Config) { c.TLSFingerprint = fingerprintOf(t, secure) }, map[string]string{}},
		"another certificate than the pinned": {
			secure, func(c *Config) { c.TLSFingerprint = strings.Repeat("ab", 32) },
			map[string]string{"array": "but tls_fingerprint is AB:AB:", "credentials": "not known", "clock": "not known", "registration": "not known", "claims": "not known"},
		},
		"a certificate for another name": {
			secure, func(c *Config) { c.CAFile, c.TLSServerName = secure.CAFile, "array.example.com" },
			map[string]string{"array": "set tls_server_name to one", "credentials": "not known", "clock": "not known", "registration": "not known", "claims": "not known"},
		},
		"http to a server of https": {
			secure, func(c *Config) { c.Scheme = "http" },
			map[string]string{"array": "set the scheme to https", "credentials": "not known", "clock": "not known", "registration": "not known", "claims": "not known"},
		},
		"two initiators of this node's name": {
			twins, func(*Config) {},
			map[string]string{"registration": "initiators iqn.1993-08.org.debian:01:former and " + ownIQN + " have the same name"},
		},
		"no credentials": {
			plain, func(c *Config) { c.Username = "" },
			map[string]string{
				"configuration": "no credentials", "array": "no credentials", "credentials": "no credentials",
				"clock": "no credentials", "registration": "no credentials", "claims": "no credentials",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d, _ := wellDesk(t)
			d.onArray(t, test.server)
			test.change(&d.Config)
			found := map[string]string{}
			for _, f := range d.findings(t) {
				found[f.Check] = f.Message
			}
			require.Len(t, found, len(test.want), "%v", found)
			for check, says := range test.want {
				require.Contains(t, found[check], says, check)
			}
		})
	}
}

// fingerprintOf asks a server for its certificate.
func fingerprintOf(t *testing.T, server *dateratest.Server) string {
	conn, err := tls.Dial("tcp", server.Address(), &tls.Config{InsecureSkipVerify: true})
	require.NoError(t, err)
	defer conn.Close()
	sum := sha256.Sum256(conn.ConnectionState().PeerCertificates[0].Raw)
	return hex.EncodeToString(sum[:])
}

// What doctor says of a certificate that is good depends on what made it so.
func TestDoctorSaysWhichCertificate(t *testing.T) {
	for pin, says := range map[string]string{"": "its certificate is good", "abc": "with the certificate that tls_fingerprint names"} {
		d, _ := wellDesk(t)
		d.Config.TLSFingerprint = pin
		var text bytes.Buffer
		require.NoError(t, WriteFindings(&text, d.Doctor(t.Context())))
		require.Contains(t, text.String(), "https://array.example.com:7718 answers")
		require.Contains(t, text.String(), says)
	}
}

func TestDoctorGoesOnWithoutTheArray(t *testing.T) {
	d, p := wellDesk(t)
	p.errs = errInjected
	found := d.findings(t)
	require.Len(t, found, 5, "%v", found)
	require.Equal(t, LevelProblem, found[0].Level, "the array itself")
	for _, f := range found[1:] {
		require.Equal(t, LevelWarning, f.Level)
		require.Contains(t, f.Message, "not known")
	}
}

func TestOneDeadCheckDoesNotHideTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := wellDesk(t)
		d.hang = make(chan struct{})
		t.Cleanup(func() { close(d.hang) })
		e := d.examine(t.Context())
		found := map[string]Finding{}
		for _, f := range e.run(t.Context()) {
			found[f.Check] = f
		}
		require.Contains(t, found["portals"].Message, "the check did not end: context deadline exceeded")
		require.Equal(t, LevelProblem, found["portals"].Level)
		require.Equal(t, LevelOK, found["iscsid"].Level)
		require.Len(t, found, len(e.checks()))
	})
}

func TestAFaultInACheckIsAFinding(t *testing.T) {
	d, _ := wellDesk(t)
	d.Programs = nil
	found := d.findings(t)
	require.Len(t, found, 1)
	require.Equal(t, "programs", found[0].Check)
	require.Contains(t, found[0].Message, "fault in the driver itself")
}

func TestDoctorsTextOfAnIllNode(t *testing.T) {
	d, p := wellDesk(t)
	p.byIQN[ownIQN] = "k8s_kubernetes_node-b"
	d.noDaemon, d.stale = true, true
	d.records[0].Startup = "automatic"
	d.versions = iscsi.Versions{Client: "2.1.10", Daemon: "2.1.10"}
	d.down, d.dead = []string{"10.0.1.1:3260"}, []string{"10.0.1.1:3260"}
	d.holding[d.plugins+"/datera~iscsi"] = mount.Mount{Path: "/usr/libexec", Options: []string{"noexec"}}
	findings := d.Doctor(t.Context())
	require.False(t, Well(findings))
	var text bytes.Buffer
	require.NoError(t, WriteFindings(&text, findings))
	goldenText(t, "doctor-ill.txt", text.String(), filepath.Dir(d.kubelet))
	require.Equal(t, len(findings), strings.Count(text.String(), "\n"))
}
