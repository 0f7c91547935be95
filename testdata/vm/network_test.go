package vm

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// station stands for a machine: it speaks to the network as QEMU does.
type station struct {
	net.Conn
	port *port
}

func newStation(t *testing.T, network *Network, index int) station {
	t.Helper()
	ports, sockets, err := network.join(index)
	require.NoError(t, err)
	conn, err := net.FileConn(sockets[0])
	require.NoError(t, err)
	for _, socket := range sockets {
		require.NoError(t, socket.Close())
	}
	t.Cleanup(func() {
		conn.Close()
		for _, port := range ports {
			port.leave()
		}
	})
	return station{conn, ports[0]}
}

func (s station) send(t *testing.T, to net.HardwareAddr, payload string) {
	t.Helper()
	frame := append([]byte(to), payload...)
	_, err := s.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
	require.NoError(t, err)
}

func (s station) expect(t *testing.T, to net.HardwareAddr, payload string) {
	t.Helper()
	want := append([]byte(to), payload...)
	want = append(binary.BigEndian.AppendUint32(nil, uint32(len(want))), want...)
	got := make([]byte, len(want))
	require.NoError(t, s.SetReadDeadline(time.Now().Add(5*time.Second)))
	_, err := io.ReadFull(s, got)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "got frame %q, want %q", got, want)
}

func TestNetwork(t *testing.T) {
	network := NewNetwork()
	first, second, third := newStation(t, network, 1), newStation(t, network, 2), newStation(t, network, 3)
	broadcast := net.HardwareAddr{255, 255, 255, 255, 255, 255}
	toThird := hardwareAddress(0, 3)

	first.send(t, broadcast, "to all")
	second.expect(t, broadcast, "to all")
	third.expect(t, broadcast, "to all")

	first.send(t, toThird, "to third")
	third.expect(t, toThird, "to third")
	first.send(t, broadcast, "second got nothing else before this")
	second.expect(t, broadcast, "second got nothing else before this")
	third.expect(t, broadcast, "second got nothing else before this")

	third.port.cut.Store(true)
	first.send(t, toThird, "swallowed")
	third.send(t, broadcast, "swallowed")
	first.send(t, broadcast, "only second")
	second.expect(t, broadcast, "only second")
	third.port.cut.Store(false)
	first.send(t, toThird, "back")
	third.expect(t, toThird, "back")
}

func TestNetworkDropsWhatASlowMachineDoesNotTake(t *testing.T) {
	network := NewNetwork()
	first, second, slow := newStation(t, network, 1), newStation(t, network, 2), newStation(t, network, 3)
	full := string(make([]byte, 1400))
	require.NoError(t, first.SetWriteDeadline(time.Now().Add(5*time.Second)))
	for range 2 * queueFrames {
		first.send(t, hardwareAddress(0, 3), full)
	}
	first.send(t, hardwareAddress(0, 2), "not held up")
	second.expect(t, hardwareAddress(0, 2), "not held up")
	slow.expect(t, hardwareAddress(0, 3), full)
}

func TestNetworkNumberIsFreeAgainAfterLeaving(t *testing.T) {
	network := NewNetwork()
	ports, sockets, err := network.join(7)
	require.NoError(t, err)
	_, _, err = network.join(7)
	require.EqualError(t, err, "join the network as number 7: another machine has that number")
	for i := range ports {
		ports[i].leave()
		require.NoError(t, sockets[i].Close())
	}
	before := openFiles(t)
	ports, sockets, err = network.join(7)
	require.NoError(t, err)
	for i := range ports {
		ports[i].leave()
		require.NoError(t, sockets[i].Close())
	}
	require.Equal(t, before, openFiles(t), "descriptors leak")
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}
