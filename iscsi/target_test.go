package iscsi

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTargetValidation(t *testing.T) {
	good := Target{IQN: testIQN, LUN: 0, Serial: testSerial, Portals: []Portal{portalA}}
	require.NoError(t, good.validate())
	for _, test := range []struct {
		name   string
		change func(*Target)
		says   string
	}{
		{"no IQN", func(t *Target) { t.IQN = "" }, "no iSCSI name"},
		{"option as IQN", func(t *Target) { t.IQN = "-T" }, "no iSCSI name"},
		{"IQN that leaves its directory", func(t *Target) { t.IQN = "iqn.2013-05.com/../../etc" }, "no iSCSI name"},
		{"IQN with a line end", func(t *Target) { t.IQN += "\n" }, "no iSCSI name"},
		{"thirteenth month", func(t *Target) { t.IQN = "iqn.2013-13.com.daterainc:x" }, "no iSCSI name"},
		{"long IQN", func(t *Target) { t.IQN += strings.Repeat("a", 300) }, "at most 223 bytes"},
		{"short EUI", func(t *Target) { t.IQN = "eui.0123" }, "no iSCSI name"},
		{"negative LUN", func(t *Target) { t.LUN = -1 }, "LUN -1"},
		{"large LUN", func(t *Target) { t.LUN = 16384 }, "LUN 16384"},
		{"no serial", func(t *Target) { t.Serial = "" }, "no serial number"},
		{"serial with control characters", func(t *Target) { t.Serial = "a\tb" }, "serial number"},
		{"serial with blanks around", func(t *Target) { t.Serial = " a" }, "serial number"},
		{"portal without port", func(t *Target) { t.Portals = []Portal{"10.0.0.1"} }, "host:port"},
		{"portal with port 0", func(t *Target) { t.Portals = []Portal{"10.0.0.1:0"} }, "1 to 65535"},
		{"portal with signed port", func(t *Target) { t.Portals = []Portal{"10.0.0.1:+1"} }, "1 to 65535"},
		{"option as portal", func(t *Target) { t.Portals = []Portal{"-p:3260"} }, "neither"},
		{"portal with a path", func(t *Target) { t.Portals = []Portal{"a/../b:3260"} }, "neither"},
		{"portal with a blank", func(t *Target) { t.Portals = []Portal{"a b:3260"} }, "neither"},
		{"portal without host", func(t *Target) { t.Portals = []Portal{":3260"} }, "neither"},
		{"portal with a zone", func(t *Target) { t.Portals = []Portal{"[fe80::1%eth0]:3260"} }, "zones"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bad := good
			test.change(&bad)
			require.ErrorContains(t, bad.validate(), test.says)

			m := newMachine(t)
			i := m.initiator()
			_, err := i.Attach(t.Context(), bad, CHAP{})
			require.ErrorContains(t, err, test.says)
			_, _, err = i.Find(t.Context(), bad)
			require.ErrorContains(t, err, test.says)
			require.ErrorContains(t, i.Detach(t.Context(), bad), test.says)
			_, err = i.Resize(t.Context(), Device{Target: bad}, 0)
			require.ErrorContains(t, err, test.says)
			require.Empty(t, m.programs())
		})
	}
	for _, name := range []string{"eui.0123456789abcdef", "naa.0123456789abcdef", "naa.0123456789abcdef0123456789abcdef", "iqn.2001-04.com.example"} {
		require.NoError(t, validateName(name))
	}
	_, err := newMachine(t).initiator().Attach(t.Context(), Target{IQN: testIQN, Serial: "x"}, CHAP{})
	require.ErrorContains(t, err, "no portal")
}

