package driver

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
	"datera-flexvolume/testdata/budget"
)

// requests counts what the array was asked during do.
func requests(t *testing.T, server *dateratest.Server, do func()) int {
	t.Helper()
	server.ResetRequests()
	do()
	for _, request := range server.Requests() {
		t.Logf("%s %s -> %d", request.Method, request.Path, request.Status)
	}
	return len(server.Requests())
}

// What calls ask of the array is held to the README's table, exactly: a call that costs
// less than it says is a fault of the table.
func TestBudgetsOfRequests(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	options := optionsWith(nil)
	spends := func(name string, args ...string) {
		t.Helper()
		made := requests(t, server, func() { n.ask(t, args...) })
		require.Equal(t, budget.Of(t, name).Requests, made, name)
	}
	grown := []string{"expandvolume", options, globalPath, "107374182401", "1"}

	require.NoError(t, os.RemoveAll(n.Config.RunDir)) // no session key
	spends("init", "init")
	spends("attach, first ever, with login", "attach", options, "node-a")
	spends("attach, repeated", "attach", options, "node-a")
	spends("isattached", "isattached", options, "node-a")
	spends("detach", "detach", "pv-datera-0", "node-a")
	spends("detach, repeated", "detach", "pv-datera-0", "node-a")
	spends("isattached", "isattached", options, "node-a")
	spends("attach, volume exists", "attach", options, "node-a")
	spends("expandvolume", grown...)
	spends("expandvolume, repeated", grown...)
}

func TestNodeCallsMakeNoRequest(t *testing.T) {
	server := array(t)
	n := newNode(t, server, "node-a").registered(t)
	options := optionsWith(nil)
	device := n.ask(t, "attach", options, "node-a").Device
	require.Equal(t, 0, requests(t, server, func() {
		disk := n.ask(t, "waitforattach", device, options).Device
		n.ask(t, "mountdevice", globalPath, disk, options)
		n.ask(t, "mount", podPath, options)
		n.ask(t, "unmount", podPath)
		n.ask(t, "unmountdevice", globalPath)
	}))
}
