// Package trace runs a program and numbers the steps by which it changes the world: programs started, requests sent and
// answers read, files made, written, renamed and removed, mounts, locks. At one of them it kills the program, lets the step
// fail, or holds it. Nothing of this is in the program that is traced.
//
// Programs that the traced one starts are let go when they begin, and run on whatever happens to it.
package trace

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Action is what happens at a point.
type Action string

// The actions.
const (
	Kill      Action = "kill"       // SIGKILL instead of the step
	KillAfter Action = "kill-after" // SIGKILL when the step is done, before the program knows
	Fail      Action = "fail"       // the step is not done, and the program gets an error; an answer is lost
	Hold      Action = "hold"       // the step waits until it is released, or its time is up
)

// Fault says what happens at which point.
type Fault struct {
	At  int // number of the point, from 1; 0 is nowhere
	Do  Action
	For time.Duration // longest hold
}

// Kind is what a point does.
type Kind string

// The kinds of points.
const (
	Program Kind = "program" // start of one
	Request Kind = "request" // HTTP, sent
	Answer  Kind = "answer"  // HTTP, received
	Create  Kind = "create"  // a file
	Write   Kind = "write"   // to a file, or to an attribute of sysfs
	Rename  Kind = "rename"
	Remove  Kind = "remove" // a file or directory
	Mkdir   Kind = "mkdir"
	Mount   Kind = "mount"
	Unmount Kind = "unmount"
	Device  Kind = "device" // ioctl that changes one
	Lock    Kind = "lock"
	Signal  Kind = "signal" // to another process
)

// Point is a step that changes the world.
type Point struct {
	Number int    `json:"number"`
	Kind   Kind   `json:"kind"`
	What   string `json:"what"`            // command line, "METHOD /path", path, …
	Error  string `json:"error,omitempty"` // that the program got
}

func (p Point) String() string { return fmt.Sprintf("%d: %s %s", p.Number, p.Kind, p.What) }

// Report is what became of a program.
type Report struct {
	Points []Point `json:"points"`
	Hit    bool    `json:"hit"`    // the point of the fault was reached
	Killed bool    `json:"killed"` // by SIGKILL
	Exit   int     `json:"exit"`   // status; -1 when a signal ended it
	Stdout string  `json:"stdout"`
	Stderr string  `json:"stderr"`
}

// Options say how to trace.
type Options struct {
	Launcher []string // program that calls [Launch] with the arguments that follow these
	Fault    Fault
	Ignore   []string        // beginnings of paths that do not count, such as the log's
	Held     func()          // called when the step is held
	Release  <-chan struct{} // ends the hold
}

// Run runs a program to its end. It needs Linux 5.3 on amd64, and a goroutine of its own: the kernel knows a tracer by its
// thread, which is used up.
func Run(options Options, args ...string) (Report, error) {
	start, end, err := codeOf(args[0])
	if err != nil {
		return Report{}, err
	}
	runtime.LockOSThread()
	stdout, stderr := memory("stdout"), memory("stderr")
	defer stdout.Close()
	defer stderr.Close()
	command := append(slices.Clone(options.Launcher), strconv.FormatUint(start, 16), strconv.FormatUint(end, 16))
	process, err := os.StartProcess(command[0], append(command, args...), &os.ProcAttr{
		Files: []*os.File{nil, stdout, stderr}, Sys: &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return Report{}, err
	}
	t := &tracer{options: options, pid: process.Pid, tasks: map[int]*task{},
		connected: map[int32]bool{}, pending: map[int32]string{}}
	if err := t.run(); err != nil {
		_ = process.Kill()
		return Report{}, fmt.Errorf("trace %s: %w", args[0], err)
	}
	t.report.Stdout, t.report.Stderr = content(stdout), content(stderr)
	return t.report, nil
}

// memory is a file that vanishes with its last user. Unlike a pipe it need not be drained, whoever holds it.
func memory(name string) *os.File {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), name)
}

func content(file *os.File) string {
	all, _ := io.ReadAll(io.NewSectionReader(file, 0, 1<<20))
	return string(all)
}
