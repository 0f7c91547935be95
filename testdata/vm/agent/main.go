// The agent serves a test from inside its machine: it runs commands and moves files. See package wire for the protocol.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"datera-flexvolume/testdata/vm/wire"
)

// spare connections wait for a request, so that a test rarely waits for a connection.
const spare = 4

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: agent ADDRESS COOKIE")
		os.Exit(2)
	}
	os.Unsetenv("VM_COOKIE")
	idle := make(chan struct{}, spare)
	for {
		idle <- struct{}{}
		dialed, err := net.Dial("tcp", os.Args[1])
		if err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			return
		}
		conn := wire.New(dialed)
		if err := conn.Send(wire.Hello, []byte(os.Args[2])); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			return
		}
		go serve(conn, func() { <-idle })
	}
}

type message struct {
	kind    wire.Kind
	payload []byte
}

// queued messages are kept when a command does not read its input, so that the test is still seen to hang up.
const queued = 4096

func serve(conn *wire.Conn, taken func()) {
	defer conn.Close()
	_, payload, err := conn.Receive()
	taken()
	if err != nil {
		return
	}
	ctx, hungUp := context.WithCancel(context.Background())
	messages := make(chan message, queued)
	go func() {
		defer close(messages)
		defer hungUp()
		for {
			kind, payload, err := conn.Receive()
			if err != nil {
				return
			}
			messages <- message{kind, payload}
		}
	}()
	kind, answer := wire.Exit, ""
	if status, err := answerTo(ctx, conn, payload, messages); err != nil {
		kind, answer = wire.Failure, err.Error()
	} else {
		answer = strconv.Itoa(status)
	}
	_ = conn.Send(kind, []byte(answer))
	for range messages { // the test hangs up: if we did, with bytes unread, TCP could drop the answer
	}
}

func answerTo(ctx context.Context, conn *wire.Conn, payload []byte, messages <-chan message) (int, error) {
	var request wire.Request
	if err := json.Unmarshal(payload, &request); err != nil {
		return 0, err
	}
	switch {
	case request.Write != "":
		return 0, write(request, messages)
	case request.Read != "":
		return 0, read(conn, request)
	default:
		return run(ctx, conn, request, messages)
	}
}

// run runs a command in a session of its own. If the test hangs up, all of its process group is killed.
func run(ctx context.Context, conn *wire.Conn, request wire.Request, messages <-chan message) (int, error) {
	cmd := exec.CommandContext(ctx, request.Args[0], request.Args[1:]...)
	cmd.Env = append(os.Environ(), request.Env...)
	cmd.Dir = request.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	stdout, outputOut, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	stderr, outputErr, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	cmd.Stdout, cmd.Stderr = outputOut, outputErr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	err = cmd.Start()
	outputOut.Close()
	outputErr.Close()
	if err != nil {
		stdout.Close()
		stderr.Close()
		return 0, err
	}
	exited := make(chan struct{})
	var draining sync.WaitGroup
	draining.Go(func() { drain(stdout, conn.Writer(wire.Stdout), exited) })
	draining.Go(func() { drain(stderr, conn.Writer(wire.Stderr), exited) })
	go feed(cmd.Process, stdin, messages)
	err = cmd.Wait()
	close(exited)
	for _, pipe := range []*os.File{stdout, stderr} {
		_ = pipe.SetReadDeadline(time.Now().Add(grace))
	}
	draining.Wait()
	if cmd.ProcessState == nil {
		return 0, err
	}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// grace is how long a command's output may be silent after its end before it is taken for complete: a daemon that the
// command left behind may hold it open for ever.
const grace = 100 * time.Millisecond

// drain passes a command's output on until it ends, or is silent after the command has exited.
func drain(pipe *os.File, out io.Writer, exited <-chan struct{}) {
	defer pipe.Close()
	chunk := make([]byte, 64<<10)
	for {
		select {
		case <-exited: // what took time was our writing, not the pipe
			_ = pipe.SetReadDeadline(time.Now().Add(grace))
		default:
		}
		n, err := pipe.Read(chunk)
		if err != nil {
			return
		}
		if _, err := out.Write(chunk[:n]); err != nil {
			return
		}
	}
}

// feed passes the test's input and signals on to the command.
func feed(process *os.Process, stdin io.WriteCloser, messages <-chan message) {
	for m := range messages {
		switch m.kind {
		case wire.Stdin:
			_, _ = stdin.Write(m.payload) // a command need not read all of its input
		case wire.StdinEnd:
			_ = stdin.Close()
		case wire.Signal:
			if number, err := strconv.Atoi(string(m.payload)); err == nil {
				_ = process.Signal(syscall.Signal(number))
			}
		}
	}
}

// write makes a file whole or not at all, even if the old one is a program that is running.
func write(request wire.Request, messages <-chan message) error {
	if err := os.MkdirAll(filepath.Dir(request.Write), 0o755); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(request.Write), ".put-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	for m := range messages {
		if m.kind == wire.StdinEnd {
			return errors.Join(file.Chmod(request.Mode), file.Close(), os.Rename(file.Name(), request.Write))
		}
		if _, err := file.Write(m.payload); err != nil {
			return err
		}
	}
	return io.ErrUnexpectedEOF
}

func read(conn *wire.Conn, request wire.Request) error {
	file, err := os.Open(request.Read)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.CopyBuffer(conn.Writer(wire.Stdout), struct{ io.Reader }{file}, make([]byte, 256<<10))
	return err
}
