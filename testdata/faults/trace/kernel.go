package trace

import (
	"bytes"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call is a system call with its arguments.
type call struct {
	number uint64
	args   [6]uint64
}

// info is struct ptrace_syscall_info (ptrace(2)).
type info struct {
	op     uint8
	_      [3]uint8
	_      uint32
	_, _   uint64
	values [8]uint64 // of an entry: number and arguments; of an exit: result
}

func (i *info) call() call { return call{number: i.values[0], args: [6]uint64(i.values[1:7])} }

func (i *info) result() int64 { return int64(i.values[0]) }

func syscallInfo(tid int) (*info, error) {
	i := new(info)
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(*i), uintptr(unsafe.Pointer(i)), 0, 0)
	if errno != 0 {
		return nil, errno
	}
	return i, nil
}

// skip makes the kernel do nothing for a call that a task is about to make.
func skip(tid int) error {
	return setRegisters(tid, func(r *unix.PtraceRegs) { r.Orig_rax = ^uint64(0) })
}

// setResult sets what a call returns; an error is negative.
func setResult(tid int, result int64) error {
	return setRegisters(tid, func(r *unix.PtraceRegs) { r.Rax = uint64(result) })
}

func setRegisters(tid int, change func(*unix.PtraceRegs)) error {
	var registers unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &registers); err != nil {
		return err
	}
	change(&registers)
	return unix.PtraceSetRegs(tid, &registers)
}

const pageSize = 4096

// readMemory reads so many bytes, or fewer at the end of what is mapped.
func readMemory(tid int, address uint64, length int) []byte {
	var content []byte
	for len(content) < length {
		// A read that meets an unmapped page gives nothing at all, so no read crosses a page.
		chunk := make([]byte, min(length-len(content), pageSize-int(address%pageSize)))
		local, remote := unix.Iovec{Base: &chunk[0]}, unix.RemoteIovec{Base: uintptr(address), Len: len(chunk)}
		local.SetLen(len(chunk))
		n, err := unix.ProcessVMReadv(tid, []unix.Iovec{local}, []unix.RemoteIovec{remote}, 0)
		if err != nil || n <= 0 {
			break
		}
		content = append(content, chunk[:n]...)
		address += uint64(n)
	}
	return content
}

// readString reads a C string.
func readString(tid int, address uint64) string {
	const step, longest = 256, 4096
	var text []byte
	for len(text) < longest && address != 0 {
		chunk := readMemory(tid, address+uint64(len(text)), step)
		if end := bytes.IndexByte(chunk, 0); end >= 0 {
			return string(append(text, chunk[:end]...))
		}
		if len(chunk) < step {
			break
		}
		text = append(text, chunk...)
	}
	return string(text)
}

// readStrings reads an array of C strings that ends with a null pointer.
func readStrings(tid int, address uint64) []string {
	const most = 100
	var texts []string
	for range most {
		raw := readMemory(tid, address, 8)
		if len(raw) < 8 {
			break
		}
		pointer := *(*uint64)(unsafe.Pointer(&raw[0]))
		if pointer == 0 {
			break
		}
		texts = append(texts, readString(tid, pointer))
		address += 8
	}
	return texts
}

// fileOf is what a descriptor of a task is open on.
func fileOf(tid int, fd uint64) string {
	path, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, int32(fd)))
	return path
}
