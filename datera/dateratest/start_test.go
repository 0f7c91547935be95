package dateratest_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

// fakeTB is a test that keeps what Start asks of it.
type fakeTB struct {
	cleanups []func()
	failed   string
}

func (f *fakeTB) Helper()           {}
func (f *fakeTB) Cleanup(do func()) { f.cleanups = append(f.cleanups, do) }
func (f *fakeTB) Fatalf(format string, args ...any) {
	f.failed = fmt.Sprintf(format, args...)
	panic(f)
}

func (f *fakeTB) end() {
	for i := len(f.cleanups) - 1; i >= 0; i-- {
		f.cleanups[i]()
	}
}

func TestStartEndsWithTheTest(t *testing.T) {
	tb := &fakeTB{}
	array := dateratest.Start(tb, dateratest.WithTLS())
	require.FileExists(t, array.CAFile)
	address := array.Address()
	require.Equal(t, "https://"+address, array.URL)
	_, err := tcp(address)
	require.NoError(t, err)
	tb.end()
	_, err = tcp(address)
	require.Error(t, err)
	require.NoFileExists(t, array.CAFile)
	require.Empty(t, tb.failed)
}

func TestStartFails(t *testing.T) {
	tb := &fakeTB{}
	require.Panics(t, func() { dateratest.Start(tb, dateratest.WithSoftwareVersion("3.3")) })
	require.Contains(t, tb.failed, "four dotted integers")
}

func TestTLS(t *testing.T) {
	array := dateratest.Start(t, dateratest.WithTLS())
	text, err := os.ReadFile(array.CAFile)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(text))
	trusting := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer trusting.CloseIdleConnections()
	c := &caller{t: t, base: array.URL, version: "v2.2", web: trusting}
	c.login()
	_, err = http.Get(array.URL + "/api_versions")
	require.ErrorContains(t, err, "certificate", "nobody trusts it without its CA")
}

func TestOptions(t *testing.T) {
	for name, test := range map[string]struct {
		options dateratest.Options
		says    string
	}{
		"back end without a folder": {dateratest.Options{Backend: &fakeTarget{}}, "state folder"},
		"version":                   {dateratest.Options{SoftwareVersion: "3.3.x.0"}, "four dotted integers"},
		"two ports":                 {dateratest.Options{Portals: portals("10.0.0.1:3260", "10.0.0.2:3261")}, "one port in common"},
		"IPv6":                      {dateratest.Options{Portals: portals("[::1]:3260")}, "IPv4"},
		"folder is a file":          {dateratest.Options{StateDir: "/dev/null"}, "make the state folder"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := dateratest.New(test.options)
			require.ErrorContains(t, err, test.says)
		})
	}
	array, err := dateratest.New(dateratest.Options{})
	require.NoError(t, err)
	require.Empty(t, array.Address(), "it does not listen yet")
	require.NoError(t, array.SetFault(dateratest.Fault{Name: dateratest.Refuse, Value: "1h"}))
	require.ErrorContains(t, array.Listen("1.2.3.4:1", nil), "choose another address")
	require.NoError(t, array.Close(t.Context()))
}

func TestOtherPortals(t *testing.T) {
	array := dateratest.Start(t, dateratest.WithPortals(portals("10.0.0.1:3261", "10.0.1.1:3261")...))
	c := connect(t, array)
	made := c.ok("POST", "/app_instances", simple("pv-1", 1))
	require.Equal(t, []any{"10.0.0.1", "10.0.1.1"}, at(t, made, "storage_instances", 0, "access", "ips"))
	require.EqualValues(t, 3261, at(t, made, "storage_instances", 0, "access", "port"), "only a port other than 3260 is named")
}

func portals(all ...string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, text := range all {
		out = append(out, netip.MustParseAddrPort(text))
	}
	return out
}
