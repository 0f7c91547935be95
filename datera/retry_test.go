package datera

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// saying answers with a status and with headers, and with a text that is not the array's.
func saying(status int, text string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

const initializing = `{"name":"InternalError","message":"REST server is still initializing"}`

// What passes is waited for, as long as the array asks.
func TestPassingAnswers(t *testing.T) {
	t.Parallel()
	const now, later = "Sat, 21 Nov 2026 01:02:03 GMT", "Sat, 21 Nov 2026 01:02:10 GMT"
	const first = 100 * time.Millisecond // the client's own pause
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		pause  time.Duration
	}{
		"503":                            {busy, first},
		"503 that says when":             {saying(503, "{}", "Retry-After", "3"), 3 * time.Second},
		"429":                            {saying(429, "{}"), first},
		"429 that says when":             {saying(429, "{}", "Retry-After", "7"), 7 * time.Second},
		"at a time by the array's clock": {saying(429, "{}", "Retry-After", later, "Date", now), 7 * time.Second},
		"at a time by this host's clock": {saying(429, "{}", "Retry-After", "Sat, 01 Jan 2000 00:00:05 GMT"), 5 * time.Second}, // virtual time begins in 2000
		"at a time that is past":         {saying(429, "{}", "Retry-After", now, "Date", later), first},
		"in a day":                       {saying(429, "{}", "Retry-After", "86400"), longestPause},
		"in a day, by the clock":         {saying(429, "{}", "Retry-After", "Sun, 22 Nov 2026 01:02:03 GMT", "Date", now), longestPause},
		"in no time":                     {saying(429, "{}", "Retry-After", "0"), first},
		"in less than no time":           {saying(429, "{}", "Retry-After", "-5"), first},
		"when it pleases":                {saying(429, "{}", "Retry-After", "soon"), first},
		"429 of a proxy":                 {saying(429, "<html>", "Retry-After", "1"), time.Second},
		"an array that starts":           {saying(500, initializing), first},
		"502":                            {saying(502, "<html>Bad Gateway"), first},
		"504":                            {saying(504, ""), first},
		"a connection that broke":        {breakOff, first},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, inTurn(test.answer, always(map[string]any{})), func(t *testing.T, a *array, c *Client) {
				began := time.Now()
				require.NoError(t, read(t.Context(), c))
				require.Equal(t, test.pause, time.Since(began))
				require.Len(t, a.recorded(), 2)
			})
		})
	}
}

func TestNothingElseIsRepeated(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 403, 404, 405, 409, 422, 500, 501, 505} {
		virtual(t, refusing(status, "SomeError", "no"), func(t *testing.T, a *array, c *Client) {
			require.Error(t, read(t.Context(), c))
			require.Len(t, a.recorded(), 1, status)
		})
	}
}

// Each answer is preceded by one that passes.
func TestEveryRequestIsRepeated(t *testing.T) {
	t.Parallel()
	for name, passing := range map[string]http.HandlerFunc{
		"429": saying(429, "{}", "Retry-After", "1"), "502": saying(502, "<html>"), "503": busy, "504": saying(504, ""), "500": saying(500, initializing),
	} {
		t.Run(name, func(t *testing.T) {
			asked := map[string]bool{}
			virtual(t, func(w http.ResponseWriter, r *http.Request) {
				if request := r.Method + r.URL.Path; !asked[request] {
					asked[request] = true
					passing(w, r)
					return
				}
				answerAsked(w, r)
			}, func(t *testing.T, _ *array, c *Client) {
				ctx := t.Context()
				_, _, err := c.CreateAppInstance(ctx, AppInstanceRequest{Name: "shop_db1", SizeGiB: 1})
				require.NoError(t, err)
				_, err = c.AppInstance(ctx, "shop_db1")
				require.NoError(t, err)
				_, err = c.RegisterInitiator(ctx, iqn, "node 1")
				require.NoError(t, err)
				_, _, err = c.CreateInitiatorGroup(ctx, "shop_db1", iqn)
				require.NoError(t, err)
				require.NoError(t, c.AddInitiatorGroup(ctx, siPath, "shop_db1"))
				require.NoError(t, c.SetPerformancePolicy(ctx, volPath, PerformancePolicy{TotalIOPSMax: 1}))
				_, err = c.RemoveMember(ctx, "removed", iqn)
				require.NoError(t, err)
				require.NoError(t, c.DeleteAppInstance(ctx, "shop_db1"))
			})
		})
	}
}

