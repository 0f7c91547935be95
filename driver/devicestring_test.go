package driver

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/iscsi"
)

var seedAttachment = Attachment{
	Target: iscsi.Target{
		Portals: []string{"10.0.0.1:3260", "10.0.1.1:3260"},
		IQN:     "iqn.2013-05.com.daterainc:tc:01:sn:abc", LUN: 0, Serial: "6c26437d-0b1c-4b0e-9c3c-111122223333",
	},
	SizeGiB: 100,
}

func TestDeviceStringReadsBack(t *testing.T) {
	v6 := seedAttachment
	v6.Target.Portals = []string{"[fd00::1]:3260"}
	v6.Target.LUN = 7
	never := seedAttachment
	never.NeverFormat = true
	tests := map[string]struct {
		attachment Attachment
		text       string
	}{
		"two portals":        {seedAttachment, "iscsi://10.0.0.1:3260,10.0.1.1:3260/iqn.2013-05.com.daterainc:tc:01:sn:abc/0?serial=6c26437d-0b1c-4b0e-9c3c-111122223333&size=100"},
		"IPv6 and a LUN":     {v6, "iscsi://[fd00::1]:3260/iqn.2013-05.com.daterainc:tc:01:sn:abc/7?serial=6c26437d-0b1c-4b0e-9c3c-111122223333&size=100"},
		"data on the volume": {never, "iscsi://10.0.0.1:3260,10.0.1.1:3260/iqn.2013-05.com.daterainc:tc:01:sn:abc/0?serial=6c26437d-0b1c-4b0e-9c3c-111122223333&size=100&format=never"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.text, test.attachment.String())
			parsed, err := ParseAttachment(test.text)
			require.NoError(t, err)
			require.Equal(t, test.attachment, parsed)
		})
	}
}

func TestParseAttachmentRefuses(t *testing.T) {
	good := seedAttachment.String()
	tests := map[string]string{
		"nothing":                 "",
		"a path":                  "/dev/sdb",
		"another scheme":          strings.Replace(good, "iscsi:", "http:", 1),
		"no portal":               strings.Replace(good, "10.0.0.1:3260,10.0.1.1:3260", "", 1),
		"a portal without a port": strings.Replace(good, "10.0.0.1:3260", "10.0.0.1", 1),
		"a portal as an argument": strings.Replace(good, "10.0.0.1:3260", "--login:3260", 1),
		"no IQN":                  strings.Replace(good, "iqn.2013-05.com.daterainc:tc:01:sn:abc", "disk", 1),
		"an IQN with a space":     strings.Replace(good, ":abc", ":a bc", 1),
		"an IQN with dots":        strings.Replace(good, ":abc", ":/../abc", 1),
		"a LUN that is a word":    strings.Replace(good, "/0?", "/x?", 1),
		"a LUN out of range":      strings.Replace(good, "/0?", "/16384?", 1),
		"no serial":               strings.Replace(good, "serial=", "serials=", 1),
		"a serial with a slash":   strings.Replace(good, "serial=", "serial=..%2f", 1),
		"no size":                 strings.Replace(good, "size=100", "", 1),
		"size 0":                  strings.Replace(good, "size=100", "size=0", 1),
		"a huge one":              good + strings.Repeat("&x=1", 2000),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			attachment, err := ParseAttachment(text)
			require.Error(t, err, "accepted as %+v", attachment)
			require.ErrorContains(t, err, "accepted is iscsi://HOST:PORT")
		})
	}
}

func FuzzParseAttachment(f *testing.F) {
	f.Add(seedAttachment.String())
	f.Add("iscsi://[fd00::1]:3260/eui.0123456789abcdef/1?serial=x&size=1&format=never")
	f.Fuzz(func(t *testing.T, text string) {
		attachment, err := ParseAttachment(text)
		if err != nil {
			return
		}
		again, err := ParseAttachment(attachment.String())
		require.NoError(t, err)
		require.Equal(t, attachment, again)
		require.NotContains(t, attachment.Target.IQN, "/")
	})
}
