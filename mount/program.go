package mount

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
)

// exitCode is the code with which a program ended by itself; false when it did not (it was killed, could not be
// started, or the context was done), or when there is no error.
func exitCode(err error) (int, bool) {
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return exit.ExitCode(), true
	}
	return 0, false
}

// packages says where to get a program that is not installed.
func packageOf(program string) string {
	switch program {
	case "mkfs.xfs", "xfs_growfs":
		return "xfsprogs"
	case "mkfs.ext4", "resize2fs":
		return "e2fsprogs"
	}
	return "util-linux"
}

// programError adds to the error of a program what it wrote.
func programError(program string, out []byte, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not installed on this host; it comes with the package %s: %w", program, packageOf(program), err)
	}
	if said := oneLine(out); said != "" {
		return fmt.Errorf("%w: %s", err, said)
	}
	return err
}

// oneLine joins the lines of a program's output, without its advice to look elsewhere, and shortens it.
func oneLine(out []byte) string {
	const longest = 1000
	var lines []string
	for line := range bytes.Lines(out) {
		text := strings.TrimSpace(string(line))
		if text != "" && !strings.HasPrefix(text, "dmesg(1) may have more information") {
			lines = append(lines, text)
		}
	}
	text := strings.Join(lines, "; ")
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return text
}
