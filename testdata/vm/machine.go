// Package vm runs machines for tests: virtual ones, of a few seconds' boot, with a real kernel, real open-iscsi, udev,
// multipath, file systems and both of Linux' iSCSI targets. A [Network] joins machines by two subnets, so that a target has
// two portals. No machine outlives the process that started it, and none leaves a file behind.
//
//	network := vm.NewNetwork()
//	storage, err := vm.Start(ctx, vm.Options{Name: "storage", Network: network, Index: 1})
//	node, err := vm.Start(ctx, vm.Options{Name: "node", Network: network, Index: 2})
//	err = node.Put(ctx, "bin/iscsi", "/usr/local/bin/iscsi", 0)
//	result, err := node.Run(ctx, "iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", storage.Address(0))
package vm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"datera-flexvolume/testdata/vm/wire"
)

// HostAddress is where a machine reaches what listens on 127.0.0.1 of the host.
const HostAddress = "10.0.2.2"

// ErrOff is the cause of errors of a machine that was switched off by [Machine.Kill] or [Machine.Stop].
var ErrOff = errors.New("the machine is switched off")

// Options describe a machine.
type Options struct {
	Name      string    // host name and end of the initiator name; "node" if empty
	Network   *Network  // joins machines; nil leaves the machine alone with the host
	Index     int       // 1 to 254: the last byte of the machine's addresses on Network
	MemoryMiB int       // 1024 if zero; also holds all files
	CPUs      int       // 1 if zero; under emulation a second one slows the machine down
	Env       []string  // environment of every command, "name=value"
	Disks     []string  // raw image files that become /dev/vda, /dev/vdb, …, and outlast the machine
	Shared    []string  // raw image files that several machines may read, never write; they come after Disks
	Ports     []int     // TCP ports of the machine that the host reaches at [Machine.Forwarded]
	Log       io.Writer // gets the console; nil drops it
}

// Machine is a machine that has booted.
type Machine struct {
	options Options
	ports   []*port
	console *console
	qemu    *os.Process
	conns   chan *wire.Conn // of the agent, each waiting for a request
	forward map[int]string  // address on the host by port of the machine
	off     atomic.Bool     // we ended it
	done    chan struct{}   // closed when QEMU has ended, err is set then
	err     error
}

// Start boots a machine and returns when its agent is ready. The image is built first if need be. Only the boot obeys ctx;
// the machine runs until Kill, Stop or the end of this process.
func Start(ctx context.Context, options Options) (*Machine, error) {
	log := options.Log
	if log == nil {
		log = os.Stderr
	}
	image, err := buildImage(ctx, log)
	if err != nil {
		return nil, err
	}
	accelerator, err := chooseAccelerator(ctx, image, log)
	if err != nil {
		return nil, err
	}
	return start(ctx, options, image, accelerator)
}

func start(ctx context.Context, options Options, image, accelerator string) (*Machine, error) {
	options, err := complete(options)
	if err != nil {
		return nil, err
	}
	m := &Machine{
		options: options,
		console: &console{log: options.Log},
		conns:   make(chan *wire.Conn, 16),
		done:    make(chan struct{}),
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("machine %s: listen for its agent: %w", options.Name, err)
	}
	_, agentPort, _ := net.SplitHostPort(listener.Addr().String())
	cookie := rand.Text()

	if m.forward, err = freeAddresses(options.Ports); err != nil {
		listener.Close()
		return nil, fmt.Errorf("machine %s: find a free port of the host: %w", options.Name, err)
	}

	var nics []*os.File
	if options.Network != nil {
		if m.ports, nics, err = options.Network.join(options.Index); err != nil {
			listener.Close()
			return nil, fmt.Errorf("machine %s: %w", options.Name, err)
		}
	}
	cmd := exec.Command("qemu-system-x86_64", arguments(options, m.forward, len(nics), image, accelerator,
		"VM_AGENT="+net.JoinHostPort(HostAddress, agentPort), "VM_COOKIE="+cookie)...)
	cmd.ExtraFiles = nics
	cmd.Stdout, cmd.Stderr = m.console, m.console

	err = m.launch(cmd, listener)
	for _, nic := range nics {
		nic.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("machine %s: start QEMU: %w", options.Name, err)
	}
	go m.accept(listener, cookie)

	select {
	case conn := <-m.conns:
		m.conns <- conn
		return m, nil
	case <-m.done:
		return nil, fmt.Errorf("boot: %w", m.err)
	case <-ctx.Done():
		m.Kill()
		return nil, fmt.Errorf("machine %s: boot: %w; %s", options.Name, ctx.Err(), m.console.tail())
	}
}

