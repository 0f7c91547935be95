// Package wire is what a test and the agent in its machine say to each other. The agent keeps connections to the test
// open; each serves one request: the test sends a [Request], then both send messages until [Exit] or [Failure].
package wire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"net"
	"sync"
)

// Request asks for one thing: that a command be run, a file written or a file read.
type Request struct {
	Args []string // program and arguments of a command
	Env  []string // added to the command's environment, "name=value"
	Dir  string   // the command's working directory, "/" if empty

	Write string      // path of a file to be written from Stdin messages, with its parents
	Mode  fs.FileMode // permissions of the file written
	Read  string      // path of a file to be returned as Stdout messages
}

// Kind tells what a message means.
type Kind byte

// The kinds of messages.
const (
	Hello    Kind = iota + 1 // agent: the cookie of the machine, once for each connection
	Ask                      // test: a Request as JSON
	Stdin                    // test: bytes for the command or file
	StdinEnd                 // test: no more of them
	Signal                   // test: number of a signal for the command, in decimal
	Stdout                   // agent: bytes of the command or file
	Stderr                   // agent: bytes
	Exit                     // agent: the exit status in decimal, 128+n if signal n ended the command; nothing follows
	Failure                  // agent: why the request could not be met; nothing follows
)

const maxPayload = 1 << 20

// Conn carries messages. Messages may be sent by several goroutines at once, and received by one.
type Conn struct {
	net.Conn
	in *bufio.Reader
	mu sync.Mutex
}

// New returns a Conn over c.
func New(c net.Conn) *Conn {
	return &Conn{Conn: c, in: bufio.NewReaderSize(c, 64<<10)}
}

// Send sends one message: its kind, the length of the payload as four bytes, the payload.
func (c *Conn) Send(kind Kind, payload []byte) error {
	header := binary.BigEndian.AppendUint32([]byte{byte(kind)}, uint32(len(payload)))
	c.mu.Lock()
	defer c.mu.Unlock()
	buffers := net.Buffers{header, payload}
	_, err := buffers.WriteTo(c.Conn)
	return err
}

// Receive waits for the next message.
func (c *Conn) Receive() (Kind, []byte, error) {
	var header [5]byte
	if _, err := io.ReadFull(c.in, header[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(header[1:])
	if size > maxPayload {
		return 0, nil, fmt.Errorf("message of %d bytes: the peer does not speak this protocol", size)
	}
	payload := make([]byte, size)
	_, err := io.ReadFull(c.in, payload)
	return Kind(header[0]), payload, err
}

// Writer returns a writer that sends what is written to it as messages of one kind.
func (c *Conn) Writer(kind Kind) io.Writer {
	return writer{c, kind}
}

type writer struct {
	conn *Conn
	kind Kind
}

func (w writer) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		chunk := p[sent:min(len(p), sent+maxPayload)]
		if err := w.conn.Send(w.kind, chunk); err != nil {
			return sent, err
		}
		sent += len(chunk)
	}
	return len(p), nil
}
