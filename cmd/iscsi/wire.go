package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"datera-flexvolume/datera"
	"datera-flexvolume/driver"
	"datera-flexvolume/driver/install"
	"datera-flexvolume/driver/program"
	"datera-flexvolume/iscsi"
	"datera-flexvolume/mount"
)

// wiring holds the parts of one call, and what they did.
type wiring struct {
	driver    *driver.Driver
	initiator *iscsi.Initiator
	mounter   *mount.Mounter
	programs  *program.Gateway
	arrays    arrays
}

// wire puts the real parts together. Nothing is opened or asked yet.
func wire(log *slog.Logger, config driver.Config, configErr error) *wiring {
	w := &wiring{programs: program.New(log, config.Secrets()...)}
	w.initiator = iscsi.New(w.programs, iscsi.Options{
		LockDir: filepath.Join(config.RunDir, "lock"), Logger: log,
		ReplacementTimeout: time.Duration(config.ReplacementTimeout) * time.Second,
	})
	w.mounter = mount.New(w.programs, mount.Options{Logger: log})
	w.driver = &driver.Driver{
		Config:      config,
		ConfigError: configErr,
		OpenArray:   w.arrays.opener(log, config),
		Initiator:   w.initiator,
		Mounter:     w.mounter,
		Log:         log,
	}
	return w
}

// operator adds what the verbs for people need.
func (w *wiring) operator() *driver.Operator {
	return &driver.Operator{
		Driver: w.driver, Node: w.initiator, Mounts: w.mounter, Programs: w.programs, AskCluster: install.Pod{Getenv: os.Getenv}.ClusterID,
		OpenProbe: func(scheme string, credentials driver.Credentials, tenant string) (driver.ArrayProbe, error) {
			connection := w.driver.Config.ArrayClient(scheme, credentials, tenant)
			connection.TokenDir = "" // it tries the password, so no session key will do
			return w.arrays.open(w.driver.Log, connection)
		},
	}
}

// arrays opens connections and knows how many requests they made.
type arrays struct {
	mutex   sync.Mutex
	clients []*datera.Client
}

func (a *arrays) opener(log *slog.Logger, config driver.Config) driver.OpenArray {
	return func(scheme string, credentials driver.Credentials, tenant string) (driver.Array, error) {
		return a.open(log, config.ArrayClient(scheme, credentials, tenant))
	}
}

// open connects to an array.
func (a *arrays) open(log *slog.Logger, connection datera.Config) (*datera.Client, error) {
	connection.Driver, connection.Logger = "datera-flexvolume-"+version, log
	client, err := datera.New(connection)
	if err != nil {
		return nil, err
	}
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.clients = append(a.clients, client)
	return client, nil
}

// requests counts what all connections sent.
func (a *arrays) requests() int64 {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	var sum int64
	for _, client := range a.clients {
		sum += client.Requests()
	}
	return sum
}

// loadConfig finds the configuration as kubelet's calls and people's share it.
func loadConfig() (driver.Config, error) {
	executable, err := os.Executable()
	if err != nil {
		executable = os.Args[0]
	}
	return driver.LoadConfig(driver.ConfigPlaces(os.Getenv, executable), os.Getenv)
}

// callContext ends when the call's time is up or somebody wants it to stop.
func callContext(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(parent, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	ctx, cancel := context.WithTimeout(ctx, driver.CallDeadline)
	return ctx, func() { cancel(); stop() }
}

// withDriver runs a person's verb.
func withDriver(parent context.Context, run func(context.Context, *driver.Driver) error) error {
	config, err := loadConfig()
	if err != nil {
		return err
	}
	ctx, cancel := callContext(parent)
	defer cancel()
	return run(ctx, wire(stderrLog(), config, nil).driver)
}

// withOperator runs a verb that looks at this node. It goes on with a configuration that cannot be used, and as long as
// the person waits: each of its steps is bounded.
func withOperator(parent context.Context, run func(context.Context, *driver.Operator) error) error {
	config, configErr := loadConfig()
	ctx, stop := signal.NotifyContext(parent, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	return run(ctx, wire(stderrLog(), config, configErr).operator())
}

func stderrLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
