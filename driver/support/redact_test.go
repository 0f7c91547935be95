package support

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHidesWhateverIsCalledASecret(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"YAML":                  {"password: canary\nnext: x", "password: (hidden)\nnext: x"},
		"quoted YAML":           {`password: "canary with blanks"`, `password: "(hidden)"`},
		"YAML in single quotes": {`password: 'canary''s'`, `password: '(hidden)'`},
		"JSON":                  {`{"password":"canary\"more","user":"admin"}`, `{"password":"(hidden)","user":"admin"}`},
		"JSON in JSON":          {`{"o":"{\"kubernetes.io/secret/key\":\"Y2FuYXJ5\",\"size\":\"1\"}"}`, `{"o":"{\"kubernetes.io/secret/key\":\"(hidden)\",\"size\":\"1\"}"}`},
		"a node record":         {"node.session.auth.password_in = canary\nnode.startup = manual", "node.session.auth.password_in = (hidden)\nnode.startup = manual"},
		"arguments of iscsiadm": {"-n node.session.auth.password -v canary -n x", "-n node.session.auth.password -v (hidden) -n x"},
		"a flag":                {"kubelet --bootstrap-token=canary --v=2 --api-token canary2", "kubelet --bootstrap-token=(hidden) --v=2 --api-token (hidden)"},
		"mount options":         {"rw,username=u,password=canary,vers=3", "rw,username=u,password=(hidden),vers=3"},
		"no secret":             {"the password is wrong; portal 10.0.0.1:3260", "the password is wrong; portal 10.0.0.1:3260"},
		"an empty one":          {"node.session.auth.password =\nnode.startup = manual", "node.session.auth.password =\nnode.startup = manual"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			shown := newRedactor(nil).hide(test.text)
			require.Equal(t, test.want, shown)
			require.Equal(t, shown, newRedactor(nil).hide(shown), "what is hidden changes when it is hidden again")
		})
	}
}

func TestHidesKnownSecretsInEveryForm(t *testing.T) {
	r := newRedactor([]string{`can"ary&<1>`, "", "can"}, "foo: bar\npassword: from-a-text\n")
	for _, form := range []string{
		`can"ary&<1>`, `can\"ary\u0026\u003c1\u003e`, "can%22ary%26%3C1%3E", "can%22ary&%3C1%3E", "Y2FuImFyeSY8MT4=", "can", "from-a-text",
	} {
		require.Equal(t, "x (hidden) y", r.hide("x "+form+" y"))
	}
}

func TestASecretThatIsAWordHidesNoOther(t *testing.T) {
	r := newRedactor([]string{"password", "two words", "two", "words of it"})
	require.Equal(t, `{"(hidden)":"(hidden)"}`, r.hide(`{"password":"canary"}`))
	require.Equal(t, "(hidden): (hidden)\n(hidden)", r.hide("password: two words of it\npasswordtwo"))
}

func FuzzRedactor(f *testing.F) {
	f.Add(`{"password":"%s"}`)
	f.Add("node.session.auth.password = %s\n")
	f.Fuzz(func(t *testing.T, text string) {
		const canary = "canary-7f3a"
		r := newRedactor([]string{canary})
		require.NotContains(t, r.hide(strings.ReplaceAll(text, "%s", canary)), canary)
	})
}
