package trace

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tracer follows one process with all its threads, and each program that it starts until that begins.
type tracer struct {
	options Options
	pid     int
	tasks   map[int]*task
	// By file descriptor:
	connected map[int32]bool   // connections
	pending   map[int32]string // requests whose answers are to come
	held      *task
	until     time.Time
	begun     bool // the launcher has become the program
	dying     bool
	report    Report
}

// task is a thread of the process, or a child that is about to become a program.
type task struct {
	tid    int
	child  bool
	call   call // that it is in
	point  int  // number of that call's point; 0: it is none
	failed unix.Errno
	goOn   func(tid int) error // from where it is held
}

const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC |
	unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_EXITKILL

func (t *tracer) run() error {
	var status unix.WaitStatus
	if _, err := unix.Wait4(t.pid, &status, unix.WALL, nil); err != nil {
		return err
	}
	if err := unix.PtraceSetOptions(t.pid, options); err != nil {
		return err
	}
	t.tasks[t.pid] = &task{tid: t.pid}
	if err := t.resume(t.pid, 0); err != nil {
		return err
	}
	for {
		tid, err := t.wait(&status)
		switch {
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil:
			return err
		case status.Stopped():
			// A task that is being killed may be gone before it is asked.
			if err := t.stopped(tid, status); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		default:
			t.ended(tid, status)
		}
	}
}

// holdPoll is how often a held step is looked after.
const holdPoll = 2 * time.Millisecond

// wait waits for the next stop or end of a task, and lets the held one go when it is time.
func (t *tracer) wait(status *unix.WaitStatus) (int, error) {
	for {
		flags := unix.WALL
		if t.held != nil {
			flags |= unix.WNOHANG
		}
		tid, err := unix.Wait4(-1, status, flags, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || tid != 0:
			return tid, err
		}
		select {
		case <-t.options.Release:
			t.until = time.Time{}
		case <-time.After(holdPoll):
		}
		if time.Now().After(t.until) {
			held := t.held
			t.held = nil
			if err := held.goOn(held.tid); err != nil && !errors.Is(err, unix.ESRCH) {
				return 0, err
			}
		}
	}
}

func (t *tracer) ended(tid int, status unix.WaitStatus) {
	delete(t.tasks, tid)
	if tid == t.pid {
		t.report.Killed = status.Signaled() && status.Signal() == syscall.SIGKILL
		t.report.Exit = status.ExitStatus()
	}
}

// resume lets a task go on to its next step.
func (t *tracer) resume(tid int, signal syscall.Signal) error {
	return unix.PtraceCont(tid, int(signal))
}

// watch lets a task make its call, and stops it when that is done.
func (t *tracer) watch(tid int) error { return unix.PtraceSyscall(tid, 0) }

// stopped deals with a stop and lets the task go on.
func (t *tracer) stopped(tid int, status unix.WaitStatus) error {
	known := t.tasks[tid]
	if known == nil { // a new one, which begins with SIGSTOP
		_, err := os.Stat(fmt.Sprintf("/proc/%d/task/%d", t.pid, tid))
		t.tasks[tid] = &task{tid: tid, child: err != nil}
		return t.resume(tid, 0)
	}
	signal := status.StopSignal()
	switch {
	case signal == syscall.SIGTRAP|0x80:
		return t.leave(known)
	case signal != syscall.SIGTRAP || status.TrapCause() <= 0:
		return t.resume(tid, signal)
	case status.TrapCause() == unix.PTRACE_EVENT_SECCOMP && t.begun:
		return t.enter(known)
	case status.TrapCause() == unix.PTRACE_EVENT_EXEC && known.child:
		return t.letGo(known)
	case status.TrapCause() == unix.PTRACE_EVENT_EXEC:
		t.begun = true
		t.tasks = map[int]*task{tid: {tid: tid}}
	}
	return t.resume(tid, 0)
}

// letGo leaves a program alone that has begun.
func (t *tracer) letGo(child *task) error {
	if child.point == t.options.Fault.At && t.options.Fault.Do == KillAfter {
		t.kill()
	}
	delete(t.tasks, child.tid)
	return unix.PtraceDetach(child.tid)
}

// kill ends the process as SIGKILL from outside would.
func (t *tracer) kill() {
	t.dying = true
	_ = unix.Kill(t.pid, unix.SIGKILL)
}

// number gives a step its number, and tells whether it is the one of the fault.
func (t *tracer) number(task *task, kind Kind, what string) (hit bool) {
	if t.dying { // what another thread was at
		return false
	}
	task.point = len(t.report.Points) + 1
	t.report.Points = append(t.report.Points, Point{Number: task.point, Kind: kind, What: what})
	hit = task.point == t.options.Fault.At
	t.report.Hit = t.report.Hit || hit
	return hit
}

// enter deals with a call that may be a step and is about to be made.
func (t *tracer) enter(task *task) error {
	info, err := syscallInfo(task.tid)
	if err != nil {
		return err
	}
	task.call, task.point = info.call(), 0
	kind, what, isStep := t.step(task)
	switch {
	case !isStep && t.mayAnswer(task):
		return t.watch(task.tid)
	case !isStep:
		return t.resume(task.tid, 0)
	case !t.number(task, kind, what):
		return t.watch(task.tid)
	}
	switch t.options.Fault.Do {
	case Kill:
		if err := skip(task.tid); err != nil {
			return err
		}
		if task.child {
			_ = unix.Kill(task.tid, unix.SIGKILL)
		}
		t.kill()
		return nil
	case Fail:
		task.failed = failure(kind, what)
		if err := skip(task.tid); err != nil {
			return err
		}
	case Hold:
		t.hold(task, t.watch)
		return nil
	}
	return t.watch(task.tid)
}

// killsAfterWhatGoesOn tells whether the process is to be killed after a step that a thread of it is at.
func (t *tracer) killsAfterWhatGoesOn() bool {
	if t.options.Fault.Do != KillAfter {
		return false
	}
	for _, task := range t.tasks {
		if task.point == t.options.Fault.At && task.point > 0 && !task.child {
			return true
		}
	}
	return false
}

func (t *tracer) hold(task *task, goOn func(tid int) error) {
	task.goOn = goOn
	t.held, t.until = task, time.Now().Add(t.options.Fault.For)
	if t.options.Held != nil {
		t.options.Held()
	}
}

// leave deals with a step that was made, and finds answers: what is read is known only now.
func (t *tracer) leave(task *task) error {
	info, err := syscallInfo(task.tid)
	if err != nil {
		return err
	}
	result := info.result()
	if task.failed != 0 {
		result = -int64(task.failed)
		task.failed = 0
		if err := setResult(task.tid, result); err != nil {
			return err
		}
	}
	if task.point > 0 {
		if result < 0 {
			t.report.Points[task.point-1].Error = unix.ErrnoName(unix.Errno(-result))
		}
		if task.point == t.options.Fault.At && t.options.Fault.Do == KillAfter && !task.child {
			t.kill()
			return nil
		}
	}
	what, received := t.answer(task, result)
	if received && t.killsAfterWhatGoesOn() { // another thread had the answer before the request's own has returned
		t.kill()
		return nil
	}
	if received && t.number(task, Answer, what) {
		switch t.options.Fault.Do {
		case Kill, KillAfter:
			t.kill()
			return nil
		case Fail:
			if err := setResult(task.tid, -int64(unix.ECONNRESET)); err != nil {
				return err
			}
		case Hold:
			t.hold(task, func(tid int) error { return t.resume(tid, 0) })
			return nil
		}
	}
	return t.resume(task.tid, 0)
}
