package dateratest_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
	"datera-flexvolume/datera/dateratest"
)

// inMemory runs a test in virtual time, with a cluster and a client that speak without sockets.
func inMemory(t *testing.T, run func(*testing.T, *dateratest.Server, *datera.Client)) {
	synctest.Test(t, func(t *testing.T) {
		s, err := dateratest.New(dateratest.Options{})
		require.NoError(t, err)
		defer func() { require.NoError(t, s.Close(t.Context())) }()
		c, err := datera.New(datera.Config{Address: "sim.test", Scheme: "http", Username: "admin", Password: "password", Transport: s.Transport()})
		require.NoError(t, err)
		run(t, s, c)
	})
}

func fault(t *testing.T, s *dateratest.Server, f dateratest.Fault) {
	require.NoError(t, s.SetFault(f))
}

func TestTransport(t *testing.T) {
	t.Run("requests and answers are whole", func(t *testing.T) {
		inMemory(t, func(t *testing.T, _ *dateratest.Server, c *datera.Client) {
			made, created, err := c.CreateAppInstance(t.Context(), datera.AppInstanceRequest{Name: "shop_db1", SizeGiB: 1})
			require.NoError(t, err)
			require.True(t, created)
			read, err := c.AppInstance(t.Context(), "shop_db1")
			require.NoError(t, err)
			require.Equal(t, made.ID, read.ID)
			_, err = c.AppInstance(t.Context(), "shop_db2")
			require.ErrorIs(t, err, datera.ErrNotFound)
			require.EqualValues(t, 4, c.Requests())
		})
	})
	t.Run("a caller who gives up does not wait", func(t *testing.T) {
		inMemory(t, func(t *testing.T, s *dateratest.Server, c *datera.Client) {
			began := time.Now()
			fault(t, s, dateratest.Fault{Name: dateratest.Slow, Value: "1h", Method: "GET"})
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := c.AppInstance(ctx, "shop_db1")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, 5*time.Second, time.Since(began), "of virtual time")
		})
	})
	t.Run("a slow answer is waited for", func(t *testing.T) {
		inMemory(t, func(t *testing.T, s *dateratest.Server, c *datera.Client) {
			began := time.Now()
			fault(t, s, dateratest.Fault{Name: dateratest.Slow, Value: "1h", Path: "app_instances", Count: 1})
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
			defer cancel()
			_, err := c.AppInstance(ctx, "shop_db1")
			require.ErrorIs(t, err, datera.ErrNotFound)
			require.Equal(t, time.Hour, time.Since(began))
		})
	})
	t.Run("connections are refused for a time", func(t *testing.T) {
		inMemory(t, func(t *testing.T, s *dateratest.Server, c *datera.Client) {
			began := time.Now()
			fault(t, s, dateratest.Fault{Name: dateratest.Refuse, Value: "1m"})
			_, err := c.AppInstance(t.Context(), "shop_db1")
			require.ErrorIs(t, err, datera.ErrNotFound)
			require.GreaterOrEqual(t, time.Since(began), time.Minute)
			require.Greater(t, c.Requests(), int64(2))
		})
	})
	t.Run("a lost answer", func(t *testing.T) {
		inMemory(t, func(t *testing.T, s *dateratest.Server, c *datera.Client) {
			fault(t, s, dateratest.Fault{Name: dateratest.LoseAnswer, Method: "POST"})
			ai, created, err := c.CreateAppInstance(t.Context(), datera.AppInstanceRequest{Name: "shop_db1", SizeGiB: 1})
			require.NoError(t, err)
			require.False(t, created, "it was carried out, and then read")
			require.Equal(t, "shop_db1", ai.Name)
		})
	})
	t.Run("an answer that breaks off", func(t *testing.T) {
		inMemory(t, func(t *testing.T, s *dateratest.Server, _ *datera.Client) {
			fault(t, s, dateratest.Fault{Name: dateratest.Cut, Value: "4"})
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://sim.test/v2.2/system", nil)
			require.NoError(t, err)
			answer, err := s.Transport().RoundTrip(r)
			require.NoError(t, err)
			body, err := io.ReadAll(answer.Body)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			require.Len(t, body, 4)
		})
	})
	t.Run("header, query and body arrive", func(t *testing.T) {
		inMemory(t, func(t *testing.T, s *dateratest.Server, _ *datera.Client) {
			send := func(method, url, key, body string) (answer map[string]any) {
				r, err := http.NewRequestWithContext(t.Context(), method, "http://sim.test/v2.2"+url, strings.NewReader(body))
				require.NoError(t, err)
				r.Header.Set("Auth-Token", key)
				a, err := (&http.Client{Transport: s.Transport()}).Do(r)
				require.NoError(t, err)
				defer a.Body.Close()
				require.NoError(t, json.NewDecoder(a.Body).Decode(&answer))
				return answer
			}
			key := send("PUT", "/login", "", `{"name":"admin","password":"password"}`)["key"].(string)
			list := send("GET", "/access_network_ip_pools?limit=1", key, "")
			require.EqualValues(t, 1, list["metadata"].(map[string]any)["limit"], "the query arrived")
		})
	})
}
