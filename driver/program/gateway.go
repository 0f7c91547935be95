// Package program is the one door to external programs: it bounds them in time, keeps
// kubelet's pipe from them, counts them, and keeps secrets out of what is said about them.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// reapTime is how long a killed program may take to go. One that hangs in the kernel
	// (D state) never does, and is left behind.
	reapTime = 2 * time.Second
	// maxOutput bounds what is kept of a program's output, in bytes.
	maxOutput = 64 << 10
	// maxShown bounds what an error shows of it.
	maxShown = 500
)

// Gateway starts programs.
type Gateway struct {
	log      *slog.Logger
	redactor *strings.Replacer
	started  atomic.Int64
}

// New returns a gateway that never shows any of secrets.
func New(log *slog.Logger, secrets ...string) *Gateway {
	// The longest first: one secret may be part of another.
	secrets = slices.SortedFunc(slices.Values(secrets), func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, secret := range secrets {
		if secret != "" {
			pairs = append(pairs, secret, "(hidden)")
		}
	}
	return &Gateway{log: log, redactor: strings.NewReplacer(pairs...)}
}

// Started is the number of programs started so far.
func (g *Gateway) Started() int64 { return g.started.Load() }

// Error is a program that could not be started or did not end well. It unwraps to an
// *exec.ExitError, to the context's error, or to what kept the program from starting.
type Error struct {
	Command string // as typed, secrets hidden
	Output  string // the end of what it wrote, secrets hidden
	Err     error
}

func (e *Error) Error() string {
	if e.Output == "" {
		return fmt.Sprintf("`%s`: %v", e.Command, e.Err)
	}
	return fmt.Sprintf("`%s`: %v: %s", e.Command, e.Err, e.Output)
}

func (e *Error) Unwrap() error { return e.Err }

// Run starts a program, waits for its end and returns all that it wrote. When ctx is done
// the program and its children are killed. With a ctx that is never done (Done is nil)
// the program is one that must come to its end: the signals by which others end a service's
// processes do not reach it either. Only SIGKILL does.
func (g *Gateway) Run(ctx context.Context, name string, args ...string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, g.failed(name, args, nil, err)
	}
	output := &tail{}
	cmd := exec.Command(name, args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), isOurs), "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = output, output
	// A grandchild that keeps the pipe open does not keep the call waiting.
	cmd.WaitDelay = reapTime
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Go's own descriptors are not inherited; those that this process got from its parent
	// would be. A kernel before 5.11 refuses, and the descriptors stay as they are.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	start := cmd.Start
	if ctx.Done() == nil {
		start = func() error { return undisturbed(cmd.Start) }
	}
	begin := time.Now()
	if err := start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			err = fmt.Errorf("%w: install it on this node", err)
		}
		return nil, g.failed(name, args, nil, err)
	}
	g.started.Add(1)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	err := await(ctx, cmd.Process.Pid, ended)
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	g.log.DebugContext(ctx, "program", "command", g.redactor.Replace(commandLine(name, args)), "seconds", time.Since(begin).Seconds(), "error", err)
	if err != nil {
		return output.bytes(), g.failed(name, args, output.bytes(), err)
	}
	return output.bytes(), nil
}

// undisturbed starts a program with the signals blocked that systemd sends to all processes of
// a service, that a terminal sends, and that come of writing to a reader who is gone. A
// program inherits the mask of the thread that starts it (signal(7)).
func undisturbed(start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var blocked, before unix.Sigset_t
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE} {
		blocked.Val[0] |= 1 << (signal - 1)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &blocked, &before); err != nil {
		return os.NewSyscallError("rt_sigprocmask", err)
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
	return start()
}

// isOurs tells the driver's own variables, which hold the array's password.
func isOurs(variable string) bool {
	return strings.HasPrefix(variable, "DAT_") || strings.HasPrefix(variable, "DATERA_")
}

func await(ctx context.Context, pid int, ended <-chan error) error {
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	select {
	case <-ended:
		return context.Cause(ctx)
	case <-time.After(reapTime):
		return fmt.Errorf("%w; it was killed and does not end: it hangs in the kernel", context.Cause(ctx))
	}
}

func (g *Gateway) failed(name string, args []string, output []byte, err error) error {
	shown := strings.TrimSpace(g.redactor.Replace(string(output))) // before it is cut, perhaps in a secret
	if len(shown) > maxShown {
		shown = "… " + shown[len(shown)-maxShown:]
	}
	return &Error{
		Command: g.redactor.Replace(commandLine(name, args)),
		Output:  strings.Join(strings.Fields(strings.ToValidUTF8(shown, "?")), " "),
		Err:     err,
	}
}

func commandLine(name string, args []string) string {
	return strings.Join(append([]string{name}, args...), " ")
}

// tail keeps the last maxOutput bytes written to it. A child that was left behind may
// still write.
type tail struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.buffer.Write(p)
	if excess := t.buffer.Len() - maxOutput; excess > 0 {
		t.buffer.Next(excess)
	}
	return len(p), nil
}

func (t *tail) bytes() []byte {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return bytes.Clone(t.buffer.Bytes())
}
