// Command initiator does single steps of package iscsi on a node, each in a process of its own:
//
//	initiator [-chap NAME:SECRET] [-die N] login|scan|attach|detach|loggedin DEVICESTRING
//
// It prints what came of the step as JSON. With -die it kills itself when its Nth program has ended.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"datera-flexvolume/driver/program"
	"datera-flexvolume/iscsi"
)

// outcome is what is printed.
type outcome struct {
	Device    iscsi.Device
	LoggedIn  bool
	Programs  int64
	Error     string
	NoSession bool
	Refused   bool
}

func main() {
	chap := flag.String("chap", "", "`NAME:SECRET`")
	die := flag.Int64("die", 0, "die when the `N`th program has ended")
	flag.Parse()
	target, err := parse(flag.Arg(1))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	programs := program.New(slog.New(slog.DiscardHandler))
	initiator := iscsi.New(mortal{programs, *die}, iscsi.Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	var login iscsi.CHAP
	login.Username, login.Password, _ = strings.Cut(*chap, ":")
	var done outcome
	switch flag.Arg(0) {
	case "login":
		err = initiator.Login(ctx, target, login)
	case "scan":
		done.Device, err = initiator.Scan(ctx, target)
	case "attach":
		done.Device, err = initiator.Attach(ctx, target, login)
	case "detach":
		err = initiator.Detach(ctx, target)
	case "loggedin":
		done.LoggedIn, err = initiator.LoggedIn(target)
	default:
		err = fmt.Errorf("unknown step %q", flag.Arg(0))
	}
	done.Programs = programs.Started()
	if err != nil {
		done.Error, done.NoSession, done.Refused = err.Error(), errors.Is(err, iscsi.ErrNoSession), errors.Is(err, iscsi.ErrRefused)
	}
	if err := json.NewEncoder(os.Stdout).Encode(done); err != nil {
		os.Exit(1)
	}
}

// mortal kills its process when some number of programs have ended.
type mortal struct {
	*program.Gateway
	die int64
}

func (m mortal) Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	output, err := m.Gateway.Run(ctx, name, args...)
	if m.die > 0 && m.Started() >= m.die {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	return output, err
}

// parse reads the device string that attach answers: iscsi://PORTAL[,PORTAL…]/IQN/LUN?serial=SERIAL&….
func parse(device string) (iscsi.Target, error) {
	address, query, _ := strings.Cut(strings.TrimPrefix(device, "iscsi://"), "?")
	values, err := url.ParseQuery(query)
	parts := strings.Split(address, "/")
	if err != nil || len(parts) != 3 {
		return iscsi.Target{}, fmt.Errorf("%q is not a device string", device)
	}
	lun, err := strconv.Atoi(parts[2])
	return iscsi.Target{Portals: strings.Split(parts[0], ","), IQN: parts[1], LUN: lun, Serial: values.Get("serial")}, err
}
