package mount

import (
	"bytes"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelLog collects what the kernel says from now on (kernel, Documentation/ABI/testing/dev-kmsg). Without access to
// its log it collects nothing.
type kernelLog struct{ fd int }

func openKernelLog(path string) *kernelLog {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &kernelLog{fd: -1}
	}
	unix.Seek(fd, 0, unix.SEEK_END)
	return &kernelLog{fd: fd}
}

func (k *kernelLog) close() {
	if k.fd >= 0 {
		unix.Close(k.fd)
	}
}

// about returns the last messages that name a device, as one line.
func (k *kernelLog) about(device string) string {
	const few, enough = 4, 1000
	if resolved, err := filepath.EvalSymlinks(device); err == nil {
		device = resolved
	}
	var said []string
	buf := make([]byte, 8192)
	for range enough {
		n, err := unix.Read(k.fd, buf)
		if err == unix.EPIPE { // messages were overwritten before they were read: go on with the next
			continue
		}
		if err != nil || n <= 0 {
			break
		}
		if text := kernelMessage(buf[:n]); namesDevice(text, filepath.Base(device)) {
			said = append(said, text)
		}
	}
	return strings.Join(said[max(0, len(said)-few):], "; ")
}

// kernelMessage is the text of a record: what is behind the first semicolon, without the tags on the lines below.
func kernelMessage(record []byte) string {
	_, text, _ := bytes.Cut(record, []byte(";"))
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return strings.TrimSpace(string(line))
}

// namesDevice tells whether a name stands in a text as a word of its own.
func namesDevice(text, name string) bool {
	isWord := func(r rune) bool {
		return r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	}
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return !isWord(r) }) {
		if word == name {
			return true
		}
	}
	return false
}