// A proxy that got no answer cannot say whether a creation was carried out.
func TestCreationBehindAProxy(t *testing.T) {
	t.Parallel()
	notThere := refusing(404, "NotFoundError", "does not exist")
	for name, test := range map[string]struct {
		answers []http.HandlerFunc
		created bool
		methods []string
		fails   string
	}{
		"it was":          {[]http.HandlerFunc{saying(502, ""), always(appInstance("shop_db1"))}, false, []string{"POST", "GET"}, ""},
		"it was not":      {[]http.HandlerFunc{saying(504, ""), notThere, always(appInstance("shop_db1"))}, true, []string{"POST", "GET", "POST"}, ""},
		"it never is":     {[]http.HandlerFunc{saying(502, ""), notThere, saying(502, "<html>"), notThere}, false, []string{"POST", "GET", "POST", "GET"}, "502 Bad Gateway"},
		"it is not known": {[]http.HandlerFunc{saying(502, ""), refusing(403, "PermissionDeniedError", "no")}, false, []string{"POST", "GET"}, "403"},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, inTurn(test.answers...), func(t *testing.T, a *array, c *Client) {
				_, created, err := c.CreateAppInstance(t.Context(), AppInstanceRequest{Name: "shop_db1", SizeGiB: 1})
				require.Equal(t, test.methods, methods(a))
				if test.fails != "" {
					require.ErrorContains(t, err, test.fails)
					require.NotContains(t, err.Error(), "check address and port")
					return
				}
				require.NoError(t, err)
				require.Equal(t, test.created, created)
			})
		})
	}
}

// The call ends when its time does, and says what the array said last.
func TestPassingForEver(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		after  time.Duration
		want   string
	}{
		"busy":              {busy, 300 * time.Millisecond, `GET http://array.test:7717/v2.2/app_instances/shop_db1/metadata: 503 Service Unavailable: failing over; tried 3 times in 300ms: context deadline exceeded`},
		"a proxy":           {saying(502, "<html>\nBad Gateway</html>"), 300 * time.Millisecond, `502 Bad Gateway: <html> Bad Gateway</html>; a proxy before the array got no answer from it; tried 3 times in 300ms: context deadline exceeded`},
		"too many requests": {saying(429, "slow down", "Retry-After", "1"), 0, `429 Too Many Requests: slow down; tried 1 times in 0s: context deadline exceeded`},
		"no answer":         {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 500 * time.Millisecond, `no answer; tried 1 times in 500ms: context deadline exceeded`},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, test.answer, func(t *testing.T, _ *array, c *Client) {
				began := time.Now()
				err := read(within(t, 500*time.Millisecond), c)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, test.want)
				require.NotContains(t, err.Error(), "check address and port", "the array is there")
				require.Equal(t, test.after, time.Since(began), "it does not wait for what cannot come in time")
			})
		})
	}
	t.Run("a caller without a deadline", func(t *testing.T) {
		virtual(t, busy, func(t *testing.T, _ *array, c *Client) {
			began := time.Now()
			require.ErrorIs(t, read(t.Context(), c), context.DeadlineExceeded)
			require.InDelta(t, patience.Seconds(), time.Since(began).Seconds(), 5)
		})
	})
	t.Run("connections refused", func(t *testing.T) {
		virtual(t, nil, func(t *testing.T, _ *array, c *Client) {
			c.http.GetClient().Transport = counting{refusingConnections{}, &c.requests}
			err := read(within(t, 200*time.Millisecond), c)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, "nothing listens there")
			require.ErrorContains(t, err, "tried 2 times")
		})
	})
}

type refusingConnections struct{}

func (refusingConnections) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"", "0", "7", "-1", "99999999999999999999", "Sat, 21 Nov 2026 01:02:03 GMT", "1e9", "soon"} {
		f.Add(seed, "Sat, 21 Nov 2026 01:02:03 GMT")
		f.Add(seed, "yesterday")
	}
	f.Fuzz(func(t *testing.T, after, date string) {
		if d := retryAfter(http.Header{"Retry-After": {after}, "Date": {date}}); d > longestPause {
			t.Errorf("%q at %q asks for %s", after, date, d)
		}
	})
}
