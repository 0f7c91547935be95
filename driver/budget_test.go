package driver

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
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
		t.Logf("%s %s %s -> %d", request.Method, request.Path, request.Query, request.Status)
	}
	return len(server.Requests())
}

// manyVolumes fills an array with volumes of others, some of them with snapshots.
func manyVolumes(t *testing.T, server *dateratest.Server, count int) {
	t.Helper()
	storage := map[string]any{"name": "storage-1", "volumes": []any{map[string]any{"name": "volume-1", "size": 1}}}
	for i := range count {
		name := fmt.Sprintf("volume-%d", i)
		_, err := server.Do("/root", http.MethodPost, "/app_instances", map[string]any{"name": name, "storage_instances": []any{storage}})
		require.NoError(t, err)
		if i%10 == 0 {
			_, err = server.Do("/root", http.MethodPost, "/app_instances/"+name+"/storage_instances/storage-1/volumes/volume-1/snapshots", map[string]any{})
			require.NoError(t, err)
		}
	}
}

// What calls ask of the array is held to the README's table, exactly: a call that costs less than it says is a fault of the
// table. It does not depend on how many volumes there are, nor does what the array answers.
func TestBudgetsOfRequests(t *testing.T) {
	for _, volumes := range []int{0, 5000} {
		t.Run(fmt.Sprintf("beside %d volumes", volumes), func(t *testing.T) {
			t.Parallel()
			server := array(t)
			manyVolumes(t, server, volumes)
			n, b := newNode(t, server, "node-a").registered(t), newNode(t, server, "node-b").registered(t)
			var answered atomic.Int64 // bytes
			n.passing(func(r *http.Request, array http.RoundTripper) (*http.Response, error) {
				response, err := array.RoundTrip(r)
				if err == nil {
					response.Body = counted{response.Body, &answered}
				}
				return response, err
			})
			spends := func(name, status string, args ...string) {
				t.Helper()
				answered.Store(0)
				made := requests(t, server, func() { require.EqualValues(t, status, n.Serve(t.Context(), args).Status, args) })
				require.Equal(t, budget.Of(t, name).Requests, made, name)
				require.LessOrEqual(t, answered.Load(), int64(made*8<<10), "%s: the array answered %d bytes", name, answered.Load())
				for _, request := range server.Requests() {
					require.False(t, request.Method == http.MethodGet && request.Path == "/app_instances", "%s lists all volumes", name)
				}
			}
			options := optionsWith(nil)
			grown := []string{"expandvolume", options, globalPath, "107374182401", "1"}
			require.NoError(t, os.RemoveAll(n.Config.RunDir)) // no session key
			spends("init", "Success", "init")
			spends("attach, first ever, with login", "Success", "attach", options, "node-a")
			spends("attach, repeated", "Success", "attach", options, "node-a")
			spends("isattached", "Success", "isattached", options, "node-a")
			spends("attach, refused", "Failure", "attach", options, "node-b")
			spends("detach", "Success", "detach", "pv-datera-0", "node-a")
			spends("detach, repeated", "Success", "detach", "pv-datera-0", "node-a")
			spends("isattached, of none", "Success", "isattached", options, "node-a")
			spends("attach, volume exists", "Success", "attach", options, "node-a")
			spends("expandvolume", "Success", grown...)
			spends("expandvolume, repeated", "Success", grown...)
			_, _, err := mustArray(t, b).CreateAppInstance(t.Context(), b.request(volumeUnder(t, "pv-1", "vol-1"))) // by a call that was killed
			require.NoError(t, err)
			spends("attach, volume exists", "Success", "attach", optionsUnder("pv-1", "vol-1"), "node-a")
		})
	}
}

// counted counts what is read.
type counted struct {
	io.ReadCloser
	bytes *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

// Nor does a delete list anything, or what attach mode none does on its own.
func TestNothingListsAllVolumes(t *testing.T) {
	server := array(t)
	manyVolumes(t, server, 20)
	n := newNode(t, server, "node-a", attachMode(AttachNone))
	server.ResetRequests()
	n.ask(t, "mount", podPath, optionsUnder("pv-datera-0", "vol-1"))
	n.ask(t, "mount", otherPod, optionsUnder("pv-datera-0", "vol-1"))
	n.ask(t, "unmount", otherPod)
	n.ask(t, "unmount", podPath)
	require.NoError(t, n.Delete(t.Context(), volumeUnder(t, "pv-datera-0", "vol-1")))
	require.Greater(t, len(server.Requests()), 10)
	for _, request := range server.Requests() {
		require.False(t, request.Method == http.MethodGet && strings.Trim(request.Path, "/") == "app_instances", "%s", request)
	}
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
