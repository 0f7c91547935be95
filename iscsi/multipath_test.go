package iscsi

import (
	"context"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMultipath(t *testing.T) {
	start := func(t *testing.T) (*machine, Target) {
		m := newMachine(t)
		m.multipathd = true
		m.write("proc/net/unix", "00000000de9322a1: 00000002 00000000 00010000 0001 01 11268 @/org/kernel/linux/storage/multipathd\n"+
			"00000000f339bbbc: 00000002 00000000 00010000 0001 01 10371 @ISCSIADM_ABSTRACT_NAMESPACE\n")
		target, _ := m.oneVolume(portalA, portalB)
		return m, target
	}
	t.Run("life", func(t *testing.T) {
		t.Parallel()
		m, target := start(t)
		i := m.initiator()
		device, err := i.Attach(t.Context(), target, CHAP{})
		require.NoError(t, err)
		require.Equal(t, m.path("dev/dm-0"), device.Path)
		require.Len(t, device.Paths, 2)
		require.Len(t, m.programs(), 6)
		again, err := i.Attach(t.Context(), target, CHAP{})
		require.NoError(t, err)
		require.Equal(t, device, again)
		require.Empty(t, m.programs())
		s, _, err := i.sessionAt(testIQN, portalA)
		require.NoError(t, err)
		i.setRecovery(s, 5*time.Second)
		_, err = i.Attach(t.Context(), target, CHAP{})
		require.NoError(t, err)
		require.Equal(t, "5", attribute(s.class, "recovery_tmo"), "that of a map's path is multipathd's")
		i.setRecovery(s, 120*time.Second)

		for _, path := range append(device.Paths, device.Path) {
			identified, err := i.Identify(path)
			require.NoError(t, err)
			require.Equal(t, device, identified)
		}

		m.targets[testIQN].luns[0] = fakeLUN{testSerial, 3 * gib}
		bytes, err := i.Resize(t.Context(), device, 3*gib)
		require.NoError(t, err)
		require.Equal(t, 3*gib, bytes)
		require.Equal(t, []string{"multipathd resize map mpath0"}, m.programs())

		m.mount("dm-0", "/mnt/a")
		require.ErrorIs(t, i.Detach(t.Context(), target), ErrInUse)
		require.Empty(t, m.programs())
		m.write("proc/self/mountinfo", "")
		m.fault = func(_ context.Context, program string, _ []string) (string, bool) {
			if program == "multipath" {
				require.Equal(t, "5", attribute(s.class, "recovery_tmo"), "who reads a lost path keeps the map for this time")
			}
			return "", false
		}
		require.NoError(t, i.Detach(t.Context(), target))
		programs := m.programs()
		require.Equal(t, "multipath -f mpath0", programs[0], "the map must go before its paths")
		require.Len(t, programs, 4)
		m.nothingLeft()
	})
	t.Run("a map that does not flush keeps its paths", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			m, target := start(t)
			i := m.initiator()
			_, err := i.Attach(t.Context(), target, CHAP{})
			require.NoError(t, err)
			m.fault = func(_ context.Context, program string, _ []string) (string, bool) {
				return "multipath-flush-busy", program == "multipath"
			}
			err = i.Detach(t.Context(), target)
			require.ErrorContains(t, err, "flush multipath map mpath0: multipath exit 1")
			require.ErrorContains(t, err, "map in use")
			require.FileExists(t, m.path("dev/sda"))
			require.NotEmpty(t, m.records)
		})
	})
	for _, busy := range []string{"multipath-flush-busy", "multipath-flush-ioctl-busy"} {
		t.Run("a map goes when its last reader has gone: "+busy, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m, target := start(t)
				i := m.initiator()
				_, err := i.Attach(t.Context(), target, CHAP{})
				require.NoError(t, err)
				began := time.Now()
				m.fault = func(_ context.Context, program string, _ []string) (string, bool) {
					return busy, program == "multipath" && time.Since(began) < hurriedRecovery
				}
				require.NoError(t, i.Detach(t.Context(), target))
				m.nothingLeft()
			})
		})
	}
	t.Run("a map with another volume's path is refused", func(t *testing.T) {
		t.Parallel()
		m, target := start(t)
		i := m.initiator()
		_, err := i.Attach(t.Context(), target, CHAP{})
		require.NoError(t, err)
		m.mkdir("sys/class/block/sdz/holders")
		m.join("dm-0", "sdz")
		_, _, err = i.Find(t.Context(), target)
		require.ErrorIs(t, err, ErrWrongSerial)
		require.ErrorContains(t, err, "sdz")
		_, err = i.Attach(t.Context(), target, CHAP{})
		require.ErrorIs(t, err, ErrWrongSerial)
		require.ErrorIs(t, i.Detach(t.Context(), target), ErrWrongSerial)
		_, err = i.Identify(m.path("dev/sda"))
		require.ErrorIs(t, err, ErrWrongSerial)
		_, err = i.Resize(t.Context(), Device{Target: target}, 0)
		require.ErrorIs(t, err, ErrWrongSerial)
	})
	t.Run("two maps over one LUN are refused", func(t *testing.T) {
		t.Parallel()
		m, target := start(t)
		i := m.initiator()
		_, err := i.Attach(t.Context(), target, CHAP{})
		require.NoError(t, err)
		require.NoError(t, os.Remove(m.path("sys/class/block/sdb/holders/dm-0")))
		m.write("sys/class/block/dm-9/dm/uuid", "mpath-x\n")
		m.join("dm-9", "sdb")
		_, _, err = i.Find(t.Context(), target)
		require.ErrorContains(t, err, "two multipath maps")
	})
	t.Run("no map for disks that it does not take", func(t *testing.T) {
		t.Parallel()
		m, target := start(t)
		m.multipathd = false // it runs, and the array is on its black list
		i := m.initiator()
		began := time.Now()
		device, err := i.Attach(t.Context(), target, CHAP{})
		require.NoError(t, err)
		s, _, err := i.sessionAt(testIQN, portalA)
		require.NoError(t, err)
		i.setRecovery(s, 5*time.Second)
		require.Equal(t, "5", attribute(s.class, "recovery_tmo"), "multipathd has nothing to do with the session")
		require.Equal(t, device.Paths[0], device.Path)
		require.GreaterOrEqual(t, time.Since(began), i.opt.MapTimeout)
		i.opt.MapTimeout = time.Hour
		m.mount("sda", "/mnt/a")
		_, err = i.Attach(t.Context(), target, CHAP{})
		require.NoError(t, err, "a map was waited for over a mounted disk")
	})
	t.Run("no map for a disk that udev keeps for it", func(t *testing.T) {
		t.Parallel()
		m, target := start(t)
		m.multipathd = false
		m.write("run/udev/data/b8:0", "E:DM_MULTIPATH_DEVICE_PATH=1\n")
		m.write("run/udev/data/b8:16", "E:DM_MULTIPATH_DEVICE_PATH=1\n")
		_, err := m.initiator().Attach(t.Context(), target, CHAP{})
		require.ErrorContains(t, err, "multipathd makes no map")
		m.nothingLeft()

		m.remove("run/udev/data")
		i := m.initiator()
		_, err = i.Attach(t.Context(), target, CHAP{})
		require.NoError(t, err)
		m.programs()
		for _, name := range []string{"sdc", "sdd"} {
			m.write("run/udev/data/b"+attribute(m.path("sys/class/block", name), "dev"), "E:DM_MULTIPATH_DEVICE_PATH=1\n")
		}
		_, err = i.Attach(t.Context(), target, CHAP{})
		require.ErrorContains(t, err, "multipathd makes no map", "udev keeps it since, and the sessions are there")
		require.Empty(t, m.programs())
	})
	t.Run("a stale map goes with its disks", func(t *testing.T) {
		t.Parallel()
		m, target := start(t)
		i := m.initiator()
		_, err := i.Attach(t.Context(), target, CHAP{})
		require.NoError(t, err)
		m.programs()
		m.targets[testIQN].luns[0] = fakeLUN{"next-volume", gib}
		target.Serial = "next-volume"
		device, err := i.Attach(t.Context(), target, CHAP{})
		require.NoError(t, err)
		require.Len(t, device.Paths, 2)
		for _, program := range m.programs() {
			require.True(t, strings.HasPrefix(program, "multipath -f mpath"), program)
		}
	})
	t.Run("a map without a usable name", func(t *testing.T) {
		t.Parallel()
		m, target := start(t)
		i := m.initiator()
		device, err := i.Attach(t.Context(), target, CHAP{})
		require.NoError(t, err)
		m.programs()
		m.write("sys/class/block/dm-0/dm/name", "-rf\n")
		require.ErrorContains(t, i.Detach(t.Context(), target), "no usable name")
		m.targets[testIQN].luns[0] = fakeLUN{testSerial, 3 * gib}
		_, err = i.Resize(t.Context(), device, 3*gib)
		require.ErrorContains(t, err, "no usable name")
		require.Empty(t, m.programs())
	})
}
