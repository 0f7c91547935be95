package driver

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"datera-flexvolume/iscsi"
)

// portalPort is where the array's portals listen.
const portalPort = "3260"

// Attachment is what attach tells the node: how to reach the volume and how to know it.
// It travels as one string through node status, so it holds nothing secret:
//
//	iscsi://10.0.0.1:3260,10.0.1.1:3260/iqn.2013-05.com.daterainc:tc:01:sn:abc/0?serial=UUID&size=100&volume=vol-1
type Attachment struct {
	Target  iscsi.Target
	SizeGiB int64
	// AppInstance is the volume's name on the array; "" in a string of an earlier version.
	AppInstance string
	// ReadOnly says that the node may not write: others read the volume, too.
	ReadOnly bool
	// NeverFormat says that the array knows of data on the volume: mkfs is out of the question.
	NeverFormat bool
}

var (
	targetIQN    = pattern(`\A(?:iqn\.[0-9]{4}-[0-9]{2}\.[A-Za-z0-9.:_-]+|eui\.[0-9A-Fa-f]{16})\z`)
	targetSerial = pattern(`\A[A-Za-z0-9._-]+\z`)
)

const (
	longestIQN    = 223 // RFC 7143
	longestSerial = 64
	longestEntity = 255
)

const deviceAccepts = "iscsi://HOST:PORT[,HOST:PORT…]/IQN/LUN?serial=SERIAL&size=GIB[&volume=NAME], as attach returns it"

// String is the device string.
func (a Attachment) String() string {
	query := "serial=" + a.Target.Serial + "&size=" + strconv.FormatInt(a.SizeGiB, 10)
	if a.AppInstance != "" {
		query += "&volume=" + url.QueryEscape(a.AppInstance)
	}
	if a.NeverFormat {
		query += "&format=never"
	}
	if a.ReadOnly {
		query += "&access=ro"
	}
	return fmt.Sprintf("iscsi://%s/%s/%d?%s", strings.Join(a.Target.Portals, ","), a.Target.IQN, a.Target.LUN, query)
}

// ParseAttachment reads a device string. It came through the API server, so it is foreign
// input: each part is checked before it can reach a command line.
func ParseAttachment(text string) (Attachment, error) {
	bad := func(what string) (Attachment, error) {
		return Attachment{}, fmt.Errorf("device string %s: %s; accepted is %s", quoteShort(text), what, deviceAccepts)
	}
	rest, found := strings.CutPrefix(text, "iscsi://")
	if !found || len(text) > 4096 {
		return bad("it is no iscsi:// address")
	}
	address, rawQuery, _ := strings.Cut(rest, "?")
	parts := strings.Split(address, "/")
	if len(parts) != 3 {
		return bad("it has not the three parts portals, IQN and LUN")
	}
	var attachment Attachment
	for portal := range strings.SplitSeq(parts[0], ",") {
		server, err := ParseServer(portal)
		if err != nil || server.Port == 0 {
			return bad("portal " + quoteShort(portal) + " is no HOST:PORT")
		}
		attachment.Target.Portals = append(attachment.Target.Portals, server.String())
	}
	if attachment.Target.IQN = parts[1]; len(parts[1]) > longestIQN || !targetIQN().MatchString(parts[1]) {
		return bad(quoteShort(parts[1]) + " is no IQN")
	}
	lun, err := strconv.ParseUint(parts[2], 10, 14)
	if err != nil {
		return bad(quoteShort(parts[2]) + " is no LUN (0 to 16383)")
	}
	attachment.Target.LUN = int(lun)
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return bad("what follows the ? cannot be read")
	}
	if attachment.Target.Serial = query.Get("serial"); len(attachment.Target.Serial) > longestSerial || !targetSerial().MatchString(attachment.Target.Serial) {
		return bad("the serial is missing or is no serial number")
	}
	if attachment.SizeGiB, err = strconv.ParseInt(query.Get("size"), 10, 64); err != nil || attachment.SizeGiB < 1 || attachment.SizeGiB > maxSizeGiB {
		return bad("the size is missing or is no number of GiB")
	}
	if attachment.AppInstance = query.Get("volume"); len(attachment.AppInstance) > longestEntity || strings.ContainsFunc(attachment.AppInstance, unicode.IsControl) {
		return bad("the volume is no name")
	}
	// Whatever stands behind format= and access=, it is no permission.
	attachment.NeverFormat, attachment.ReadOnly = query.Has("format"), query.Has("access")
	return attachment, nil
}

// checkFor refuses what was attached for another volume, or to be read only. Kubernetes knows
// a volume by its PersistentVolume's name alone and, while it counts as attached, does not
// ask again: a PersistentVolume may have been made anew, a pod may want to write by now.
func (a Attachment) checkFor(volume Volume) error {
	const remedy = "delete the pods that use it on this node, wait until the node's status.volumesAttached does not list it any more, and start them again"
	switch {
	case a.AppInstance != "" && a.AppInstance != volume.AppInstance:
		return fmt.Errorf("volume %s is not attached to this node: what is attached as %s is volume %s, of a PersistentVolume of the same name that has gone; it is left alone: %s",
			volume.AppInstance, volume.Name, a.AppInstance, remedy)
	case a.ReadOnly && !volume.ReadOnly:
		return fmt.Errorf("volume %s is attached to this node to be read, as it may be to other nodes, and is to be written: it is not mounted; %s", volume.AppInstance, remedy)
	}
	return nil
}

func portalsOf(ips []string) []string {
	portals := make([]string, len(ips))
	for i, ip := range ips {
		portals[i] = net.JoinHostPort(ip, portalPort)
	}
	return portals
}
