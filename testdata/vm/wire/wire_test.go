package wire

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func pair(t *testing.T) (*Conn, *Conn) {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	return New(a), New(b)
}

func TestMessages(t *testing.T) {
	sender, receiver := pair(t)
	go func() {
		_ = sender.Send(StdinEnd, nil)
		_ = sender.Send(Exit, []byte("42"))
		sender.Close()
	}()
	kind, payload, err := receiver.Receive()
	require.NoError(t, err)
	require.Equal(t, StdinEnd, kind)
	require.Empty(t, payload)
	kind, payload, err = receiver.Receive()
	require.NoError(t, err)
	require.Equal(t, Exit, kind)
	require.Equal(t, "42", string(payload))
	_, _, err = receiver.Receive()
	require.ErrorIs(t, err, io.EOF)
}

func TestWriterSplitsWhatIsTooLong(t *testing.T) {
	sender, receiver := pair(t)
	want := bytes.Repeat([]byte("long"), maxPayload)
	go func() {
		_, _ = sender.Writer(Stdout).Write(want)
		sender.Close()
	}()
	var got []byte
	for {
		kind, payload, err := receiver.Receive()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		require.Equal(t, Stdout, kind)
		got = append(got, payload...)
	}
	require.True(t, bytes.Equal(want, got), "%d bytes became %d", len(want), len(got))
}

func TestReceiveRefusesForeignBytes(t *testing.T) {
	sender, receiver := pair(t)
	go func() { _, _ = sender.Conn.Write([]byte("GET / HTTP/1.1\r\n")) }()
	_, _, err := receiver.Receive()
	require.EqualError(t, err, "message of 1163141167 bytes: the peer does not speak this protocol")
}

func TestReceiveReportsAMessageThatBreaksOff(t *testing.T) {
	sender, receiver := pair(t)
	go func() {
		_, _ = sender.Conn.Write([]byte{byte(Stdout), 0, 0, 0, 9, 'h', 'a', 'l', 'f'})
		sender.Close()
	}()
	_, _, err := receiver.Receive()
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}
