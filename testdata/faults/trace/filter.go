package trace

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Only the calls that may be a step stop the program (seccomp(2), SECCOMP_RET_TRACE): a stop for each of the thousands
// that Go's runtime makes would slow it down several times. The filter is inherited by the programs that it starts, for
// which nobody would be there to answer. It lets them through by where a call comes from: the traced program is a static
// one at a fixed address, at which no other has its code.

// calls are those that stop the program.
var calls = [...]uint32{
	unix.SYS_EXECVE, unix.SYS_CONNECT, unix.SYS_READ, unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_MKDIR, unix.SYS_MKDIRAT,
	unix.SYS_RENAME, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT, unix.SYS_SYMLINKAT,
	unix.SYS_UNLINK, unix.SYS_RMDIR, unix.SYS_UNLINKAT, unix.SYS_TRUNCATE, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE,
	unix.SYS_CHMOD, unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_MOUNT, unix.SYS_FSMOUNT, unix.SYS_MOVE_MOUNT,
	unix.SYS_MOUNT_SETATTR, unix.SYS_UMOUNT2, unix.SYS_IOCTL, unix.SYS_FLOCK, unix.SYS_KILL,
}

// Launch becomes the program to be traced: args are what Run passes after Options.Launcher.
func Launch(args []string) error {
	if len(args) < 3 {
		return errors.New("launch: it is the tracer that starts this")
	}
	start, startErr := strconv.ParseUint(args[0], 16, 32)
	end, endErr := strconv.ParseUint(args[1], 16, 32)
	if err := errors.Join(startErr, endErr); err != nil {
		return err
	}
	runtime.LockOSThread() // the filter is this thread's, which becomes the program
	if err := install(filter(uint32(start), uint32(end))); err != nil {
		return fmt.Errorf("install the filter of system calls: %w", err)
	}
	return syscall.Exec(args[2], args[2:], os.Environ())
}

// codeOf is where a program's code will be.
func codeOf(program string) (start, end uint64, err error) {
	file, err := elf.Open(program)
	if err != nil {
		return 0, 0, fmt.Errorf("find the code of %s: %w", program, err)
	}
	defer file.Close()
	if file.Type != elf.ET_EXEC || file.Machine != elf.EM_X86_64 {
		return 0, 0, fmt.Errorf("%s is no static program of amd64 at a fixed address", program)
	}
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_LOAD && segment.Flags&elf.PF_X != 0 {
			return segment.Vaddr, segment.Vaddr + segment.Memsz, nil
		}
	}
	return 0, 0, fmt.Errorf("%s has no code", program)
}

// The fields of struct seccomp_data.
const (
	dataNumber       = 0
	dataArchitecture = 4
	dataPointer      = 8  // of the instruction
	dataArguments    = 16 // 8 bytes each
)

func filter(start, end uint32) []unix.SockFilter {
	const load, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_RET | unix.BPF_K
	allow, trace := instruction(ret, unix.SECCOMP_RET_ALLOW), instruction(ret, unix.SECCOMP_RET_TRACE)
	program := []unix.SockFilter{
		instruction(load, dataArchitecture), jump(unix.BPF_JEQ, unix.AUDIT_ARCH_X86_64, 1, 0), allow,
		instruction(load, dataPointer+4), jump(unix.BPF_JEQ, 0, 1, 0), allow,
		instruction(load, dataPointer), jump(unix.BPF_JGE, start, 1, 0), allow,
		jump(unix.BPF_JGE, end, 0, 1), allow,
		instruction(load, dataNumber),
		jump(unix.BPF_JEQ, unix.SYS_OPENAT, 0, 4),
		instruction(load, dataArguments+2*8), jump(unix.BPF_JSET, unix.O_CREAT|unix.O_TRUNC, 0, 1), trace, allow,
	}
	for _, number := range calls {
		program = append(program, jump(unix.BPF_JEQ, number, 0, 1), trace)
	}
	return append(program, allow)
}

func instruction(code uint16, value uint32) unix.SockFilter {
	return unix.SockFilter{Code: code, K: value}
}

// jump skips so many instructions when the comparison holds, or when it does not.
func jump(comparison uint16, value uint32, holds, not uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | comparison | unix.BPF_K, K: value, Jt: holds, Jf: not}
}

func install(program []unix.SockFilter) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil { // who is not root may not otherwise
		return err
	}
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return errno
	}
	return nil
}
