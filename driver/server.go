package driver

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// The array's management ports (plain and TLS).
const (
	portHTTP  = 7717
	portHTTPS = 7718
)

const serverAccepts = "host or host:port, such as 10.0.0.5:7717, array.example.com or [fd00::5]:7718"

var hostName = pattern(`\A[A-Za-z0-9][A-Za-z0-9-]*(?:\.[A-Za-z0-9][A-Za-z0-9-]*)*\.?\z`)

// Server is a management address of an array. The zero value names none.
type Server struct {
	Host string // lower case, without brackets
	Port int    // 0: not given
}

// ParseServer reads host[:port]; an IPv6 address stands in brackets.
func ParseServer(text string) (Server, error) {
	bad := errors.New("accepted is " + serverAccepts)
	host, port := text, ""
	if strings.HasPrefix(text, "[") || strings.Count(text, ":") == 1 {
		var err error
		if host, port, err = net.SplitHostPort(text); err != nil {
			if !strings.HasSuffix(text, "]") {
				return Server{}, bad
			}
			host = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
		} else if port == "" {
			return Server{}, bad
		}
	}
	server := Server{Host: strings.ToLower(host)}
	if port != "" {
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil || number == 0 {
			return Server{}, bad
		}
		server.Port = int(number)
	}
	if strings.HasPrefix(text, "[") {
		if address, err := netip.ParseAddr(host); err != nil || !address.Is6() || address.Zone() != "" {
			return Server{}, bad
		}
		return server, nil
	}
	if len(host) > 253 || !hostName().MatchString(host) {
		return Server{}, bad
	}
	return server, nil
}

// String is host[:port], as it is written in options and configuration.
func (s Server) String() string {
	host := s.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if s.Port == 0 {
		return host
	}
	return host + ":" + strconv.Itoa(s.Port)
}

// sameArray reports whether both name one array: the same host, and the same port or two
// of the array's own (its plain and its TLS port lead to the same place).
func (s Server) sameArray(other Server) bool { return s.canonical() == other.canonical() }

// canonical is the same for all names of one array with the same host.
func (s Server) canonical() Server {
	if s.Port == portHTTP || s.Port == portHTTPS {
		s.Port = 0
	}
	return s
}
