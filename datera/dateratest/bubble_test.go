package dateratest_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera/dateratest"
)

// TestVirtualTime lets hours pass in a bubble: the simulator has no goroutine of its own, and no clock but the bubble's.
func TestVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		array, err := dateratest.New(dateratest.Options{OpStateDelay: time.Hour, SessionLifetime: 12 * time.Hour})
		require.NoError(t, err)
		c := &caller{t: t, base: "http://array", version: "v2.2", web: &http.Client{Transport: array.Transport()}}
		c.login()
		began := time.Now()
		c.ok("POST", "/app_instances", simple("pv-1", 1))
		require.Equal(t, "unavailable", c.ok("GET", si, nil)["op_state"])
		set(t, array, dateratest.Fault{Name: dateratest.Slow, Value: "59m", Path: "^/system$"})
		c.ok("GET", "/system", nil)
		require.Equal(t, 59*time.Minute, time.Since(began))
		require.Equal(t, "unavailable", c.ok("GET", si, nil)["op_state"])
		set(t, array, dateratest.Fault{Name: dateratest.Refuse, Value: "1h"})
		_, err = c.send("GET", "/v2.2/system", http.NoBody, "")
		require.Error(t, err)
		time.Sleep(time.Hour) // of the bubble
		require.Equal(t, "available", c.ok("GET", si, nil)["op_state"])
		time.Sleep(12 * time.Hour)
		c.fails(401, "AuthFailedError", "GET", "/system", nil)
		require.NoError(t, array.Close(t.Context()))
	})
}
