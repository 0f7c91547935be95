package datera

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tcp serves raw connections.
func tcp(t *testing.T, serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); serve(conn) }()
		}
	}()
	return l.Addr().String()
}

func speakSSH(conn net.Conn) {
	_, _ = conn.Read(make([]byte, 1))
	_, _ = io.WriteString(conn, "SSH-2.0-OpenSSH_9.6\r\n")
}

// secureArray answers logins and reads by https.
func secureArray(t *testing.T, certificate *tls.Certificate) *httptest.Server {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == put {
			fmt.Fprint(w, `{"key":"k"}`)
			return
		}
		data(w, map[string]any{})
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	if certificate != nil {
		s.TLS = &tls.Config{Certificates: []tls.Certificate{*certificate}}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func writePEM(t *testing.T, certificate []byte) string {
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o600))
	return file
}

// selfSigned makes a certificate, changed as a test needs it.
func selfSigned(t *testing.T, change func(*x509.Certificate)) *tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mgmt.array"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Date(2020, 1, 2, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2099, 3, 4, 0, 0, 0, 0, time.UTC),
	}
	change(template)
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	return &tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

func fingerprintOf(certificate []byte) string {
	sum := sha256.Sum256(certificate)
	return hex.EncodeToString(sum[:])
}

func TestTLS(t *testing.T) {
	t.Parallel()
	const howToPin = "set tls_fingerprint to that SHA-256, once it is what `openssl s_client -connect "
	secure := secureArray(t, nil) // for example.com and 127.0.0.1
	address := secure.Listener.Addr().String()
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	ca, its := writePEM(t, secure.Certificate().Raw), fingerprintOf(secure.Certificate().Raw)
	came := `the certificate of "O=Acme Co" (valid from 1970-01-01 to 2084-01-29, SHA-256 ` + formatFingerprint(sha256.Sum256(secure.Certificate().Raw)) + ") came, "

	onlyName := selfSigned(t, func(*x509.Certificate) {})
	plainName := secureArray(t, onlyName).Listener.Addr().String()
	local := func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }
	oldCertificate := selfSigned(t, func(c *x509.Certificate) { local(c); c.NotAfter = time.Date(2021, 1, 2, 0, 0, 0, 0, time.UTC) })
	expired := secureArray(t, oldCertificate).Listener.Addr().String()
	otherCA := writePEM(t, onlyName.Certificate[0])

	for name, test := range map[string]struct {
		address, ca, pin, server string
		want                     []string // nothing: it works
	}{
		"verified":                       {address, ca, "", "", nil},
		"verified by another name":       {"localhost:" + port, ca, "", "example.com", nil},
		"verified by its address":        {"localhost:" + port, ca, "", "127.0.0.1", nil},
		"pinned":                         {address, "", its, "", nil},
		"pinned as openssl writes it":    {address, "", formatFingerprint(sha256.Sum256(secure.Certificate().Raw)), "", nil},
		"pinned, a common name only":     {plainName, "", fingerprintOf(onlyName.Certificate[0]), "", nil},
		"pinned, expired":                {expired, "", fingerprintOf(oldCertificate.Certificate[0]), "", nil},
		"pinned, another name":           {"localhost:" + port, "", its, "", nil},
		"another than the pinned":        {address, "", strings.Repeat("ab", 32), "", []string{came + "but tls_fingerprint is AB:AB:", "If the array has a new certificate, " + howToPin + address, "if not, another server answers at this address"}},
		"another, though it is verified": {address, ca, fingerprintOf(onlyName.Certificate[0]), "", []string{"but tls_fingerprint is"}},
		"unknown authority":              {address, "", "", "", []string{came + "which is not signed by an authority that this host knows", "Set ca_file to the PEM file", howToPin + address}},
		"another authority":              {address, otherCA, "", "", []string{came + "which is not signed by the authority in ca_file " + otherCA, howToPin}},
		"another name":                   {"localhost:" + port, ca, "", "", []string{came + "which is for example.com, *.example.com, 127.0.0.1, ::1, not for localhost", "set tls_server_name to one", howToPin}},
		"another server name":            {address, ca, "", "array.example.org", []string{"not for array.example.org"}},
		"a common name only":             {plainName, otherCA, "", "", []string{`"CN=mgmt.array" (valid from 2020-01-02 to 2099-03-04`, "names no host (a common name does not count)", howToPin}},
		"its common name":                {plainName, otherCA, "", "mgmt.array", []string{"names no host", howToPin}},
		"expired":                        {expired, writePEM(t, oldCertificate.Certificate[0]), "", "", []string{"(valid from 2020-01-02 to 2021-01-02", "is not valid today, " + day(time.Now()) + " by this host's clock", "Renew the array's certificate", howToPin}},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, Config{Address: test.address, CAFile: test.ca, Fingerprint: test.pin, ServerName: test.server, Username: "admin", Password: password})
			err := read(t.Context(), c)
			if test.want == nil {
				require.NoError(t, err)
				return
			}
			for _, want := range append(test.want, c.Server()) {
				require.ErrorContains(t, err, want)
			}
			require.NotContains(t, err.Error(), password)
			require.EqualValues(t, 1, c.Requests(), "such an error is final")
		})
	}
}

