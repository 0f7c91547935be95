// Package install puts the driver on a node and keeps it there: the executable and its configuration where kubelet and
// kube-controller-manager look for them, and the node's initiator on the array.
//
// kubelet runs what it finds under the executable's name at any moment, and asks it anew (init) whenever a file there
// changes, dot-files excepted (k8s.io/kubernetes pkg/volume/flexvolume/probe.go). So every file is written whole under
// the name of a dot-file and renamed, and what is right is not touched.
package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/cenkalti/backoff/v5"

	"datera-flexvolume/datera"
	"datera-flexvolume/driver"
)

// Array is what the installer needs of the storage cluster.
type Array interface {
	Server() string
	InitiatorByName(ctx context.Context, name string) (*datera.Initiator, error)
	Initiator(ctx context.Context, iqn string) (*datera.Initiator, error)
	RegisterInitiator(ctx context.Context, iqn, name string) (*datera.Initiator, error)
	DeleteInitiator(ctx context.Context, iqn string) error
	Tenants(ctx context.Context) ([]string, error)
	InitiatorGroupsWithPrefix(ctx context.Context, prefix string) ([]datera.InitiatorGroup, error)
}

// Initiator is what it needs of the host's open-iscsi.
type Initiator interface {
	Name() (string, error)
	CheckDaemon() error
}

// Installer works on one host.
type Installer struct {
	Executable string // the file to install
	Version    string // of it, for messages
	Root       string // where the host's root directory is seen; "/" on the host itself
	PluginDir  string // kubelet's --volume-plugin-dir, as the host names it

	// Node is the node's name in Kubernetes; empty: the configuration's, or else the host's name.
	Node string
	// Attach replaces the configuration's attach mode unless it is empty.
	Attach driver.AttachMode
	// ClusterID replaces the configuration's cluster_id unless it is empty.
	ClusterID string
	// Credentials says whether the node's configuration holds the array's user name and password.
	Credentials bool
	// ControlPlane says that this node may be without open-iscsi: it serves kube-controller-manager.
	ControlPlane bool
	// KeepRegistration lets Uninstall leave the array alone.
	KeepRegistration bool

	// Load reads the configuration that is to be installed.
	Load      func() (driver.Config, error)
	OpenArray func(driver.Config) (Array, error)
	// AskCluster is for the identity of the cluster that this process runs in; nil: in none.
	AskCluster func(context.Context) (string, error)
	Initiator  Initiator
	// Volumes lists what is attached to the host, by the journal in stateDir and by what the kernel shows.
	Volumes func(ctx context.Context, stateDir string) ([]driver.VolumeStatus, error)
	Report  func(Event)

	changes    changes       // to the driver's folder; the real ones unless set
	firstRetry time.Duration // a second unless set
	clusterID  string        // what AskCluster answered
	identified string        // the identity that was reported last
	registered string        // the IQN that was found or put on the array last
	said       map[Step]bool // steps that were reported and have not failed since
}

const (
	// attemptTime bounds one attempt, so that what it waits for is said.
	attemptTime = 10 * time.Second
	// longestRetry bounds the pause between two attempts.
	longestRetry = time.Minute
)

// ErrStopped is an installation that was told to stop before it succeeded.
var ErrStopped = errors.New("stopped before it was done")

// Install tries until the node can attach volumes, and says what it waits for. With an interval it then goes on: it
// looks again whenever the interval has passed and puts right what has changed, until ctx is done.
func (i *Installer) Install(ctx context.Context, interval time.Duration) error {
	return i.keepTrying(ctx, interval, i.installOnce)
}

// attempt makes one and returns what to say of its success, or what failed.
type attempt func(context.Context) (success string, failures []failure)

// keepTrying repeats an attempt until it succeeds, then at every interval; without an interval it ends there.
func (i *Installer) keepTrying(ctx context.Context, interval time.Duration, attempt attempt) error {
	delays := &backoff.ExponentialBackOff{
		InitialInterval: cmp.Or(i.firstRetry, time.Second), Multiplier: 2, MaxInterval: longestRetry, RandomizationFactor: 0.2,
	}
	delays.Reset()
	for {
		limited, cancel := context.WithTimeout(ctx, attemptTime)
		success, failures := attempt(limited)
		cancel()
		if ctx.Err() != nil {
			break
		}
		pause := interval
		if len(failures) > 0 {
			pause = delays.NextBackOff()
			i.reportFailures(failures, pause)
		} else {
			delays.Reset()
			i.report(StepReady, success, false)
			if interval == 0 {
				return nil
			}
		}
		if !wait(ctx, pause) {
			break
		}
	}
	if interval > 0 {
		return nil // it was to go on until now
	}
	return ErrStopped
}

// wait lets d pass; false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// installOnce makes one attempt. What does not depend on a step that failed is done all the same.
func (i *Installer) installOnce(ctx context.Context) (success string, failures []failure) {
	config, err := i.configuration()
	if err == nil && !i.Credentials {
		err = i.needsCredentials(config)
	}
	if err != nil {
		return "", []failure{{StepConfiguration, err}}
	}
	config, identity, changed, err := i.identify(ctx, config)
	if err != nil {
		return "", []failure{{StepCluster, err}}
	}
	i.report(StepCluster, identity, changed && i.identified != config.ClusterID)
	i.identified = config.ClusterID
	if failed := i.place(config); failed != nil {
		return "", []failure{*failed}
	}
	try := func(step Step, do func(context.Context, driver.Config) (message string, changed bool, err error)) {
		message, changed, err := do(ctx, config)
		if err != nil {
			failures = append(failures, failure{step, err})
			return
		}
		i.report(step, message, changed)
	}
	if i.servesControlPlaneOnly() {
		try(StepArray, i.greet)
		return fmt.Sprintf("control-plane node %s has the driver; it has no open-iscsi, so volumes attach to other nodes only", config.Node), failures
	}
	try(StepArray, i.register)
	try(StepHost, i.host)
	return fmt.Sprintf("node %s can attach volumes", config.Node), failures
}

// configuration is what the node is to have.
func (i *Installer) configuration() (driver.Config, error) {
	config, err := i.Load()
	if err == nil {
		config, err = config.ForNode(i.nodeName(config), i.Attach)
	}
	if err != nil {
		return driver.Config{}, err
	}
	if _, _, err := config.Connection(); err != nil && !registersByItself(config) {
		return driver.Config{}, fmt.Errorf("%w. In a cluster it is the key datera-config of the Secret datera-config", err)
	}
	return config, nil
}

// needsCredentials says why the driver on this node cannot do without the array's user name and password; nil: it can.
func (i *Installer) needsCredentials(config driver.Config) error {
	switch {
	case config.Attach == driver.AttachKubelet:
		return errors.New("attach mode kubelet needs the array's user name and password on every node: leave --credentials=false out")
	case config.Attach == driver.AttachController && i.ControlPlane:
		return errors.New("in attach mode controller this node's kube-controller-manager attaches, detaches and cuts dead nodes off: " +
			"it needs the array's user name and password; leave --credentials=false out on control-plane nodes")
	}
	return nil
}

// registersByItself tells of a node without credentials of its own: in attach mode none mount brings those of the
// volume's secretRef, and registers the node.
func registersByItself(config driver.Config) bool {
	return config.Attach == driver.AttachNone && (config.Username == "" || config.Password == "")
}

func (i *Installer) nodeName(config driver.Config) string {
	own, _ := config.NodeName()
	return cmp.Or(i.Node, own)
}

// onHost is where this process sees a path of the host.
func (i *Installer) onHost(path string) string { return filepath.Join(i.Root, path) }
