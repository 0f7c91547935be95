// vm runs commands in throw-away virtual machines.
//
//	go run ./testdata/vm/cmd/vm run [-n NODES] [-f FILE:DEST]... [-m MIB] [-v] -- COMMAND [ARGUMENT]...
//	go run ./testdata/vm/cmd/vm shell [-f FILE:DEST]... [-m MIB] [-v]
//
// With -n the command runs on all machines at once, n1 to nN, which reach each other as 10.9.0.1 and 10.9.1.1 to 10.9.0.N and
// 10.9.1.N; $VM_INDEX tells each its number. The exit status is the first one that is not 0, by number.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"datera-flexvolume/testdata/vm"
)

const usage = `usage: vm run [-n NODES] [-f FILE:DEST]... [-m MIB] [-v] -- COMMAND [ARGUMENT]...
       vm shell [-f FILE:DEST]... [-m MIB] [-v]`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	status, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		status = 125
	}
	stop()
	os.Exit(status)
}

type files []string

func (f *files) String() string { return strings.Join(*f, " ") }

func (f *files) Set(pair string) error {
	if local, remote, _ := strings.Cut(pair, ":"); local == "" || remote == "" {
		return errors.New("not FILE:DEST")
	}
	*f = append(*f, pair)
	return nil
}

func run(ctx context.Context, args []string) (int, error) {
	if len(args) == 0 {
		return 0, errors.New(usage)
	}
	flags := flag.NewFlagSet("vm "+args[0], flag.ContinueOnError)
	nodes := flags.Int("n", 1, "number of machines")
	memory := flags.Int("m", 0, "memory of each in MiB")
	verbose := flags.Bool("v", false, "show the consoles on stderr")
	var copies files
	flags.Var(&copies, "f", "copy the file or directory FILE to DEST in every machine, as FILE:DEST; repeatable")
	if err := flags.Parse(args[1:]); err != nil {
		return 0, err
	}
	options := vm.Options{MemoryMiB: *memory}
	if *verbose {
		options.Log = os.Stderr
	}
	command := vm.Command{Args: flags.Args(), Stdout: os.Stdout, Stderr: os.Stderr}
	switch {
	case args[0] == "run" && len(command.Args) > 0 && *nodes > 0:
	case args[0] == "shell" && len(command.Args) == 0:
		*nodes = 1
		restore, size, err := raw(int(os.Stdin.Fd()))
		if err != nil {
			return 0, fmt.Errorf("shell: stdin is not a terminal: %w", err)
		}
		defer restore()
		command.Stdin = os.Stdin
		command.Env = []string{"TERM=" + os.Getenv("TERM")}
		command.Args = []string{"script", "-qec", size + "; exec bash", "/dev/null"} // gives bash a terminal
	default:
		return 0, errors.New(usage)
	}

	network := vm.NewNetwork()
	statuses, failures := make([]int, *nodes), make([]error, *nodes)
	var running sync.WaitGroup
	for i := range *nodes {
		options, command := options, command
		options.Name, options.Network, options.Index = fmt.Sprint("n", i+1), network, i+1
		running.Go(func() {
			if *nodes > 1 {
				stdout, stderr := &lines{out: os.Stdout, prefix: options.Name}, &lines{out: os.Stderr, prefix: options.Name}
				defer stdout.flush()
				defer stderr.flush()
				command.Stdout, command.Stderr = stdout, stderr
			}
			statuses[i], failures[i] = one(ctx, options, copies, command)
		})
	}
	running.Wait()
	status := 0
	for _, s := range statuses {
		if status == 0 {
			status = s
		}
	}
	return status, errors.Join(failures...)
}

// one runs the command in a machine of its own.
func one(ctx context.Context, options vm.Options, copies files, command vm.Command) (int, error) {
	m, err := vm.Start(ctx, options)
	if err != nil {
		return 0, err
	}
	defer m.Kill()
	for _, pair := range copies {
		local, remote, _ := strings.Cut(pair, ":")
		if err := m.Put(ctx, local, remote, 0); err != nil {
			return 0, err
		}
	}
	return m.Exec(ctx, command)
}

// lines writes whole lines, each behind a prefix.
type lines struct {
	out    io.Writer
	prefix string
	rest   []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		if _, err := fmt.Fprintf(l.out, "%s: %s\n", l.prefix, line); err != nil {
			return 0, err
		}
		l.rest = rest
	}
}

func (l *lines) flush() {
	if len(l.rest) > 0 {
		_, _ = l.Write([]byte("\n"))
	}
}

// raw lets all that is typed pass to the machine. It returns the undoing, and the command that sets the same window size.
func raw(terminal int) (restore func(), size string, err error) {
	old, err := unix.IoctlGetTermios(terminal, unix.TCGETS)
	if err != nil {
		return nil, "", err
	}
	window, err := unix.IoctlGetWinsize(terminal, unix.TIOCGWINSZ)
	if err != nil {
		return nil, "", err
	}
	changed := *old
	changed.Iflag &^= unix.ICRNL | unix.IXON | unix.ISTRIP
	changed.Oflag &^= unix.OPOST
	changed.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG | unix.IEXTEN
	if err := unix.IoctlSetTermios(terminal, unix.TCSETS, &changed); err != nil {
		return nil, "", err
	}
	return func() { _ = unix.IoctlSetTermios(terminal, unix.TCSETS, old) },
		fmt.Sprintf("stty rows %d cols %d", window.Row, window.Col), nil
}
