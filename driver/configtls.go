package driver

import "datera-flexvolume/datera"

var serverName = pattern(`\A[A-Za-z0-9]([A-Za-z0-9._:-]{0,251}[A-Za-z0-9])?\z`)

// checkTLS checks what the certificate of the array must be.
func (c Config) checkTLS(complain func(format string, args ...any)) {
	server, err := ParseServer(c.ManagementIP)
	if c.TLSFingerprint != "" {
		if _, wrong := datera.ParseFingerprint(c.TLSFingerprint); wrong != nil {
			complain("tls_fingerprint is %s: must be the SHA-256 of the array's certificate, 64 hexadecimal digits with or without colons, as `openssl x509 -noout -fingerprint -sha256` shows it",
				quoteShort(c.TLSFingerprint))
		}
	}
	if c.TLSServerName != "" && !serverName().MatchString(c.TLSServerName) {
		complain("tls_server_name is %s: must be a host name or an IP address", quoteShort(c.TLSServerName))
	}
	switch {
	case c.TLSFingerprint == "" && c.TLSServerName == "":
	case c.ManagementIP == "":
		complain("tls_fingerprint and tls_server_name are about the certificate of the array mgmt_ip, which is not set")
	case err == nil && c.schemeFor(server) == "http":
		complain("tls_fingerprint and tls_server_name are about the array's certificate, but the scheme is http, which has none: set scheme to https, or remove them")
	}
}
