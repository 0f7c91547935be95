package trace

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// step tells what the call that a task is about to make changes, if anything.
func (t *tracer) step(task *task) (kind Kind, what string, found bool) {
	kind, what = t.describe(task)
	if kind == "" {
		return "", "", false
	}
	for _, prefix := range t.options.Ignore {
		if strings.HasPrefix(what, prefix) {
			return "", "", false
		}
	}
	return kind, what, true
}

func (t *tracer) describe(task *task) (Kind, string) {
	tid, args := task.tid, task.call.args
	if task.child { // all that it does before it is a program is its own
		if task.call.number == unix.SYS_EXECVE {
			return Program, strings.Join(readStrings(tid, args[1]), " ")
		}
		return "", ""
	}
	path := func(directory, name int) string { return pathAt(tid, args[directory], args[name]) }
	text := func(argument int) string { return readString(tid, args[argument]) }
	switch task.call.number {
	case unix.SYS_OPENAT:
		return opened(path(0, 1), args[2])
	case unix.SYS_WRITE, unix.SYS_PWRITE64:
		return t.written(tid, args[0], args[1], args[2])
	case unix.SYS_MKDIR:
		return unless(exists(text(0)), Mkdir, text(0))
	case unix.SYS_MKDIRAT:
		return unless(exists(path(0, 1)), Mkdir, path(0, 1))
	case unix.SYS_RENAME:
		return Rename, text(0) + " " + text(1)
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT:
		return Rename, path(0, 1) + " " + path(2, 3)
	case unix.SYS_SYMLINKAT:
		return Create, path(1, 2)
	case unix.SYS_UNLINK, unix.SYS_RMDIR:
		return unless(!exists(text(0)), Remove, text(0))
	case unix.SYS_UNLINKAT:
		return removed(path(0, 1), args[2])
	case unix.SYS_TRUNCATE, unix.SYS_CHMOD:
		return Write, text(0)
	case unix.SYS_FTRUNCATE, unix.SYS_FCHMOD, unix.SYS_FALLOCATE:
		return Write, fileOf(tid, args[0])
	case unix.SYS_FCHMODAT:
		return Write, path(0, 1)
	case unix.SYS_MOUNT:
		return Mount, fmt.Sprintf("%s on %s, flags %#x", text(0), text(1), args[3])
	case unix.SYS_FSMOUNT, unix.SYS_MOVE_MOUNT, unix.SYS_MOUNT_SETATTR:
		return Mount, fmt.Sprint("call ", task.call.number)
	case unix.SYS_UMOUNT2:
		return Unmount, text(0)
	case unix.SYS_IOCTL:
		return device(fileOf(tid, args[0]), args[1])
	case unix.SYS_FLOCK:
		return unless(args[1]&unix.LOCK_UN != 0, Lock, fileOf(tid, args[0]))
	case unix.SYS_KILL:
		return Signal, fmt.Sprintf("%d to %d", args[1], int32(args[0]))
	}
	return "", ""
}

func unless(idle bool, kind Kind, what string) (Kind, string) {
	if idle {
		return "", ""
	}
	return kind, what
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// pathAt is an absolute path whatever the call gives.
func pathAt(tid int, directory, name uint64) string {
	path := readString(tid, name)
	if filepath.IsAbs(path) {
		return path
	}
	base := fmt.Sprintf("/proc/%d/cwd", tid)
	if int32(directory) != unix.AT_FDCWD {
		base = fmt.Sprintf("/proc/%d/fd/%d", tid, int32(directory))
	}
	base, _ = os.Readlink(base)
	return filepath.Join(base, path)
}

// ofTheKernel are files whose opening changes nothing, whatever the flags.
func ofTheKernel(path string) bool {
	return strings.HasPrefix(path, "/sys/") || strings.HasPrefix(path, "/proc/") || strings.HasPrefix(path, "/dev/")
}

func opened(path string, flags uint64) (Kind, string) {
	makes := flags&unix.O_CREAT != 0 && !exists(path)
	empties := flags&unix.O_TRUNC != 0 && flags&unix.O_ACCMODE != unix.O_RDONLY && exists(path)
	return unless(ofTheKernel(path) || !makes && !empties, Create, path)
}

func removed(path string, flags uint64) (Kind, string) {
	info, err := os.Lstat(path)
	// Go tries both ways to remove, of which one is in vain.
	return unless(err != nil || info.IsDir() != (flags&unix.AT_REMOVEDIR != 0), Remove, path)
}

func device(path string, request uint64) (Kind, string) {
	switch request {
	case unix.BLKROSET:
		return Device, "BLKROSET " + path
	case unix.BLKFLSBUF:
		return Device, "BLKFLSBUF " + path
	}
	return "", ""
}

// written tells requests and files from the rest: pipes, wake-ups, devices.
func (t *tracer) written(tid int, fd, address, length uint64) (Kind, string) {
	switch file := fileOf(tid, fd); {
	case strings.HasPrefix(file, "socket:"):
		line := requestLine(readMemory(tid, address, int(min(length, 512))))
		if line == "" {
			return "", ""
		}
		t.pending[int32(fd)] = line
		return Request, line
	case !strings.HasPrefix(file, "/") || strings.HasPrefix(file, "/dev/") || strings.HasPrefix(file, "/memfd:"):
		return "", ""
	case ofTheKernel(file):
		return Write, file + ": " + strings.TrimSpace(string(readMemory(tid, address, int(min(length, 64)))))
	default:
		return Write, file
	}
}

// requestLine is "METHOD /path" of an HTTP request, "" of anything else.
func requestLine(start []byte) string {
	line, _, _ := bytes.Cut(start, []byte("\r\n"))
	if line, isHTTP := bytes.CutSuffix(line, []byte(" HTTP/1.1")); isHTTP {
		return string(line)
	}
	return ""
}

// mayAnswer tells whether a call is a read of which an answer may come. What it reads may be asked for only when it has
// begun, so every read of a connection counts.
func (t *tracer) mayAnswer(task *task) bool {
	fd := int32(task.call.args[0])
	if task.call.number == unix.SYS_CONNECT {
		t.connected[fd] = true
	}
	return task.call.number == unix.SYS_READ && t.connected[fd] && !task.child
}

// answer tells which request a read has brought the answer of.
func (t *tracer) answer(task *task, result int64) (string, bool) {
	if result <= 0 || !t.mayAnswer(task) {
		return "", false
	}
	fd := int32(task.call.args[0])
	what, waited := t.pending[fd]
	delete(t.pending, fd)
	return what, waited
}

// failure is a likely error of a step.
func failure(kind Kind, what string) unix.Errno {
	switch {
	case kind == Program:
		return unix.ENOMEM
	case kind == Request:
		return unix.EPIPE
	case kind == Lock:
		return unix.ENOLCK
	case (kind == Create || kind == Write || kind == Rename || kind == Mkdir) && !ofTheKernel(what):
		return unix.ENOSPC
	}
	return unix.EIO
}