func complete(o Options) (Options, error) {
	if o.Name == "" {
		o.Name = "node"
	}
	if o.MemoryMiB == 0 {
		o.MemoryMiB = 1024
	}
	if o.CPUs == 0 {
		o.CPUs = 1
	}
	if !regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`).MatchString(o.Name) {
		return o, fmt.Errorf("machine %q: not a host name", o.Name)
	}
	if o.Network != nil && (o.Index < 1 || o.Index > 254) {
		return o, fmt.Errorf("machine %s: index %d on its network is not in 1 to 254", o.Name, o.Index)
	}
	return o, nil
}

// arguments are QEMU's. The last words are for the kernel, which hands those in capitals on to the init script.
func arguments(o Options, forward map[int]string, nics int, image, accelerator string, words ...string) []string {
	hostNetwork := "user,id=host"
	for port, address := range forward {
		hostNetwork += fmt.Sprintf(",hostfwd=tcp:%s-:%d", address, port)
	}
	args := []string{
		"-M", "pc", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-m", fmt.Sprint(o.MemoryMiB), "-smp", fmt.Sprint(o.CPUs),
		"-kernel", filepath.Join(image, "vmlinuz"), "-initrd", filepath.Join(image, "initrd"),
		"-netdev", hostNetwork, "-device", "virtio-net-pci,netdev=host,romfile=",
	}
	for lan := range nics {
		args = append(args, "-netdev", fmt.Sprintf("socket,id=lan%d,fd=%d", lan, 3+lan),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=lan%d,romfile=,mac=%s", lan, hardwareAddress(lan, o.Index)))
	}
	for _, disk := range o.Disks {
		args = append(args, "-drive", "format=raw,if=virtio,discard=unmap,file="+strings.ReplaceAll(disk, ",", ",,"))
	}
	for _, disk := range o.Shared {
		args = append(args, "-drive", "format=raw,if=virtio,readonly=on,file="+strings.ReplaceAll(disk, ",", ",,"))
	}
	words = append(words, "VM_NAME="+o.Name, fmt.Sprint("VM_INDEX=", o.Index), fmt.Sprint("VM_LANS=", nics),
		"console=ttyS0 loglevel=1 panic=-1 oops=panic mitigations=off lsm= audit=0 cryptomgr.notests net.ifnames=0")
	if accelerator == "kvm" {
		args = append(args, "-accel", "kvm", "-cpu", "host")
	} else {
		// What newer models than qemu64 announce as fast, `rep movsb`, is emulated byte by byte. Without rdrand the entropy
		// pool stays empty for 15 s and mkfs.xfs waits for it. QEMU finds translated code by its address, so with random
		// ones every exec is translated anew. The TSC is calibrated wrongly on a busy host, and time runs too fast then;
		// and the kernel, if it sees no tick within a moment of real time, says that the timer does not work.
		args = append(args, "-accel", "tcg,thread=multi", "-cpu", "qemu64,+rdrand")
		words = append(words, "nokaslr norandmaps random.trust_cpu=on clocksource=hpet no_timer_check")
	}
	return append(args, "-append", strings.Join(words, " "))
}

// freeAddresses finds an address on the host's loopback for each port. Nothing holds it until QEMU listens there.
func freeAddresses(ports []int) (map[int]string, error) {
	addresses := make(map[int]string, len(ports))
	for _, port := range ports {
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		addresses[port] = listener.Addr().String()
	}
	return addresses, nil
}

// launch starts QEMU such that the kernel kills it when this process ends, in whatever way. That signal comes when the
// thread that forked ends, so the thread is held until QEMU has ended.
func (m *Machine) launch(cmd *exec.Cmd, listener io.Closer) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // a terminal's ^C is for us alone
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			m.qemu = cmd.Process
		}
		started <- err
		if err == nil {
			err = cmd.Wait()
		}
		listener.Close()
		for _, port := range m.ports {
			port.leave()
		}
		switch {
		case m.off.Load():
			m.err = fmt.Errorf("machine %s: %w", m.options.Name, ErrOff)
		case err != nil:
			m.err = fmt.Errorf("machine %s: QEMU ended: %w; %s", m.options.Name, err, m.console.tail())
		default:
			m.err = fmt.Errorf("machine %s switched itself off; %s", m.options.Name, m.console.tail())
		}
		close(m.done)
	}()
	return <-started
}

// accept takes the agent's connections, and nobody else's, until the listener is closed.
func (m *Machine) accept(listener net.Listener, cookie string) {
	for {
		accepted, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			conn := wire.New(accepted)
			_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
			kind, payload, err := conn.Receive()
			if err != nil || kind != wire.Hello || string(payload) != cookie {
				conn.Close()
				return
			}
			_ = conn.SetReadDeadline(time.Time{})
			select {
			case m.conns <- conn:
			case <-m.done:
				conn.Close()
			}
		}()
	}
}

// Name is the host name of the machine.
func (m *Machine) Name() string { return m.options.Name }

// InitiatorName is the iSCSI name by which targets know the machine.
func (m *Machine) InitiatorName() string { return "iqn.1993-08.org.debian:01:" + m.options.Name }

// Address returns the machine's address on subnet 0 or 1 of its network.
func (m *Machine) Address(lan int) string { return fmt.Sprintf("10.9.%d.%d", lan, m.options.Index) }

// Forwarded is the address on the host at which a port of [Options.Ports] is reached.
func (m *Machine) Forwarded(port int) string { return m.forward[port] }

// Done is closed when the machine has ended, for whatever reason.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Kill cuts the machine's power and returns when nothing is left of it.
func (m *Machine) Kill() {
	m.off.Store(true)
	_ = m.qemu.Kill()
	<-m.done
}

// Stop writes caches to disks and switches the machine off. If ctx is done before, the machine is killed.
func (m *Machine) Stop(ctx context.Context) error {
	m.off.Store(true)
	_, err := m.Spawn(ctx, Command{Args: []string{"busybox", "poweroff", "-f"}})
	if err == nil {
		select {
		case <-m.done:
			return nil
		case <-ctx.Done():
			err = fmt.Errorf("machine %s: stop: %w", m.options.Name, ctx.Err())
		}
	}
	m.Kill()
	return err
}

// Pause freezes the machine, as a hypervisor that hangs would; its TCP connections stay open. Resume thaws it.
func (m *Machine) Pause() error { return m.qemu.Signal(syscall.SIGSTOP) }

// Resume lets a paused machine go on.
func (m *Machine) Resume() error { return m.qemu.Signal(syscall.SIGCONT) }

// Unplug makes subnet 0 or 1 swallow every frame from and to the machine; its link stays up, as behind a broken switch.
func (m *Machine) Unplug(lan int) { m.ports[lan].cut.Store(true) }

// Plug undoes Unplug.
func (m *Machine) Plug(lan int) { m.ports[lan].cut.Store(false) }