func TestCHAPValidation(t *testing.T) {
	for _, test := range []struct {
		name string
		chap CHAP
		says string // "" for valid
	}{
		{"none", CHAP{}, ""},
		{"one way", CHAP{Username: "u", Password: "p"}, ""},
		{"mutual", CHAP{"u", "p", "v", "q"}, ""},
		{"no password", CHAP{Username: "u"}, "one is missing"},
		{"no name", CHAP{Password: "canary"}, "one is missing"},
		{"mutual without password", CHAP{"u", "p", "v", ""}, "one is missing"},
		{"mutual alone", CHAP{UsernameIn: "v", PasswordIn: "canary"}, "one-way"},
		{"line end", CHAP{Username: "u", Password: "canary\n"}, "printable"},
		{"long", CHAP{Username: "u", Password: strings.Repeat("canary", 100)}, "255 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := newMachine(t).initiator().Attach(t.Context(), Target{IQN: testIQN, Serial: "x"}, test.chap)
			if test.says == "" {
				require.ErrorContains(t, err, "no portal", "valid CHAP is refused")
				return
			}
			require.ErrorContains(t, err, test.says)
			require.NotContains(t, err.Error(), "canary")
		})
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	chap := CHAP{"node", "canary-1", "array", "canary-2"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		require.NotContains(t, fmt.Sprintf(format, chap), "canary", format)
	}
	require.Equal(t, "none", CHAP{}.String())
	require.Equal(t, "CHAP as node", chap.String())
	require.Equal(t, "iscsiadm: value *** and *** refused", chap.redact("iscsiadm: value canary-1 and canary-2 refused"))
	require.Equal(t, "as it is", CHAP{}.redact("as it is"))

	m := newMachine(t)
	target, _ := m.oneVolume()
	i := New(echo{m}, m.initiator().opt)
	i.kernel, i.dial = m.initiator().kernel, m.dial
	_, err := i.Attach(t.Context(), target, chap)
	require.ErrorContains(t, err, "***", "the program's output is missing")
	require.NotContains(t, err.Error(), "canary")
}

// echo fails each update by repeating its arguments.
type echo struct{ *machine }

func (e echo) Run(ctx context.Context, program string, args ...string) ([]byte, error) {
	if strings.Contains(strings.Join(args, " "), "update") {
		return []byte(strings.Join(args[len(args)-8:], " ")), exitError(7)
	}
	return e.machine.Run(ctx, program, args...)
}

func TestCanonicalPortals(t *testing.T) {
	target := Target{Portals: []Portal{"10.0.0.1:3260", "[FD00:0::1]:3260", "[fd00::1]:3260", "[::ffff:10.0.0.1]:3260", "Array.Example.com:860"}}
	require.Equal(t, []Portal{"10.0.0.1:3260", "[fd00::1]:3260", "array.example.com:860"}, target.canonicalPortals())
}

func FuzzCanonical(f *testing.F) {
	f.Add(portalA)
	f.Add("[fd00::1]:3260")
	f.Add("-p:3260")
	f.Fuzz(func(t *testing.T, portal string) {
		once, err := canonical(portal)
		if err != nil {
			return
		}
		if twice, err := canonical(once); err != nil || once != twice {
			t.Fatalf("%q gives %q, and that gives %q, %v", portal, once, twice, err)
		}
		if strings.HasPrefix(once, "-") || strings.ContainsAny(once, "/ \n\x00") {
			t.Fatalf("%q gives %q, which must not reach a command line", portal, once)
		}
	})
}

func TestInitiatorName(t *testing.T) {
	for _, test := range []struct{ name, content, expected, says string }{
		{"usual", "## DO NOT EDIT\nInitiatorName=iqn.1993-08.org.debian:01:node\n", "iqn.1993-08.org.debian:01:node", ""},
		{"blanks", " InitiatorName = iqn.1993-08.org.debian:01:node \n", "iqn.1993-08.org.debian:01:node", ""},
		{"alias beside", "InitiatorName=iqn.1993-08.org.debian:01:node\nInitiatorAlias=x", "iqn.1993-08.org.debian:01:node", ""},
		{"not made yet", "GenerateName=yes\n", "", "systemctl start iscsid"},
		{"empty", "", "", "iscsi-iname"},
		{"commented out", "#InitiatorName=iqn.1993-08.org.debian:01:node", "", "iscsi-iname"},
		{"several", "InitiatorName=iqn.1993-08.org.debian:01:a\nInitiatorName=iqn.1993-08.org.debian:01:b", "", "2 InitiatorName= lines"},
		{"nonsense", "InitiatorName=node", "", `"node" is no iSCSI name`},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			m.write("etc/iscsi/initiatorname.iscsi", test.content)
			name, err := m.initiator().Name()
			require.Equal(t, test.expected, name)
			if test.says != "" {
				require.ErrorContains(t, err, test.says)
				require.ErrorContains(t, err, m.path("etc/iscsi/initiatorname.iscsi"))
			}
		})
	}
	m := newMachine(t)
	m.remove("etc/iscsi/initiatorname.iscsi")
	_, err := m.initiator().Name()
	require.ErrorContains(t, err, "install open-iscsi")
	m.mkdir("etc/iscsi/initiatorname.iscsi")
	_, err = m.initiator().Name()
	require.ErrorContains(t, err, "read this machine's initiator name")
}

