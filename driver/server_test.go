package driver

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseServer(t *testing.T) {
	accepted := map[string]Server{
		"array":           {Host: "array"},
		"Array.Example.":  {Host: "array.example."},
		"10.0.0.5:7717":   {Host: "10.0.0.5", Port: 7717},
		"[fd00::5]:7718":  {Host: "fd00::5", Port: 7718},
		"[fd00::5]":       {Host: "fd00::5"},
		"array:65535":     {Host: "array", Port: 65535},
		"a-b.example:443": {Host: "a-b.example", Port: 443},
	}
	for text, want := range accepted {
		t.Run(text, func(t *testing.T) {
			server, err := ParseServer(text)
			require.NoError(t, err)
			require.Equal(t, want, server)
		})
	}
	for _, text := range []string{"", ":7717", "array:", "array:0", "array:70000", "array:-1", "array:http", "fd00::5", "[array]:7717", "[10.0.0.1]:7717",
		"[fd00::5", "http://array", "array/x", "user@array", "a b", "array\n", "-array", "a..b", "[x](http://x/):7717", "[fe80::1%eth0]:7717"} {
		t.Run("refused "+text, func(t *testing.T) {
			server, err := ParseServer(text)
			require.Error(t, err, "accepted as %+v", server)
		})
	}
}

func TestServerStringReadsBack(t *testing.T) {
	for _, text := range []string{"array", "array:7717", "[fd00::5]:7718", "[fd00::5]"} {
		server, err := ParseServer(text)
		require.NoError(t, err)
		require.Equal(t, text, server.String())
	}
}

func TestSameArray(t *testing.T) {
	tests := map[string]struct {
		a, b string
		same bool
	}{
		"equal":                         {"array:7717", "array:7717", true},
		"the plain and the TLS port":    {"array:7717", "array:7718", true},
		"no port and one of the two":    {"array", "array:7717", true},
		"another port":                  {"array:7717", "array:9999", false},
		"no port and a foreign port":    {"array", "array:9999", false},
		"another host":                  {"array:7717", "evil:7717", false},
		"two equal ports of a tunnel":   {"array:9999", "array:9999", true},
		"upper case in the host's name": {"Array", "array", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a, err := ParseServer(test.a)
			require.NoError(t, err)
			b, err := ParseServer(test.b)
			require.NoError(t, err)
			require.Equal(t, test.same, a.sameArray(b))
			require.Equal(t, test.same, b.sameArray(a))
		})
	}
}

func FuzzParseServer(f *testing.F) {
	f.Add("array:7717")
	f.Add("[fd00::1]:7718")
	f.Add("[x](http://x/):7717")
	f.Fuzz(func(t *testing.T, text string) {
		server, err := ParseServer(text)
		if err != nil {
			return
		}
		again, err := ParseServer(server.String())
		require.NoError(t, err, "%q became %q", text, server)
		require.Equal(t, server, again)
	})
}
