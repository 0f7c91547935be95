package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// process is a program on this host that ends when this process does, in whatever way.
type process struct {
	name    string
	log     string // file
	handle  *os.Process
	stopped chan struct{} // closed when it has ended
}

// launch starts a program; its output is appended to NAME.log in the folder.
func launch(folder, name string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(folder, name+".log"), stopped: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = folder, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // a terminal's ^C is for us alone
	started := make(chan error)
	go func() { // the death signal comes when the thread ends that forked
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		p.handle = cmd.Process
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(p.stopped)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// stop ends the program, after ten seconds by force.
func (p *process) stop() {
	_ = p.handle.Signal(syscall.SIGTERM)
	select {
	case <-p.stopped:
	case <-time.After(10 * time.Second):
		_ = p.handle.Kill()
		<-p.stopped
	}
}

// kill ends the program as a crash would.
func (p *process) kill() {
	_ = p.handle.Kill()
	<-p.stopped
}

var errEnded = errors.New("it has ended")

// await asks ready until it says yes. It gives up when the program ends or ctx is done.
func (p *process) await(ctx context.Context, ready func(context.Context) error) error {
	err := Poll(ctx, func() error {
		select {
		case <-p.stopped:
			return Fatal(errEnded)
		default:
			return ready(ctx)
		}
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w; its log is %s", p.name, err, p.log)
	}
	return nil
}
