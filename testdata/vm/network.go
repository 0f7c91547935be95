package vm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// Network joins machines of this process by two subnets, 10.9.0.0/24 and 10.9.1.0/24. It needs no port, no address and no
// privilege of the host, so any number of them exist side by side.
type Network struct {
	lans [2]lan
}

// NewNetwork returns a network without machines. It needs no closing: machines leave it when they end.
func NewNetwork() *Network {
	n := new(Network)
	for i := range n.lans {
		n.lans[i].ports = make(map[string]*port)
	}
	return n
}

// lan is an Ethernet switch.
type lan struct {
	mu    sync.RWMutex
	ports map[string]*port // by hardware address
}

// port is where one machine is plugged in. QEMU's end of the socket speaks frames, each after its length as four bytes.
type port struct {
	lan     *lan
	address string // hardware address, six bytes
	socket  net.Conn
	queue   chan []byte // frames, with their length, for the machine
	cut     atomic.Bool
	left    chan struct{}
}

// queueFrames is how many frames wait for a machine that is slow or paused; more are dropped, as real switches do.
const queueFrames = 1024

func hardwareAddress(lan, index int) net.HardwareAddr {
	return net.HardwareAddr{0x52, 0x54, 0, 9, byte(lan), byte(index)}
}

// join plugs a machine into each subnet and returns the sockets for QEMU.
func (n *Network) join(index int) (ports []*port, qemu []*os.File, err error) {
	for i := range n.lans {
		port, socket, err := n.lans[i].join(string(hardwareAddress(i, index)))
		if err != nil {
			for j := range ports {
				ports[j].leave()
				qemu[j].Close()
			}
			return nil, nil, fmt.Errorf("join the network as number %d: %w", index, err)
		}
		ports, qemu = append(ports, port), append(qemu, socket)
	}
	return ports, qemu, nil
}

func (l *lan) join(address string) (*port, *os.File, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "switch"), os.NewFile(uintptr(pair[1]), "machine")
	socket, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	p := &port{lan: l, address: address, socket: socket, queue: make(chan []byte, queueFrames), left: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ports[address] != nil {
		socket.Close()
		theirs.Close()
		return nil, nil, errors.New("another machine has that number")
	}
	l.ports[address] = p
	go p.receive()
	go p.send()
	return p, theirs, nil
}

func (p *port) leave() {
	p.lan.mu.Lock()
	defer p.lan.mu.Unlock()
	if p.lan.ports[p.address] == p {
		delete(p.lan.ports, p.address)
		close(p.left)
		p.socket.Close()
	}
}

// receive forwards the machine's frames until it leaves.
func (p *port) receive() {
	in := bufio.NewReaderSize(p.socket, 64<<10)
	for {
		header, err := in.Peek(4)
		if err != nil {
			return
		}
		frame := make([]byte, 4+int(binary.BigEndian.Uint32(header)))
		if _, err := io.ReadFull(in, frame); err != nil {
			return
		}
		p.lan.forward(p, frame)
	}
}

// send passes queued frames to the machine until it leaves.
func (p *port) send() {
	for {
		select {
		case frame := <-p.queue:
			if _, err := p.socket.Write(frame); err != nil {
				return
			}
		case <-p.left:
			return
		}
	}
}

// forward queues a frame for the machine it is addressed to, or for all others if that is none.
func (l *lan) forward(from *port, frame []byte) {
	if from.cut.Load() || len(frame) < 4+6 {
		return
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if to := l.ports[string(frame[4:10])]; to != nil {
		to.deliver(frame)
		return
	}
	for _, to := range l.ports {
		if to != from {
			to.deliver(frame)
		}
	}
}

func (p *port) deliver(frame []byte) {
	if p.cut.Load() {
		return
	}
	select {
	case p.queue <- frame:
	default:
	}
}
