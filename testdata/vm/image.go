package vm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// buildImage returns the folder of the image, building it if there is none or it is out of date.
func buildImage(ctx context.Context, log io.Writer) (string, error) {
	script, err := findBuildScript()
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "bash", script)
	cmd.Stdout, cmd.Stderr = &stdout, io.MultiWriter(&stderr, log)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) } // apt and tar, too
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return "", fmt.Errorf("build the machines' image by %s: %w\n%s", script, err, stderr.Bytes())
	}
	return strings.TrimSpace(stdout.String()), nil
}

// findBuildScript looks in the working directory, which is a package's during tests, and its parents.
func findBuildScript() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		script := filepath.Join(dir, "testdata", "vm", "build.sh")
		if _, err := os.Stat(script); err == nil {
			return script, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no testdata/vm/build.sh in %s or above it: run this within the repository", start)
		}
	}
}

// probeTime is what a boot with hardware virtualisation may take: it is ready within two seconds or never.
const probeTime = 15 * time.Second

// chooseAccelerator returns "kvm" or "tcg", emulation. $VM_ACCEL decides; otherwise KVM is used if a machine has once booted
// by it, since /dev/kvm may exist and yet hang its guests. The image's folder remembers the outcome.
func chooseAccelerator(ctx context.Context, image string, log io.Writer) (string, error) {
	switch wanted := os.Getenv("VM_ACCEL"); wanted {
	case "kvm", "tcg":
		return wanted, nil
	case "":
	default:
		return "", fmt.Errorf("VM_ACCEL is %q: it must be kvm or tcg", wanted)
	}
	memory, err := os.OpenFile(filepath.Join(image, "accelerator"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return "", fmt.Errorf("recall whether KVM works: %w", err)
	}
	defer memory.Close() // unlocks it
	if err := syscall.Flock(int(memory.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", memory.Name(), err)
	}
	if known, err := io.ReadAll(memory); err != nil || len(known) > 0 {
		return string(known), err
	}
	choice := "tcg"
	if device, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
		device.Close()
		if choice, err = probeKVM(ctx, image, log); err != nil {
			return "", err
		}
	}
	_, err = memory.WriteString(choice)
	return choice, err
}

func probeKVM(ctx context.Context, image string, log io.Writer) (string, error) {
	fmt.Fprintf(log, "vm image: trying KVM, for %v at most\n", probeTime)
	limited, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	m, err := start(limited, Options{}, image, "kvm")
	switch {
	case err == nil:
		m.Kill()
		return "kvm", nil
	case ctx.Err() != nil:
		return "", err
	}
	fmt.Fprintln(log, "vm image: KVM does not work here, machines are emulated")
	return "tcg", nil
}