func FuzzInitiatorName(f *testing.F) {
	f.Add("InitiatorName=iqn.1993-08.org.debian:01:node\n")
	f.Add("GenerateName=yes")
	f.Fuzz(func(t *testing.T, content string) {
		if name, err := parseInitiatorName(content); err == nil && validateName(name) != nil {
			t.Fatalf("%q is taken for a name", name)
		}
	})
}

func TestDaemon(t *testing.T) {
	m := newMachine(t)
	i := m.initiator()
	require.NoError(t, i.CheckDaemon())
	m.write("proc/net/unix", "00000000f339bbbc: 00000002 00000000 00010000 0001 01 10371 @ISCSIADM_ABSTRACT_NAMESPACE2\n")
	require.ErrorIs(t, i.CheckDaemon(), ErrNoDaemon)
	m.write("etc/iscsi/iscsid.conf", "# iscsid.startup = /bin/systemctl start iscsid.socket\nnode.startup = manual\n")
	require.ErrorIs(t, i.CheckDaemon(), ErrNoDaemon)
	m.write("etc/iscsi/iscsid.conf", "iscsid.startup = /bin/systemctl start iscsid.socket\n")
	require.NoError(t, i.CheckDaemon(), "iscsiadm starts it by itself")
	m.remove("proc/net/unix")
	m.remove("etc/iscsi/iscsid.conf")
	require.ErrorIs(t, i.CheckDaemon(), ErrNoDaemon)
}

func TestProgramErrors(t *testing.T) {
	for _, test := range []struct {
		name     string
		err      ProgramError
		expected string
	}{
		{"no program", ProgramError{Doing: "log in to X", Argv0: "iscsiadm", Code: -1, Err: &exec.Error{Name: "iscsiadm", Err: exec.ErrNotFound}},
			`log in to X: exec: "iscsiadm": executable file not found in $PATH: install open-iscsi (iscsi-initiator-utils)`},
		{"logout of a lost session by a new iscsid", ProgramError{Doing: "log out of X", Argv0: "iscsiadm", Code: 32, Output: "target likely not connected", Err: exitError(32)},
			"log out of X: iscsiadm exit 32: target likely not connected: iscsid was started anew while the target did not answer, and ends no session before it has it back; " +
				"bring the portal back, or restart the node"},
		{"logout of what iscsid sees in use", ProgramError{Doing: "log out of X", Argv0: "iscsiadm", Code: 28, Output: "device or resource in use", Err: exitError(28)},
			"log out of X: iscsiadm exit 28: device or resource in use: iscsid.safe_logout is set, and iscsid sees a disk of the session mounted; unmount it"},
		{"killed", ProgramError{Doing: "flush multipath map m", Argv0: "multipath", Code: -1, Err: context.DeadlineExceeded},
			"flush multipath map m: context deadline exceeded"},
		{"multipath", ProgramError{Doing: "flush multipath map m", Argv0: "multipath", Code: 1, Output: "m: map in use", Err: exitError(1)},
			"flush multipath map m: multipath exit 1: m: map in use"},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.EqualError(t, &test.err, test.expected)
			require.ErrorIs(t, &test.err, test.err.Err)
		})
	}
	require.LessOrEqual(t, len(gist(strings.Repeat("ä", 1000))), 310)
	require.Equal(t, "No records found", gist("iscsiadm: No records found\n"))
	require.Equal(t, "a; b", gist("iscsiadm: a\n\nLogging in to x\nb\n"))
}

func FuzzGist(f *testing.F) {
	f.Add("iscsiadm: initiator reported error (24 - iSCSI login failed due to authorization failure)\n")
	f.Add("initiator reported error (")
	f.Fuzz(func(t *testing.T, output string) {
		if strings.ContainsAny(gist(output), "\n") {
			t.Fatalf("%q gives more than one line", output)
		}
	})
}

func TestFindLooksNoFurtherWhenItsContextIsDone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m, target := attached(t)
	_, _, err := m.initiator().Find(ctx, target)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, m.initiator().Detach(ctx, target), context.Canceled)
}

func TestNoISCSIModulesMeansNothingIsAttached(t *testing.T) {
	m := newMachine(t)
	m.remove("sys/class/iscsi_session")
	target, _ := m.oneVolume()
	_, found, err := m.initiator().Find(t.Context(), target)
	require.NoError(t, err)
	require.False(t, found)
	require.NoError(t, m.initiator().Detach(t.Context(), target))

	m.write("sys/class/iscsi_session", "not a directory")
	_, _, err = m.initiator().Find(t.Context(), target)
	require.ErrorContains(t, err, "list iSCSI sessions")
}
