// Package datera is a client of the REST API of a Datera-style storage cluster ("the array"), versions 2.1
// to 2.3: app instances with their targets and volumes, access control, and initiators.
//
// A Client logs in when it must, keeps the session key, shares it with other processes through a file, and
// repeats what can be repeated safely. Every method blocks until the array answered or ctx is done.
package datera

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-resty/resty/v2"
)

// Config says which array to talk to, and as whom.
type Config struct {
	Address      string       // host[:port] of the management address, IPv6 in brackets; port 7718 (https) or 7717 (http) by default
	Scheme       string       // "https" (default) or "http"
	CAFile       string       // PEM file with the authority that signed the array's certificate; empty: the system's
	Fingerprint  string       // SHA-256 of the array's certificate: it is trusted, and no other one, whatever it says
	ServerName   string       // that the array's certificate must be for; empty: the one in Address
	Username     string       //
	Password     string       `json:"-"`
	RemoteServer string       // name of the LDAP server that knows the user; empty: the array itself does
	Tenant       string       // "/root" by default; "x" is "/root/x"
	APIVersion   string       // "2.1", "2.2" (default) or "2.3", also with a leading v
	TokenDir     string       // where session keys are kept across processes; empty: nowhere
	Driver       string       // names the caller to the array (header Datera-Driver)
	Logger       *slog.Logger // nil: no log

	Transport http.RoundTripper `json:"-"` // carries the requests; nil: the client's own, with CAFile, Fingerprint and ServerName
}

// String names the array and the user, not the password.
func (c Config) String() string {
	return fmt.Sprintf("%s as %s in tenant %s", c.Address, c.Username, c.Tenant)
}

// Client speaks to one array in one tenant. It is safe for concurrent use.
type Client struct {
	config   Config
	server   string // scheme://host:port
	tenant   string // path
	minor    int    // of the API version 2.minor
	http     *resty.Client
	session  session
	requests atomic.Int64
	log      *slog.Logger
}

// New checks the configuration. It makes no request and touches no file but CAFile.
func New(config Config) (*Client, error) {
	var err error
	c := &Client{config: config, tenant: tenantPath(config.Tenant), log: config.Logger}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if config.Username == "" || config.Password == "" {
		return nil, errors.New("user name and password of the array are needed")
	}
	if strings.ContainsFunc(config.Driver, forbiddenInHeader) {
		return nil, fmt.Errorf("%q cannot be sent as the name of the driver", config.Driver)
	}
	if c.server, err = serverURL(config.Scheme, config.Address); err != nil {
		return nil, err
	}
	if c.minor, err = minorVersion(config.APIVersion); err != nil {
		return nil, err
	}
	if err = c.checkTenant(); err != nil {
		return nil, err
	}
	if c.http, err = newHTTP(config, &c.requests); err != nil {
		return nil, err
	}
	c.session.init(config, c.server, c.log)
	return c, nil
}

// Requests counts the HTTP requests made so far, logins and repetitions included.
func (c *Client) Requests() int64 { return c.requests.Load() }

// Server is the array's scheme://host:port, for messages.
func (c *Client) Server() string { return c.server }

func serverURL(scheme, address string) (string, error) {
	ports := map[string]string{"https": "7718", "http": "7717"}
	if scheme == "" {
		scheme = "https"
	}
	port, known := ports[scheme]
	if !known {
		return "", fmt.Errorf("scheme %q of the array: it must be https or http", scheme)
	}
	bad := func(why string) (string, error) {
		return "", fmt.Errorf("address %q of the array: %s", address, why)
	}
	if strings.Contains(address, "://") {
		return bad("give host or host:port; the scheme is a setting of its own")
	}
	if ip, err := netip.ParseAddr(address); err == nil && ip.Is6() {
		return bad("write an IPv6 address in brackets: [" + address + "]")
	}
	u, err := url.Parse("//" + address)
	if err != nil || u.Hostname() == "" || strings.ContainsAny(address, "/?#@") {
		return bad("give host or host:port, IPv6 in brackets")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return bad("the port must be 1 to 65535")
		}
		port = p
	}
	return (&url.URL{Scheme: scheme, Host: net.JoinHostPort(u.Hostname(), port)}).String(), nil
}

func forbiddenInHeader(r rune) bool { return r < ' ' || r > '~' }

func tenantPath(tenant string) string {
	switch tenant = strings.Trim(tenant, "/"); {
	case tenant == "":
		return "/root"
	case tenant == "root" || strings.HasPrefix(tenant, "root/"):
		return "/" + tenant
	default:
		return "/root/" + tenant
	}
}

func (c *Client) checkTenant() error {
	if !isTenant(c.tenant) {
		return fmt.Errorf("%q is not the path of a tenant: expected /root or /root/name", c.tenant)
	}
	return nil
}

// minorVersion reads "2.2" or "v2.2". What differs: 2.1 knows no force on initiators, no template_override
// and no placement_policy (schema of the v2.1 product; cinder-driver, datera_api21.py and datera_api22.py).
func minorVersion(version string) (int, error) {
	known := slices.Index(Versions(), cmp.Or(strings.TrimPrefix(version, "v"), "2.2"))
	if known < 0 {
		return 0, fmt.Errorf("API version %q of the array: this client speaks %s", version, strings.Join(Versions(), ", "))
	}
	return known + 1, nil
}

// Versions are those of the API that a Client speaks, from 2.1 on without a gap.
func Versions() []string { return []string{"2.1", "2.2", "2.3"} }

const (
	get    = http.MethodGet
	put    = http.MethodPut
	post   = http.MethodPost
	remove = http.MethodDelete
)

// request is one call of the API.
type request struct {
	method  string
	at      place
	query   url.Values
	body    any
	secrets []string // in the body: never to appear in an error
	tenant  string
	key     string // of the session

	unversioned bool // its URL does not begin with the version of the API
}

// patience bounds a call whose ctx has no deadline; the vendor's clients wait as long.
const patience = 300 * time.Second

// do makes a call within a session and decodes the data of the answer into out, unless that is nil.
// It returns the whole body too. A key that the array no longer takes is renewed once.
func (c *Client) do(ctx context.Context, r request, out any) ([]byte, error) {
	if r.at.err != nil {
		return nil, r.at.err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	r.tenant = cmp.Or(r.tenant, c.tenant)
	// Another process may have renewed the key and lost it again before we used it: hence more than once.
	for renewals, stale := 0, ""; ; renewals++ {
		key, fresh, err := c.session.get(ctx, stale, c.login)
		if err != nil {
			return nil, err
		}
		r.key = key
		a, err := c.send(ctx, r)
		if err != nil {
			return nil, err
		}
		if a.status == http.StatusUnauthorized && !fresh && renewals < 2 {
			stale = key
			continue
		}
		return a.body, c.read(r, a, out)
	}
}

// call is do for those who need the data only.
func (c *Client) call(ctx context.Context, method string, at place, body, out any) error {
	_, err := c.do(ctx, request{method: method, at: at, body: body}, out)
	return err
}
