package iscsi

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

var (
	// ErrNotISCSI says that a device is no iSCSI disk nor a multipath map of such.
	ErrNotISCSI = errors.New("not an iSCSI disk")
	// ErrInUse says that a disk is mounted or held by another layer, and was left alone.
	ErrInUse = errors.New("still in use")
	// ErrWrongSerial says that the disk at the target's LUN is not the expected volume.
	ErrWrongSerial = errors.New("another volume's disk")
	// ErrNoDaemon says that iscsid does not run.
	ErrNoDaemon = errors.New("iscsid does not run: start it (systemctl enable --now iscsid; package open-iscsi or iscsi-initiator-utils)")
	// ErrRefused says that a target answered, and denied the login.
	ErrRefused = errors.New("login refused")
	// ErrNoSession says that a session which was logged in is gone or lost.
	ErrNoSession = errors.New("no live session: the target ended it, or the network to the portal is broken")
	// ErrUnreachable says that a portal does not answer.
	ErrUnreachable = errors.New("portal does not answer")
)

// Exit codes of iscsiadm (iscsiadm(8), EXIT STATUS; open-iscsi, include/iscsi_err.h), as far as they matter here.
const (
	exitDatabase   = 6  // node records unusable or locked
	exitTimeout    = 8  // connection timed out
	exitInternal   = 9  // at logout: disks or a login still under way
	exitPDUTimeout = 11 // connected, and no answer
	exitExists     = 15 // session exists
	exitFatalLogin = 19 // login error that a retry does not change
	exitNoDaemon   = 20 // could not connect to iscsid
	exitNotFound   = 21 // no such record or session
	exitAuth       = 24 // not authenticated, or not authorized
	exitBusy       = 28 // logout refused: in use, says iscsid
	exitNotBack    = 32 // logout refused: iscsid was started anew and has not got the session back yet
)

// ProgramError is a program that was started and ended badly.
type ProgramError struct {
	Doing  string // "log in to 10.0.0.1:3260"
	Argv0  string
	Code   int    // exit code; -1 when it did not exit by itself
	Output string // what it said, in one line
	Err    error
}

func (e *ProgramError) Error() string {
	var text strings.Builder
	text.WriteString(e.Doing + ": ")
	if e.Code >= 0 {
		fmt.Fprintf(&text, "%s exit %d", e.Argv0, e.Code)
	} else {
		text.WriteString(e.Err.Error())
	}
	if e.Output != "" {
		text.WriteString(": " + e.Output)
	}
	if hint := e.hint(); hint != "" {
		text.WriteString(": " + hint)
	}
	return text.String()
}

// hint says what to do about it.
func (e *ProgramError) hint() string {
	switch {
	case errors.Is(e.Err, exec.ErrNotFound) && e.Argv0 == "iscsiadm":
		return "install open-iscsi (iscsi-initiator-utils)"
	case e.Argv0 != "iscsiadm":
		return ""
	}
	switch e.Code {
	case exitAuth:
		return "this node's initiator name is not in the volume's access list, or the CHAP name or secret is wrong"
	case exitFatalLogin:
		return "this node's initiator name is not in the volume's access list, the target is not on this portal, or its mutual CHAP secret is wrong"
	case exitTimeout, exitPDUTimeout:
		return "the target does not answer there; check the address and the network"
	case exitDatabase:
		return "the node records are damaged or locked; see iscsiadm -m node and " + lockFile
	case exitNoDaemon:
		return ErrNoDaemon.Error()
	case exitBusy:
		return "iscsid.safe_logout is set, and iscsid sees a disk of the session mounted; unmount it"
	case exitNotBack:
		return "iscsid was started anew while the target did not answer, and ends no session before it has it back; bring the portal back, or restart the node"
	}
	return ""
}

// Unwrap gives the cause's kind beside the program's own error.
func (e *ProgramError) Unwrap() []error {
	if e.Argv0 == "iscsiadm" {
		switch e.Code {
		case exitAuth, exitFatalLogin:
			return []error{e.Err, ErrRefused}
		case exitTimeout, exitPDUTimeout:
			return []error{e.Err, ErrUnreachable}
		case exitNoDaemon:
			return []error{e.Err, ErrNoDaemon}
		}
	}
	return []error{e.Err}
}

// program runs one program within limit. Its error is a *ProgramError.
func (i *Initiator) program(ctx context.Context, limit time.Duration, doing, argv0 string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	output, err := i.run.Run(ctx, argv0, args...)
	if err == nil {
		return nil
	}
	failure := &ProgramError{Doing: doing, Argv0: argv0, Code: -1, Output: gist(string(output)), Err: err}
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) {
		failure.Code = exit.ExitCode()
	}
	return failure
}

// exitCode is that of the program whose failure err is; -1 when there is none.
func exitCode(err error) int {
	if failure, ok := errors.AsType[*ProgramError](err); ok {
		return failure.Code
	}
	return -1
}

// gist takes from a program's output what tells the cause: the report of iscsid if there is one, else all complaints.
func gist(output string) string {
	const most = 300
	var complaints []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if _, reason, found := strings.Cut(line, "initiator reported error ("); found {
			return strings.TrimSuffix(strings.TrimLeft(reason, "0123456789 -"), ")")
		}
		if line != "" && !strings.HasPrefix(line, "Logging ") {
			complaints = append(complaints, strings.TrimPrefix(line, "iscsiadm: "))
		}
	}
	text := strings.ToValidUTF8(strings.Join(complaints, "; "), "?")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// several is more than one error in one line.
type several []error

func (s several) Error() string {
	texts := make([]string, len(s))
	for n, err := range s {
		texts[n] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (s several) Unwrap() []error { return s }
