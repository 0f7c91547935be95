package iscsi

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Portal is where a target listens: "10.0.0.1:3260" or "[fd00::1]:3260".
type Portal = string

// Target is one LUN of one iSCSI target, and the ways to it.
type Target struct {
	Portals []Portal
	IQN     string
	LUN     int
	Serial  string // the unit serial number (VPD page 0x80) that the disk must have; never empty
}

// String names the LUN as people know it in errors.
func (t Target) String() string {
	return fmt.Sprintf("%s LUN %d (serial %s)", t.IQN, t.LUN, t.Serial)
}

// CHAP is what the initiator presents (Username, Password) and what it demands of the target in return (UsernameIn,
// PasswordIn: mutual CHAP). The zero value is no authentication.
type CHAP struct{ Username, Password, UsernameIn, PasswordIn string }

// String does not show the secrets.
func (c CHAP) String() string {
	if c == (CHAP{}) {
		return "none"
	}
	return "CHAP as " + c.Username
}

// GoString keeps %#v from showing them, too.
func (c CHAP) GoString() string { return c.String() }

// namePattern holds the three kinds of iSCSI names (RFC 7143, 4.2.7). Underscores are against the letter and in use.
// Like hostPattern it is compiled when it is needed: a process that attaches nothing does not pay for it.
var namePattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[A-Za-z0-9][A-Za-z0-9.:_-]*|eui\.[0-9A-Fa-f]{16}|naa\.([0-9A-Fa-f]{16}){1,2})$`)
})

const (
	maxName = 223   // bytes (RFC 7143, 4.2.7.1)
	maxLUN  = 16383 // 14 bits: flat space addressing (SAM-5, 4.7.7.3)
	maxText = 255   // of a serial number, and of a CHAP name or secret in a node record
)

func validateName(name string) error {
	if len(name) > maxName || !namePattern().MatchString(name) {
		return fmt.Errorf("%.250q is no iSCSI name (iqn.YYYY-MM.domain:name, eui.… or naa.…, at most %d bytes)", name, maxName)
	}
	return nil
}

// SameName tells whether two iSCSI names are one: their case does not count (RFC 3722). A login uses the spelling it is
// given, because there are targets that compare byte by byte.
func SameName(a, b string) bool { return strings.EqualFold(a, b) }

func (t Target) validate() error {
	if err := validateName(t.IQN); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	if t.LUN < 0 || t.LUN > maxLUN {
		return fmt.Errorf("target %s: LUN %d is not within 0 to %d", t.IQN, t.LUN, maxLUN)
	}
	if t.Serial == "" {
		return fmt.Errorf("target %s LUN %d: no serial number to know the disk by", t.IQN, t.LUN)
	}
	if !printable(t.Serial) || strings.TrimSpace(t.Serial) != t.Serial {
		return fmt.Errorf("target %s LUN %d: serial number %.260q is not printable ASCII of at most %d bytes", t.IQN, t.LUN, t.Serial, maxText)
	}
	for _, portal := range t.Portals {
		if _, err := canonical(portal); err != nil {
			return fmt.Errorf("target %s: %w", t.IQN, err)
		}
	}
	return nil
}

// validateLogin is validate for what works on the target's portals.
func (t Target) validateLogin(chap CHAP) error {
	if err := t.validate(); err != nil {
		return err
	}
	if err := chap.validate(); err != nil {
		return fmt.Errorf("target %s: %w", t.IQN, err)
	}
	if len(t.Portals) == 0 {
		return fmt.Errorf("target %s has no portal", t.IQN)
	}
	return nil
}

func (c CHAP) validate() error {
	switch {
	case (c.Username == "") != (c.Password == ""):
		return errors.New("CHAP: user name and password belong together, one is missing")
	case (c.UsernameIn == "") != (c.PasswordIn == ""):
		return errors.New("mutual CHAP: the target's user name and password belong together, one is missing")
	case c.UsernameIn != "" && c.Username == "":
		return errors.New("mutual CHAP needs one-way CHAP as well")
	}
	for _, text := range []string{c.Username, c.Password, c.UsernameIn, c.PasswordIn} {
		if text != "" && !printable(text) {
			return fmt.Errorf("CHAP: a name or password is not printable ASCII of at most %d bytes", maxText)
		}
	}
	return nil
}

// redact takes the secrets out of a program's output.
func (c CHAP) redact(text string) string {
	for _, secret := range []string{c.Password, c.PasswordIn} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	return text
}

func printable(text string) bool {
	for _, b := range []byte(text) {
		if b < ' ' || b > '~' {
			return false
		}
	}
	return len(text) <= maxText
}

const maxHost = 253 // bytes (RFC 1035, 2.3.4)

var hostPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`) })

// canonical gives the one spelling of a portal by which two can be compared: sysfs, records and people write
// fd00::1 differently.
func canonical(portal Portal) (Portal, error) {
	host, port, err := net.SplitHostPort(portal)
	if err != nil {
		return "", fmt.Errorf("portal %.300q is not host:port or [address]:port", portal)
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 || port[0] == '+' {
		return "", fmt.Errorf("portal %.300q: port is not within 1 to 65535", portal)
	}
	if address, err := netip.ParseAddr(host); err == nil {
		if address.Zone() != "" {
			return "", fmt.Errorf("portal %.300q: iscsiadm knows no zones", portal)
		}
		return net.JoinHostPort(address.Unmap().String(), port), nil
	}
	if len(host) > maxHost || !hostPattern().MatchString(host) {
		return "", fmt.Errorf("portal %.300q: host is neither an address nor a host name", portal)
	}
	return net.JoinHostPort(strings.ToLower(host), port), nil
}

// canonicalPortals are t's portals, each once. The target is valid.
func (t Target) canonicalPortals() []Portal {
	var portals []Portal
	seen := map[Portal]bool{}
	for _, portal := range t.Portals {
		if p, err := canonical(portal); err == nil && !seen[p] {
			seen[p] = true
			portals = append(portals, p)
		}
	}
	return portals
}

// kernelLUNs are the numbers the kernel may know a LUN by: above 255 a target may use flat space addressing, whose
// mark the kernel leaves in the number (SAM-5, 4.7.7.3).
func (t Target) kernelLUNs() []int {
	if t.LUN < 256 {
		return []int{t.LUN}
	}
	return []int{t.LUN | 0x4000, t.LUN}
}

// plainLUN takes that mark out again.
func plainLUN(lun int) int { return lun &^ 0x4000 }
