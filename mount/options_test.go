package mount

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMountWords(t *testing.T) {
	for _, c := range []struct {
		name, filesystem string
		opts             MountOptions
		want             string
		readOnly         bool
	}{
		{"xfs", "xfs", MountOptions{}, "nouuid", false},
		{"ext4", "ext4", MountOptions{}, "", false},
		{"xfs read-only", "xfs", MountOptions{ReadOnly: true}, "nouuid,ro", true},
		{"read-only by option", "ext4", MountOptions{Options: []string{"ro"}}, "ro", true},
		{"nothing twice", "xfs", MountOptions{ReadOnly: true, Options: []string{"nouuid", "ro", "noatime"}}, "nouuid,ro,noatime", true},
		{"quoted comma", "ext4", MountOptions{Options: []string{`context="u:object_r:t:s0:c1,c2"`}}, `context="u:object_r:t:s0:c1,c2"`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			words, readOnly, err := mountWords(c.filesystem, c.opts)
			require.NoError(t, err)
			require.Equal(t, c.want, strings.Join(words, ","))
			require.Equal(t, c.readOnly, readOnly)
		})
	}
	for _, bad := range []string{
		"", "-o", "--bind", "bind", "remount", "loop", "loop=/dev/loop1", "offset=512", "nofail", "logdev=/dev/sda", "journal_path=/dev/sda",
		"a b", "a\tb", "a\nb", "a\x00b", "noatime,bind", `x="a",bind`, "x-mount.mkdir", "X-mount.subdir=a", "rw", "sb=131072", "\u202enoatime",
	} {
		_, _, err := mountWords("xfs", MountOptions{ReadOnly: true, Options: []string{bad}})
		require.ErrorContains(t, err, "mount option", "%q", bad)
	}
	_, _, err := mountWords("btrfs", MountOptions{})
	require.ErrorContains(t, err, `file system "btrfs" is not supported`)
}

func TestMkfsCommand(t *testing.T) {
	for _, c := range []struct {
		name, filesystem, options, want string
	}{
		{"xfs", "xfs", "", "-q -K /dev/x"},
		{"ext4", "ext4", "", "-q -E nodiscard -m 0 /dev/x"},
		{"xfs options", "xfs", "-m reflink=0,crc=1 -dagcount=8 -L data -q -K", "-q -K -m reflink=0,crc=1 -d agcount=8 -L data /dev/x"},
		{"ext4 options", "ext4", "-m 5 -j -Estride=16 -E lazy_itable_init=0 -O ^has_journal", "-q -E nodiscard,stride=16,lazy_itable_init=0 -m 5 -j -O ^has_journal /dev/x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, args, err := mkfsCommand(FormatRequest{Device: "/dev/x", Filesystem: c.filesystem, Options: strings.Fields(c.options)})
			require.NoError(t, err)
			require.Equal(t, c.want, strings.Join(args, " "))
		})
	}
	for filesystem, commands := range map[string][]string{
		"xfs": {
			"-f", "-Kf", "-fK", "-N", "-p /etc/passwd", "-c options=/x", "/dev/sda", "-d name=/dev/sda", "-dname=/dev/sda", "-d file", "-l logdev=/dev/sda",
			"-r rtdev=/dev/sda", "-l size=64m,name=x", "-d", "-", "--", "-d -f", "1000", "-q1",
		},
		"ext4": {
			"-F", "-qF", "-n", "-S", "-c", "-l /x", "-d /etc", "-z /undo", "-J device=/dev/sda", "-E offset=4096", "-t ext2", "-V", "/dev/sda", "-b 4096 99", "-O", "-U /x",
		},
		"ntfs": {""},
	} {
		for _, options := range commands {
			_, _, err := mkfsCommand(FormatRequest{Device: "/dev/x", Filesystem: filesystem, Options: strings.Fields(options)})
			require.Error(t, err, "%s %s", filesystem, options)
		}
	}
	for _, word := range []string{"", "-L", "-L a b", "-m a\x01"} {
		_, _, err := mkfsCommand(FormatRequest{Device: "/dev/x", Filesystem: "xfs", Options: []string{word}})
		require.Error(t, err, "%q", word)
	}
	_, _, err := mkfsCommand(FormatRequest{Device: "/dev/x", Filesystem: "xfs", Options: []string{"-L", "two words"}})
	require.ErrorContains(t, err, "space or control character")
}

// Whatever words a user gives, none of the arguments forces, and the device is the last and only one.
func FuzzMkfsCommand(f *testing.F) {
	f.Add("xfs", "-m\nreflink=0\n-f")
	f.Add("ext4", "-E\nnodiscard\n-F")
	f.Add("ext4", "-L\n-F")
	f.Fuzz(func(t *testing.T, filesystem, options string) {
		_, args, err := mkfsCommand(FormatRequest{Device: "/dev/x", Filesystem: filesystem, Options: strings.Split(options, "\n")})
		if err != nil {
			return
		}
		if args[len(args)-1] != "/dev/x" {
			t.Fatalf("the device is not last: %q", args)
		}
		afterLabel := false
		for _, arg := range args[:len(args)-1] {
			switch {
			case strings.HasPrefix(arg, "-f"), strings.HasPrefix(arg, "-F"), arg[0] != '-' && !afterLabel && strings.Contains(arg, "/"):
				t.Fatalf("dangerous argument %q in %q", arg, args)
			}
			afterLabel = arg == "-L"
		}
	})
}
