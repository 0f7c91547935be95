package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

// start runs the command until the test ends it, and gives what it says first and its end.
func start(t *testing.T, args ...string) (line string, end func() error, log *bytes.Buffer) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	c := command()
	log = &bytes.Buffer{}
	c.SetArgs(args)
	c.SetOut(writer)
	c.SetErr(log)
	done := make(chan error, 1)
	go func() {
		err := c.ExecuteContext(ctx)
		writer.CloseWithError(io.EOF)
		done <- err
	}()
	first := make([]byte, 1000)
	n, _ := reader.Read(first)
	return string(first[:n]), func() error { cancel(); return <-done }, log
}

// The README's commands must log in, and its messages stay readable: the driver hides its password wherever it stands in one.
func TestReadmeKnowsTheDefaults(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	user, password := command().Flag("user").DefValue, command().Flag("password").DefValue
	require.Contains(t, string(readme), "DAT_MGMT="+command().Flag("listen").DefValue+" DAT_USER="+user+" DAT_PASS="+password+"\n")
	require.Regexp(t, "[0-9]", password, "a word of English would be hidden in sentences that are no secret")
}

func TestServes(t *testing.T) {
	dir := t.TempDir()
	line, end, log := start(t, "--target", "none", "--listen", "127.0.0.1:0", "--state", dir, "--user", "operator", "--password", "se-cret",
		"--portal", "10.0.0.1", "--portal", "10.0.1.1:3260", "--sw-version", "3.2.0.0", "--fault", "unavailable=1,path=/time", "--verbose")
	require.Regexp(t, `^listening on http://127\.0\.0\.1:\d+, user operator, target none, portals 10\.0\.0\.1:3260 10\.0\.1\.1:3260, state in `+dir+"\n$", line)
	url := strings.TrimSuffix(strings.Fields(line)[2], ",")
	for _, status := range []int{503, 200} {
		resp, err := http.Get(url + "/v2.2/time")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, status, resp.StatusCode)
	}
	r, err := http.NewRequestWithContext(t.Context(), "PUT", url+"/v2.2/login", strings.NewReader(`{"name":"operator","password":"se-cret"}`))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 200, resp.StatusCode)
	_, second, _ := start(t, "--target", "none", "--listen", "127.0.0.1:0", "--state", dir)
	require.ErrorContains(t, second(), "in use by another simulator")
	require.NoError(t, end())
	require.Contains(t, log.String(), "path=/login")
	require.NotContains(t, log.String(), "se-cret")
	_, err = http.Get(url)
	require.Error(t, err)
}

func TestDefaults(t *testing.T) {
	line, end, log := start(t, "--target", "none", "--listen", "127.0.0.1:0")
	require.Contains(t, line, "user admin, target none, portals 172.28.41.43:3260 172.29.41.56:3260\n")
	require.NoError(t, end())
	require.Empty(t, log.String())
	for _, kind := range []string{"lio", "tgt"} {
		o, err := flags{target: kind}.options(io.Discard)
		require.NoError(t, err)
		require.Equal(t, kind, o.Backend.Name())
		require.Equal(t, "/var/lib/datera-sim", o.StateDir)
		require.Equal(t, "127.0.0.1:3260 127.0.0.2:3260", list(o.Portals))
	}
}

func TestHTTPS(t *testing.T) {
	cert, key := certificate(t)
	line, end, _ := start(t, "--target", "none", "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key)
	url := strings.TrimSuffix(strings.Fields(line)[2], ",")
	pool := x509.NewCertPool()
	text, err := os.ReadFile(cert)
	require.NoError(t, err)
	require.True(t, pool.AppendCertsFromPEM(text))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(url + "/api_versions")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.NoError(t, end())
	_, end, _ = start(t, "--target", "none", "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", cert)
	require.ErrorContains(t, end(), "read the TLS certificate "+cert)
}

// certificate makes a self-signed one for 127.0.0.1.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	about := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	return certFile, keyFile
}

func TestRefuses(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"--target", "disk"}, "none of lio, tgt and none"},
		{[]string{"--portal", "x"}, "is not IP[:PORT]"},
		{[]string{"--fault", "slow=x"}, "invalid duration"},
		{[]string{"--target", "none", "--listen", busy.Addr().String()}, fmt.Sprintf("listen on %s: bind: address already in use", busy.Addr())},
		{[]string{"--target", "none", "--state", file}, "make the state folder"},
		{[]string{"--target", "none", "--sw-version", "3"}, "four dotted integers"},
		{[]string{"--tls-cert", "x"}, "tls-key"},
		{[]string{"extra"}, "unknown command"},
	} {
		_, end, _ := start(t, test.args...)
		require.ErrorContains(t, end(), test.says, "%v", test.args)
	}
}

func TestHelp(t *testing.T) {
	var out bytes.Buffer
	c := command()
	c.SetArgs([]string{"--help"})
	c.SetOut(&out)
	require.NoError(t, c.Execute())
	for _, name := range []string{dateratest.Unavailable, dateratest.Refuse, dateratest.Slow, dateratest.Cut, dateratest.Expire, dateratest.OpState,
		dateratest.AccessLate, dateratest.LoseAnswer, dateratest.PortalDown, dateratest.Capacity, "--state", "/sim/faults", "Examples:"} {
		require.Contains(t, out.String(), name)
	}
}
