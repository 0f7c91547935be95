package driver

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

const backup = "iqn.2020-01.com.example:backup"

// listed puts an initiator into a volume's ACL policy by itself.
func listed(t *testing.T, server *dateratest.Server, volume, iqn string) {
	t.Helper()
	if _, known := server.Initiators("/root")[iqn]; !known {
		require.NoError(t, server.RegisterInitiator(iqn, "backup"))
	}
	_, err := server.Do("/root", http.MethodPut, "/app_instances/"+volume+"/storage_instances/storage-1/acl_policy",
		map[string]any{"initiators": []any{map[string]any{"path": "/initiators/" + iqn}}})
	require.NoError(t, err)
}

// letInBy lets an initiator in by a group of somebody else's.
func letInBy(t *testing.T, server *dateratest.Server, volume, group, iqn string) {
	t.Helper()
	if _, known := server.Initiators("/root")[iqn]; !known {
		require.NoError(t, server.RegisterInitiator(iqn, "backup"))
	}
	_, err := server.Do("/root", http.MethodPost, "/initiator_groups", map[string]any{"name": group, "members": []any{map[string]any{"path": "/initiators/" + iqn}}})
	require.NoError(t, err)
	_, err = server.Do("/root", http.MethodPut, "/app_instances/"+volume+"/storage_instances/storage-1/acl_policy/initiator_groups",
		map[string]any{"path": "/initiator_groups/" + group, "op": "add"})
	require.NoError(t, err)
}

// Everybody whom the policy lets in has a claim, whoever let it in; a session makes no difference, and no reader may share with it.
// Exceptions are named.
func TestWhoeverThePolicyLetsInHasAClaim(t *testing.T) {
	byItself := func(t *testing.T, server *dateratest.Server) { listed(t, server, "vol-1", backup) }
	byGroup := func(t *testing.T, server *dateratest.Server) { letInBy(t, server, "vol-1", "backup-hosts", backup) }
	both := func(t *testing.T, server *dateratest.Server) { byItself(t, server); byGroup(t, server) }
	noOne := func(*testing.T, *dateratest.Server) {}
	tests := map[string]struct {
		lets    func(*testing.T, *dateratest.Server)
		session bool
		exempt  []string
		says    string // "" for success
	}{
		"an initiator by itself":                     {byItself, false, nil, "lists it by itself: remove it there, or name it in exempt"},
		"an initiator by itself, with a session":     {byItself, true, nil, "lists it by itself"},
		"a foreign group":                            {byGroup, false, nil, "initiator group backup-hosts"},
		"a foreign group, with a session":            {byGroup, true, nil, "or name it in exempt in the configuration"},
		"a session without a claim":                  {noOne, true, nil, "it has a session without a claim"},
		"an exempt initiator by itself":              {byItself, false, []string{backup}, ""},
		"an exempt initiator, with a session":        {byItself, true, []string{backup}, ""},
		"an exempt initiator in a foreign group":     {byGroup, true, []string{backup}, ""},
		"an exempt group":                            {byGroup, false, []string{"backup-hosts"}, ""},
		"an exempt group, with a session":            {byGroup, true, []string{"backup-hosts"}, ""},
		"another exempt initiator":                   {byItself, false, []string{backup + "-2"}, "lists it by itself"},
		"another exempt group":                       {byGroup, false, []string{"backup"}, "initiator group backup-hosts"},
		"by itself beside an exempt group":           {both, false, []string{"backup-hosts"}, "lists it by itself"},
		"an exempt initiator by itself and by group": {both, true, []string{backup}, ""},
	}
	calls := map[string]struct {
		mode AttachMode
		make func(t *testing.T, n *node) error
	}{
		"attach to write": {AttachController, func(t *testing.T, n *node) error { return n.try(t, "attach", optionsUnder("pv-1", "vol-1"), n.name) }},
		"attach to read":  {AttachController, func(t *testing.T, n *node) error { return n.try(t, "attach", readingUnder("pv-1", "vol-1"), n.name) }},
		"mount in mode none": {AttachNone, func(t *testing.T, n *node) error {
			return n.try(t, "mount", podPathOf("pv-1"), optionsUnder("pv-1", "vol-1"))
		}},
		"delete": {AttachController, func(t *testing.T, n *node) error { return n.Delete(t.Context(), volumeUnder(t, "pv-1", "vol-1")) }},
	}
	for name, test := range tests {
		for called, call := range calls {
			t.Run(name+", "+called, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := array(t)
					n := newNode(t, server, "node-a", inMemory(t), attachMode(call.mode), func(c *Config) { c.Exempt = test.exempt }).registered(t)
					makeVolume(t, n, "vol-1")
					test.lets(t, server)
					before := letIn(t, server, "vol-1")
					if test.session {
						setActiveInitiators(t, server, "vol-1", backup)
					}
					err := call.make(t, n)
					if test.says == "" && (called != "delete" || !test.session) { // the array keeps what has a session, whoever is exempt
						require.NoError(t, err)
						return
					}
					require.ErrorContains(t, err, backup)
					if called != "delete" {
						require.ErrorContains(t, err, test.says)
					}
					require.Equal(t, before, letIn(t, server, "vol-1"), "it evicted, or kept a claim")
				})
			})
		}
	}
}

