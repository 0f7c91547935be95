package datera

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"
)

// newTLS says what certificate of the array is taken. Appliances make their own, often with nothing but a common name, which
// no authority signed and which names no host: such a one can be pinned by its fingerprint.
func newTLS(config Config) (*tls.Config, error) {
	trust := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: config.ServerName}
	if config.ServerName != "" && !hostName.MatchString(config.ServerName) {
		return nil, fmt.Errorf("server name %q of the array's certificate: it must be a host name or an IP address", printable(config.ServerName, maxDetail))
	}
	if config.CAFile != "" {
		pem, err := os.ReadFile(config.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the CA file of the array: %w", err)
		}
		trust.RootCAs = x509.NewCertPool()
		if !trust.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s holds no certificate in PEM form", config.CAFile)
		}
	}
	if config.Fingerprint == "" {
		return trust, nil
	}
	pin, err := ParseFingerprint(config.Fingerprint)
	if err != nil {
		return nil, err
	}
	if config.Scheme == "http" {
		return nil, errors.New("a fingerprint of the array's certificate is set, but the scheme is http, which has none: set it to https")
	}
	trust.InsecureSkipVerify = true // verified below: name, dates and authority do not matter for the certificate itself
	trust.VerifyConnection = func(state tls.ConnectionState) error {
		if came := state.PeerCertificates[0]; sha256.Sum256(came.Raw) != pin {
			return &otherCertificateError{came, pin}
		}
		return nil
	}
	return trust, nil
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.:_-]*[A-Za-z0-9])?$`)

// ParseFingerprint reads the SHA-256 of a certificate: 64 hexadecimal digits, also with colons as openssl writes them.
func ParseFingerprint(text string) (fingerprint [sha256.Size]byte, err error) {
	digits := text
	if pairs := strings.Split(text, ":"); len(pairs) == sha256.Size {
		digits = strings.Join(pairs, "")
	}
	bytes, err := hex.DecodeString(digits)
	if err != nil || len(bytes) != sha256.Size {
		return fingerprint, fmt.Errorf("fingerprint %q: it must be the SHA-256 of a certificate, 64 hexadecimal digits, with or without colons", printable(text, maxDetail))
	}
	return [sha256.Size]byte(bytes), nil
}

// formatFingerprint writes it as openssl does.
func formatFingerprint(fingerprint [sha256.Size]byte) string {
	return strings.ReplaceAll(fmt.Sprintf("% X", fingerprint[:]), " ", ":")
}

// otherCertificateError is a certificate other than the pinned one.
type otherCertificateError struct {
	came *x509.Certificate
	pin  [sha256.Size]byte
}

func (e *otherCertificateError) Error() string { return "the certificate is not the pinned one" }

// certificateHint says what certificate came, if that is why a request failed, and what to do.
func (c *Client) certificateHint(err error) string {
	var (
		other        *otherCertificateError
		verification *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &other):
		return fmt.Sprintf("%s came, but tls_fingerprint is %s. If the array has a new certificate, %s; if not, another server answers at this address",
			describeCertificate(other.came), formatFingerprint(other.pin), c.howToPin())
	case errors.As(err, &verification) && len(verification.UnverifiedCertificates) > 0:
		came := verification.UnverifiedCertificates[0]
		return fmt.Sprintf("%s came, which %s. %s, or %s", describeCertificate(came), c.whatIsWrong(came, err), c.howElse(came, err), c.howToPin())
	}
	return ""
}

func describeCertificate(certificate *x509.Certificate) string {
	return fmt.Sprintf("the certificate of %q (valid from %s to %s, SHA-256 %s)", printable(certificate.Subject.String(), maxDetail),
		day(certificate.NotBefore), day(certificate.NotAfter), formatFingerprint(sha256.Sum256(certificate.Raw)))
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func hostsOf(certificate *x509.Certificate) []string {
	hosts := certificate.DNSNames
	for _, ip := range certificate.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return hosts[:min(len(hosts), maxDetails)]
}

// whatIsWrong is the end of "the certificate …".
func (c *Client) whatIsWrong(certificate *x509.Certificate, err error) string {
	var (
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		authority x509.UnknownAuthorityError
	)
	switch hosts := hostsOf(certificate); {
	case errors.As(err, &name) && len(hosts) == 0:
		return "names no host (a common name does not count)"
	case errors.As(err, &name):
		return fmt.Sprintf("is for %s, not for %s", printable(strings.Join(hosts, ", "), maxDetail), name.Host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "is not valid today, " + day(time.Now()) + " by this host's clock"
	case errors.As(err, &authority) && c.config.CAFile != "":
		return "is not signed by the authority in ca_file " + c.config.CAFile
	case errors.As(err, &authority):
		return "is not signed by an authority that this host knows"
	}
	return "cannot be verified"
}

// howElse is the way on without a fingerprint.
func (c *Client) howElse(certificate *x509.Certificate, err error) string {
	var (
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &name) && len(hostsOf(certificate)) > 0:
		return "Address the array by such a name, or set tls_server_name to one"
	case errors.As(err, &name):
		return "Give the array a certificate with its name or address"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "Renew the array's certificate, or correct this host's clock"
	}
	return "Set ca_file to the PEM file of the authority that signed it"
}

func (c *Client) howToPin() string {
	address := c.server
	if u, err := url.Parse(c.server); err == nil {
		address = u.Host
	}
	return fmt.Sprintf("set tls_fingerprint to that SHA-256, once it is what `openssl s_client -connect %s </dev/null | openssl x509 -noout -fingerprint -sha256` shows on a host that is sure to reach the array itself", address)
}
