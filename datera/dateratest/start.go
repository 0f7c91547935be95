package dateratest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// TB is what Start needs of a *testing.T.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Option changes how [Start] sets a cluster up.
type Option func(*settings)

type settings struct {
	Options
	secure bool
}

// WithOptions lets a test change any of the options.
func WithOptions(change func(*Options)) Option { return func(s *settings) { change(&s.Options) } }

// WithTLS serves HTTPS with a certificate of a CA of its own, see [Server.CAFile].
func WithTLS() Option { return func(s *settings) { s.secure = true } }

// WithFoldedIQNs keeps initiators in lower case, as some arrays do.
func WithFoldedIQNs() Option { return func(s *settings) { s.FoldIQNs = true } }

// WithState keeps the state in a folder.
func WithState(dir string) Option { return func(s *settings) { s.StateDir = dir } }

// WithOpStateDelay is how long going online, a snapshot, a clone or a resize takes; nothing by default.
func WithOpStateDelay(d time.Duration) Option { return func(s *settings) { s.OpStateDelay = d } }

// WithSessionLifetime is how long a key lives after its last use.
func WithSessionLifetime(d time.Duration) Option { return func(s *settings) { s.SessionLifetime = d } }

// WithSoftwareVersion is the product version, four dotted integers.
func WithSoftwareVersion(v string) Option { return func(s *settings) { s.SoftwareVersion = v } }

// WithPortals are the addresses of the targets.
func WithPortals(portals ...netip.AddrPort) Option { return func(s *settings) { s.Portals = portals } }

// WithUser is who may log in.
func WithUser(name, password string) Option {
	return func(s *settings) { s.User, s.Password = name, password }
}

// Start runs a cluster without a data path on a free port of the loopback interface until the test is over.
func Start(tb TB, options ...Option) *Server {
	tb.Helper()
	var set settings
	for _, o := range options {
		o(&set)
	}
	s, err := New(set.Options)
	if err != nil {
		tb.Fatalf("start a storage cluster: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			tb.Fatalf("stop the storage cluster: %v", err)
		}
	})
	var secure *tls.Config
	if set.secure {
		if secure, err = s.makeCertificate(tb); err != nil {
			tb.Fatalf("make a certificate: %v", err)
		}
	}
	if err := s.Listen("127.0.0.1:0", secure); err != nil {
		tb.Fatalf("start a storage cluster: %v", err)
	}
	return s
}

// makeCertificate makes a CA, leaves its certificate in CAFile and returns a server certificate that it signed.
func (s *Server) makeCertificate(tb TB) (*tls.Config, error) {
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "storage cluster CA"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	caText, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "storage cluster"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leafText, err := x509.CreateCertificate(rand.Reader, leaf, ca, &leafKey.PublicKey, caKey)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "dateratest")
	if err != nil {
		return nil, err
	}
	s.CAFile = filepath.Join(dir, "ca.pem")
	tb.Cleanup(func() {
		if err := errors.Join(os.Remove(s.CAFile), os.Remove(dir)); err != nil {
			tb.Fatalf("remove the certificate: %v", err)
		}
	})
	if err := os.WriteFile(s.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caText}), 0o600); err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leafText}, PrivateKey: leafKey}}, MinVersion: tls.VersionTLS12}, nil
}