// rewrites changes the text of answers about what a path names.
func (n *node) rewrites(about string, change func(text []byte) []byte) {
	n.passing(func(r *http.Request, array http.RoundTripper) (*http.Response, error) {
		response, err := array.RoundTrip(r)
		if err != nil || !strings.Contains(r.URL.Path, about) {
			return response, err
		}
		text, err := io.ReadAll(response.Body)
		if err != nil {
			return nil, err
		}
		text = change(text)
		response.ContentLength, response.Body = int64(len(text)), io.NopCloser(bytes.NewReader(text))
		return response, nil
	})
}

// withoutField takes a field out of an answer, wherever it is.
func withoutField(field string) func([]byte) []byte {
	var without func(any) any
	without = func(value any) any {
		switch value := value.(type) {
		case map[string]any:
			delete(value, field)
			for key, part := range value {
				value[key] = without(part)
			}
		case []any:
			for i, part := range value {
				value[i] = without(part)
			}
		}
		return value
	}
	return func(text []byte) []byte {
		var answer any
		if json.Unmarshal(text, &answer) != nil {
			return text
		}
		text, _ = json.Marshal(without(answer))
		return text
	}
}

// An array that does not show sessions: with a controller nothing is missing. In attach mode none no node is evicted, as none
// can be seen to be gone.
func TestAnArrayThatDoesNotShowSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := array(t)
		blind := func(name string, mode AttachMode) *node {
			n := newNode(t, server, name, attachMode(mode))
			n.rewrites("/app_instances", withoutField("active_initiators"))
			return n
		}
		control := blind("node-a", AttachController).registered(t)
		device := control.ask(t, "attach", optionsUnder("pv-1", "vol-1"), "node-a").Device
		require.Equal(t, device, control.ask(t, "attach", optionsUnder("pv-1", "vol-1"), "node-a").Device)
		require.True(t, *control.ask(t, "isattached", optionsUnder("pv-1", "vol-1"), "node-a").Attached)
		control.ask(t, "detach", "pv-1", "node-a")
		require.Empty(t, letIn(t, server, "vol-1"))

		a, b := blind("node-a", AttachNone), blind("node-b", AttachNone)
		b.content = a.content
		a.ask(t, "mount", podPath, optionsUnder("pv-datera-0", "vol-1"))
		require.Contains(t, b.refused(t, "mount", podPath, optionsUnder("pv-datera-0", "vol-1")), "in use by node node-a")
		require.Equal(t, []string{a.iqn}, letIn(t, server, "vol-1"), "a node was evicted that may have a session")
		a.ask(t, "unmount", podPath)
		b.ask(t, "mount", podPath, optionsUnder("pv-datera-0", "vol-1"))
	})
}

// An iSCSI name means the same in capitals, and an array may fold them in one place and not in another.
func TestInitiatorsThatDifferInCapitals(t *testing.T) {
	for name, folded := range map[string]func([]byte) []byte{
		"the array keeps them": func(text []byte) []byte { return text },
		"it folds them": func(text []byte) []byte {
			return bytes.ReplaceAll(text, []byte("org.debian:01:Node-A"), []byte("org.debian:01:node-a"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := array(t)
			n := newNode(t, server, "node-a")
			require.NoError(t, server.RegisterInitiator("iqn.1993-08.org.debian:01:Node-A", InitiatorName("kubernetes", "node-a")))
			n.rewrites("/initiator_groups", folded)
			n.rewrites("/app_instances", folded)
			options := optionsUnder("pv-1", "vol-1")
			n.ask(t, "attach", options, "node-a")
			setActiveInitiators(t, server, "vol-1", "iqn.1993-08.org.debian:01:Node-A")
			n.ask(t, "attach", options, "node-a")
			require.True(t, *n.ask(t, "isattached", options, "node-a").Attached)
			n.ask(t, "attach", readingUnder("pv-1", "vol-1"), "node-a")
			n.ask(t, "detach", "pv-1", "node-a")
			require.Empty(t, letIn(t, server, "vol-1"))
			require.False(t, *n.ask(t, "isattached", options, "node-a").Attached)
		})
	}
}
