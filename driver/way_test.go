package driver

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

// roundTrip is a way to the array.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// passing puts something on a node's way to the array.
func (n *node) passing(pass func(r *http.Request, array http.RoundTripper) (*http.Response, error)) {
	array := n.way
	n.way = roundTrip(func(r *http.Request) (*http.Response, error) { return pass(r, array) })
}

// reaches makes a node reach a second array under an address.
func (n *node) reaches(address string, other *dateratest.Server) {
	n.passing(func(r *http.Request, array http.RoundTripper) (*http.Response, error) {
		if r.URL.Hostname() == address {
			return other.Transport().RoundTrip(r)
		}
		return array.RoundTrip(r)
	})
}

// meets lets things happen before a node's n-th requests, counted from 1. It returns how many were made.
func (n *node) meets(before map[int]func()) (made func() int) {
	var count atomic.Int64
	n.passing(func(r *http.Request, array http.RoundTripper) (*http.Response, error) {
		if happens := before[int(count.Add(1))]; happens != nil {
			happens()
		}
		return array.RoundTrip(r)
	})
	return func() int { return int(count.Load()) }
}

// killing is a way to the array for a call that is killed. What the array does not get it answers with a refusal, which no
// client repeats; no request arrives after the death.
type killing struct {
	array  http.RoundTripper
	at     int  // the request, counted from 1, with which the call dies
	behind bool // the array still gets that one
	made   int
}

func (k *killing) dead() bool { return k.made >= k.at }

func (k *killing) RoundTrip(r *http.Request) (*http.Response, error) {
	if k.made++; k.made == k.at && k.behind {
		answer, err := k.array.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		_ = answer.Body.Close()
	}
	if k.dead() {
		return answered(r, http.StatusForbidden, `{"message":"killed"}`), nil
	}
	return k.array.RoundTrip(r)
}

// answered is an answer that no array gave.
func answered(r *http.Request, status int, body string) *http.Response {
	return &http.Response{Status: http.StatusText(status), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}
}

// again is another process on the same host: it has the node's files and its initiator.
func (n *node) again(t *testing.T, server *dateratest.Server) *node {
	t.Helper()
	other := newNode(t, server, n.name, func(c *Config) { *c = n.Config })
	other.host = n.host
	other.Driver.Initiator, other.Driver.Mounter = n.host, n.host
	return other
}

// killedAt makes a call in a process of its own, which is killed at its n-th request. It reports whether the call came so far.
func (n *node) killedAt(t *testing.T, server *dateratest.Server, at int, behind bool, args ...string) bool {
	t.Helper()
	victim := n.again(t, server)
	way := &killing{array: server.Transport(), at: at, behind: behind}
	victim.way = way
	reply := victim.Serve(t.Context(), args)
	require.Equal(t, !way.dead(), reply.Status == Success, "%s killed at request %d: %s", args[0], at, reply.Message)
	return way.dead()
}

// groupName is the name of the initiator group of claims, as deploy/docs/access.md has it.
func groupName(cluster, pv, volumeID, access string) string {
	part := func(of string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(of)))[:12] }
	return fmt.Sprintf("k8s_%s_%s_%s_%s", part(cluster+"\x00"+pv), part(volumeID), access, pv)
}

// groupsOf are the initiator groups of a volume that its ACL policy refers to.
func groupsOf(t *testing.T, server *dateratest.Server, tenant, volume string) []string {
	t.Helper()
	ai, found := server.AppInstance(tenant, volume)
	require.True(t, found, "volume %s", volume)
	var names []string
	for _, path := range ai.Groups {
		names = append(names, strings.TrimPrefix(path, "/initiator_groups/"))
	}
	return names
}

func optionsUnder(name, volume string) string {
	return optionsWith(map[string]string{keyName: name, optVolumeID: volume, optRetainPolicy: "never"})
}

func volumeUnder(t *testing.T, name, id string) Volume {
	t.Helper()
	volume, err := ParseVolume(optionsUnder(name, id), "kubernetes")
	require.NoError(t, err)
	return volume
}

// idOf is a volume's UUID.
func idOf(t *testing.T, server *dateratest.Server, volume string) string {
	t.Helper()
	ai, found := server.AppInstance("/root", volume)
	require.True(t, found, "volume %s", volume)
	return ai.ID
}

// refusing is the way to an array on whose port nothing listens.
type refusing struct{}

func (refusing) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
}