func TestOtherProtocols(t *testing.T) {
	t.Parallel()
	secure, insecure := secureArray(t, nil), newPlain(t, always(nil))
	alert := func(conn net.Conn) { // what servers other than Go's answer to plain http on a TLS port
		_, _ = conn.Read(make([]byte, 4096))
		_, _ = conn.Write([]byte{0x15, 3, 1, 0, 2, 2, 0x46})
	}
	for name, test := range map[string]struct{ scheme, address, want string }{
		"plain http on this port":   {"https", insecure.Listener.Addr().String(), "set the scheme to http, or the port of https (7718"},
		"https addressed by http":   {"http", secure.Listener.Addr().String(), "set the scheme to https"},
		"the same, another server":  {"http", tcp(t, alert), "set the scheme to https"},
		"another protocol":          {"http", tcp(t, speakSSH), "what listens there is not the array's API"},
		"another protocol by https": {"https", tcp(t, speakSSH), "what listens there is not the array's API"},
		"unknown host":              {"https", "array.invalid", "cannot resolve the name"},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, Config{Scheme: test.scheme, Address: test.address, Username: "admin", Password: password})
			err := read(t.Context(), c)
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, c.Server())
			require.NotContains(t, err.Error(), password)
			require.EqualValues(t, 1, c.Requests(), "such an error is final")
		})
	}
}

func TestParseFingerprint(t *testing.T) {
	t.Parallel()
	digits := strings.Repeat("0aB9", 16)
	pairs := strings.Trim(strings.Repeat("0a:B9:", 16), ":")
	for _, text := range []string{digits, pairs, strings.ToUpper(digits), strings.ToLower(pairs)} {
		pin, err := ParseFingerprint(text)
		require.NoError(t, err)
		require.Equal(t, strings.ToUpper(pairs), formatFingerprint(pin))
	}
	for _, text := range []string{"", "0a", digits + "00", digits[:62], "zz" + digits[2:], pairs + ":", pairs[1:], strings.Replace(pairs, ":", "", 1), "sha256:" + digits, digits[:40]} {
		_, err := ParseFingerprint(text)
		require.ErrorContains(t, err, "64 hexadecimal digits, with or without colons", text)
	}
}

func FuzzParseFingerprint(f *testing.F) {
	f.Add(strings.Repeat("ab", 32))
	f.Add(strings.Trim(strings.Repeat("AB:", 32), ":"))
	f.Add(":::")
	f.Fuzz(func(t *testing.T, text string) {
		pin, err := ParseFingerprint(text)
		if err != nil {
			return
		}
		again, err := ParseFingerprint(formatFingerprint(pin))
		if err != nil || again != pin || !strings.EqualFold(strings.ReplaceAll(text, ":", ""), hex.EncodeToString(pin[:])) {
			t.Errorf("%q reads as %s", text, formatFingerprint(pin))
		}
	})
}
