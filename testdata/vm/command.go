package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"datera-flexvolume/testdata/vm/wire"
)

// Result is what a command has returned.
type Result struct {
	Stdout, Stderr []byte
	Exit           int // exit status; 128+n if signal n ended the command
}

// Run runs a program as root. An error means that the machine or its agent failed, that there is no such program, or that ctx
// was done, in which case the program and its process group are killed; a program that fails is not an error. Run does not
// wait for daemons that the program leaves behind, even if they hold its output open.
func (m *Machine) Run(ctx context.Context, args ...string) (Result, error) {
	var stdout, stderr bytes.Buffer
	exit, err := m.Exec(ctx, Command{Args: args, Stdout: &stdout, Stderr: &stderr})
	return Result{Stdout: stdout.Bytes(), Stderr: stderr.Bytes(), Exit: exit}, err
}

// Shell runs a bash script, as Run does. The script goes on after commands that fail; start it with "set -e" otherwise.
func (m *Machine) Shell(ctx context.Context, script string) (Result, error) {
	return m.Run(ctx, "bash", "-c", script)
}

// Command is a program to be run as root.
type Command struct {
	Args           []string
	Env            []string // added to the machine's, "name=value"
	Dir            string   // "/" if empty
	Stdin          io.Reader
	Stdout, Stderr io.Writer // written to as the output comes; nil drops it
}

// Exec runs a command and returns its exit status.
func (m *Machine) Exec(ctx context.Context, command Command) (int, error) {
	process, err := m.Spawn(ctx, command)
	if err != nil {
		return 0, err
	}
	return process.Wait()
}

// Process is a command that was started.
type Process struct {
	conn *wire.Conn
	done chan struct{}
	exit int
	err  error
}

// Spawn starts a command. If ctx is done before the command's end, it and its process group are killed.
func (m *Machine) Spawn(ctx context.Context, command Command) (*Process, error) {
	if len(command.Args) == 0 {
		return nil, fmt.Errorf("machine %s: empty command", m.options.Name)
	}
	env := append(append([]string{}, m.options.Env...), command.Env...)
	what := fmt.Sprintf("run %q", command.Args)
	request := wire.Request{Args: command.Args, Env: env, Dir: command.Dir}
	return m.request(ctx, what, request, command.Stdin, command.Stdout, command.Stderr)
}

// Wait waits for the command's end and returns its exit status, 128+n if signal n ended it.
func (p *Process) Wait() (int, error) {
	<-p.done
	return p.exit, p.err
}

// Signal sends a signal to the command's process, not to those that it has started.
func (p *Process) Signal(signal syscall.Signal) error {
	return p.conn.Send(wire.Signal, strconv.AppendInt(nil, int64(signal), 10))
}

// Put copies a file of the host, or a directory with all regular files in it, into the machine. Parent directories are made.
// A file is replaced at once; mode 0 keeps its permissions.
func (m *Machine) Put(ctx context.Context, local, remote string, mode fs.FileMode) error {
	return filepath.WalkDir(local, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		permissions := mode
		if permissions == 0 {
			permissions = info.Mode().Perm()
		}
		relative, err := filepath.Rel(local, name)
		if err != nil {
			return err
		}
		return m.Write(ctx, path.Join(remote, filepath.ToSlash(relative)), file, permissions)
	})
}

// Write makes a file in the machine of all that content yields.
func (m *Machine) Write(ctx context.Context, remote string, content io.Reader, mode fs.FileMode) error {
	process, err := m.request(ctx, "write "+remote, wire.Request{Write: remote, Mode: mode}, content, nil, nil)
	if err != nil {
		return err
	}
	_, err = process.Wait()
	return err
}

// Get copies a file of the machine to the host.
func (m *Machine) Get(ctx context.Context, remote, local string) error {
	file, err := os.Create(local)
	if err != nil {
		return err
	}
	return errors.Join(m.Read(ctx, remote, file), file.Close())
}

// Read writes a file of the machine to content.
func (m *Machine) Read(ctx context.Context, remote string, content io.Writer) error {
	process, err := m.request(ctx, "read "+remote, wire.Request{Read: remote}, nil, content, nil)
	if err != nil {
		return err
	}
	_, err = process.Wait()
	return err
}

// request hands a request to the agent over a connection of its own, and serves it in the background.
func (m *Machine) request(
	ctx context.Context, what string, request wire.Request, stdin io.Reader, stdout, stderr io.Writer,
) (*Process, error) {
	what = fmt.Sprintf("machine %s: %s", m.options.Name, what)
	payload, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	p := &Process{done: make(chan struct{})}
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", what, ctx.Err())
	case <-m.done:
		return nil, fmt.Errorf("%s: %w", what, m.err)
	case p.conn = <-m.conns:
	}
	hangUp := context.AfterFunc(ctx, func() { p.conn.Close() })
	if err := p.conn.Send(wire.Ask, payload); err != nil {
		hangUp()
		p.conn.Close()
		return nil, fmt.Errorf("%s: %w", what, m.cause(ctx, err))
	}
	go p.feed(stdin)
	go func() {
		defer close(p.done)
		defer p.conn.Close()
		defer hangUp()
		var err error
		if p.exit, err = p.receive(stdout, stderr); err != nil {
			p.err = fmt.Errorf("%s: %w", what, m.cause(ctx, err))
		}
	}()
	return p, nil
}

// feed sends the input. If it cannot be read to its end the connection is closed, for half a file must not pass for a whole.
func (p *Process) feed(stdin io.Reader) {
	if stdin == nil {
		stdin = eof{}
	}
	chunk := make([]byte, 64<<10)
	for {
		n, err := stdin.Read(chunk)
		if n > 0 && p.conn.Send(wire.Stdin, chunk[:n]) != nil {
			return // the command has ended, which is its right
		}
		switch {
		case err == io.EOF:
			_ = p.conn.Send(wire.StdinEnd, nil)
			return
		case err != nil:
			p.conn.Close()
			return
		}
	}
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

func (p *Process) receive(stdout, stderr io.Writer) (int, error) {
	for {
		kind, payload, err := p.conn.Receive()
		if err != nil {
			return 0, err
		}
		switch kind {
		case wire.Stdout:
			err = write(stdout, payload)
		case wire.Stderr:
			err = write(stderr, payload)
		case wire.Exit:
			return strconv.Atoi(string(payload))
		case wire.Failure:
			return 0, errors.New(string(payload))
		}
		if err != nil {
			return 0, err
		}
	}
}

func write(w io.Writer, p []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(p)
	return err
}

// cause finds out why a connection broke: because ctx is done, or the machine has died, which is known a moment later.
func (m *Machine) cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		return err
	}
	timer := time.NewTimer(2 * time.Second)
	defer timer.Stop()
	select {
	case <-m.done:
		return m.err
	case <-timer.C:
		return fmt.Errorf("its agent hung up: %w; %s", err, m.console.tail())
	}
}
