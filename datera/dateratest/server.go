package dateratest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"sync"
	"time"

	"datera-flexvolume/datera/dateratest/target"
)

// Options says what kind of cluster to be. The zero value is a cluster that keeps its state in memory,
// serves no iSCSI and knows the user admin with the password "password".
type Options struct {
	User, Password string
	// Portals are the iSCSI portals that storage instances are reached at; 172.28.41.43 and 172.29.41.56
	// by default, addresses of nobody.
	Portals []netip.AddrPort
	// SoftwareVersion is the product version, four dotted integers. Placement policies exist since 3.3.
	SoftwareVersion string
	// SessionLifetime is how long a key lives after its last use; 15 minutes by default.
	SessionLifetime time.Duration
	// OpStateDelay is how long a storage instance, a snapshot, a clone or a resize takes.
	OpStateDelay time.Duration
	// StateDir keeps the state over restarts. One cluster at a time may use it.
	StateDir string
	// FoldIQNs keeps initiators in lower case, whatever case they come in.
	FoldIQNs bool
	// LaxFilters takes every regular expression in match(name,…), which a cluster refuses. The test of an upgrade needs it: a
	// version of the driver that was never released asks in that way, and could not be run otherwise.
	LaxFilters bool
	// Backend serves the volumes by iSCSI; it needs a StateDir. None by default.
	Backend target.Backend
	Faults  []Fault
	Logger  *slog.Logger
	Now     func() time.Time
}

// Server is a storage cluster. It is an [http.Handler]; [Server.Listen] makes it answer on an address.
type Server struct {
	// URL, with scheme and port, is where the cluster answers once it listens.
	URL string
	// CAFile is the certificate to trust, when [Start] was given [WithTLS].
	CAFile string

	options Options
	routes  *http.ServeMux
	log     *slog.Logger
	now     func() time.Time
	store   *store
	data    *dataPath
	faults  faultTable
	record  requestLog

	mu       sync.Mutex // guards cluster and keys
	cluster  *cluster
	keys     map[string]*key
	front    *listener
	refused  time.Time // until when connections are refused; a listener that is yet to come starts closed
	web      *http.Server
	finished chan struct{}
}

// New makes a cluster from its options and, if there is one, from its state folder.
func New(o Options) (*Server, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &Server{options: o, log: o.Logger, now: o.Now, keys: map[string]*key{}, data: newDataPath(o)}
	s.routes = newRoutes(s)
	for _, f := range o.Faults {
		if err := s.SetFault(f); err != nil {
			return nil, err
		}
	}
	if err := s.openState(); err != nil {
		return nil, err
	}
	if err := s.startDataPath(); err != nil {
		return nil, errors.Join(err, s.store.close())
	}
	return s, nil
}

func (o Options) withDefaults() Options {
	if o.User == "" {
		o.User = "admin"
	}
	if o.Password == "" {
		o.Password = "password"
	}
	if len(o.Portals) == 0 {
		o.Portals = []netip.AddrPort{netip.MustParseAddrPort("172.28.41.43:3260"), netip.MustParseAddrPort("172.29.41.56:3260")}
	}
	if o.SoftwareVersion == "" {
		o.SoftwareVersion = "3.3.0.0"
	}
	if o.SessionLifetime == 0 {
		o.SessionLifetime = 15 * time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

var fourIntegers = regexp.MustCompile(`^\d+(\.\d+){3}$`)

func (o Options) check() error {
	if o.Backend != nil && o.StateDir == "" {
		return errors.New("serving volumes by iSCSI needs a state folder for their backing files")
	}
	if !fourIntegers.MatchString(o.SoftwareVersion) {
		return fmt.Errorf("software version %q is not four dotted integers such as 3.3.0.0", o.SoftwareVersion)
	}
	for _, p := range o.Portals {
		if !p.Addr().Is4() || p.Port() != o.Portals[0].Port() {
			return fmt.Errorf("portal %s: portals are IPv4 addresses with one port in common, as the API names no ports", p)
		}
	}
	return nil
}

// Close stops answering, removes every target and gives the state folder free. What the folder holds stays.
func (s *Server) Close(ctx context.Context) error {
	var failed []error
	s.data.end() // whoever waits for a slow answer need not any more
	if s.web != nil {
		s.front.close()
		if err := s.web.Shutdown(ctx); err != nil {
			failed = append(failed, err, s.web.Close())
		}
		<-s.finished
	}
	failed = append(failed, s.data.close(ctx))
	return errors.Join(append(failed, s.store.close())...)
}

// Address is host:port, as the FlexVolume options write a back-end server.
func (s *Server) Address() string {
	if s.front == nil {
		return ""
	}
	return s.front.Addr().String()
}

// openState reads the state folder, or begins a new cluster.
func (s *Server) openState() error {
	store, kept, err := openStore(s.options.StateDir)
	if err != nil {
		return err
	}
	if kept == nil {
		kept = newCluster(s.options)
	}
	kept.adopt(s.options)
	s.store, s.cluster = store, kept
	if err := s.store.save(s.cluster); err != nil {
		return errors.Join(err, s.store.close())
	}
	return nil
}

// listenError explains why an address cannot be listened on.
func listenError(address string, err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return fmt.Errorf("listen on %s: %w; choose another address or stop the program that has it", address, err)
}
