package datera

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func textLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// plain is a server without the array's login.
type plain struct{ *httptest.Server }

func newPlain(t testing.TB, h http.HandlerFunc) plain {
	s := plain{httptest.NewServer(h)}
	t.Cleanup(s.Close)
	return s
}

func (s plain) config() Config {
	return Config{Scheme: "http", Address: s.Listener.Addr().String(), Username: "admin", Password: password}
}

func TestBusyThenExpiredThenBusyAgain(t *testing.T) {
	t.Parallel()
	a := newArray(t, nil)
	a.answer = inTurn(always(map[string]any{}), busy, func(w http.ResponseWriter, r *http.Request) {
		a.expire()
		refuse(w, 401, "AuthFailedError", "expired")
	}, busy, always(appInstance("shop_db1")))
	c := a.client(t)
	require.NoError(t, read(t.Context(), c))
	before := c.Requests()
	ai, err := c.AppInstance(t.Context(), "shop_db1")
	require.NoError(t, err)
	require.Equal(t, "shop_db1", ai.Name)
	require.EqualValues(t, 5, c.Requests()-before, "503, 401, login, 503, 200")
}

func TestBusyLogin(t *testing.T) {
	t.Parallel()
	s := newPlain(t, inTurn(busy, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"key":"k"}`) }, always(map[string]any{})))
	c := connect(t, s.config())
	require.NoError(t, read(t.Context(), c))
	require.EqualValues(t, 3, c.Requests())
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	c := newArray(t, func(w http.ResponseWriter, r *http.Request) { cancel(); busy(w, r) }).client(t)
	require.ErrorIs(t, read(ctx, c), context.Canceled)
}

// Not parallel: the port must stay free until the array comes back on it.
func TestConnectionRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	config := Config{Scheme: "http", Address: address, Username: "admin", Password: password}

	// The array comes back while the client waits.
	tried := make(chan struct{}, 1)
	config.Logger = slog.New(slog.NewTextHandler(writing(func([]byte) {
		select {
		case tried <- struct{}{}:
		default:
		}
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := connect(t, config)
	done := make(chan error, 1)
	ctx := t.Context()
	go func() { done <- read(ctx, c) }()
	<-tried // in vain
	a := newArray(t, always(map[string]any{}))
	l, err = net.Listen("tcp", address)
	require.NoError(t, err)
	back := &http.Server{Handler: a}
	go func() { _ = back.Serve(l) }()
	defer back.Close()
	require.NoError(t, <-done)
	require.GreaterOrEqual(t, c.Requests(), int64(3))
}

type writing func([]byte)

func (w writing) Write(p []byte) (int, error) { w(p); return len(p), nil }

func TestLostAnswers(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]http.HandlerFunc{
		"connection closed": hangUp,
		"body cut off":      cutShort,
		"JSON cut off":      func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"data":{"name":"v`) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Run("read", func(t *testing.T) {
				require.NoError(t, read(t.Context(), newArray(t, inTurn(lose, lose, always(map[string]any{}))).client(t)))
			})
			t.Run("change", func(t *testing.T) {
				a := newArray(t, inTurn(lose, lose, always(map[string]any{})))
				require.NoError(t, a.client(t).SetMetadata(t.Context(), "shop_db1", nil))
				require.Len(t, a.recorded(), 3)
			})
			t.Run("for ever", func(t *testing.T) {
				t.Parallel()
				a := newArray(t, lose)
				err := a.client(t).SetMetadata(t.Context(), "shop_db1", nil)
				require.ErrorIs(t, err, errLost)
				require.ErrorContains(t, err, "the connection broke")
				require.Len(t, a.recorded(), 1+repetitions)
			})
			t.Run("create, which was carried out", func(t *testing.T) {
				a := newArray(t, inTurn(lose, always(appInstance("shop_db1"))))
				ai, created, err := a.client(t).CreateAppInstance(t.Context(), AppInstanceRequest{Name: "shop_db1", SizeGiB: 1})
				require.NoError(t, err)
				require.False(t, created, "whose it is cannot be known")
				require.Equal(t, "shop_db1", ai.Name)
				require.Equal(t, []string{"POST", "GET"}, methods(a))
			})
			t.Run("create, which was not", func(t *testing.T) {
				a := newArray(t, inTurn(lose, refusing(404, "NotFoundError", "does not exist"), always(appInstance("shop_db1"))))
				_, created, err := a.client(t).CreateAppInstance(t.Context(), AppInstanceRequest{Name: "shop_db1", SizeGiB: 1})
				require.NoError(t, err)
				require.True(t, created)
				require.Equal(t, []string{"POST", "GET", "POST"}, methods(a))
			})
			t.Run("create, never", func(t *testing.T) {
				a := newArray(t, func(w http.ResponseWriter, r *http.Request) {
					if r.Method == post {
						lose(w, r)
						return
					}
					refuse(w, 404, "NotFoundError", "does not exist")
				})
				_, _, err := a.client(t).CreateAppInstance(t.Context(), AppInstanceRequest{Name: "shop_db1", SizeGiB: 1})
				require.ErrorIs(t, err, errLost)
				require.ErrorContains(t, err, "does not exist")
				require.Equal(t, []string{"POST", "GET", "POST", "GET"}, methods(a))
			})
			t.Run("performance policy", func(t *testing.T) {
				a := newArray(t, inTurn(lose, always(map[string]any{})))
				require.NoError(t, a.client(t).SetPerformancePolicy(t.Context(), volPath, PerformancePolicy{TotalIOPSMax: 5}))
				require.Equal(t, []string{"POST", "PUT"}, methods(a))
			})
		})
	}
	t.Run("empty answer to a create", func(t *testing.T) {
		a := newArray(t, inTurn(func(http.ResponseWriter, *http.Request) {}, always(appInstance("shop_db1"))))
		_, created, err := a.client(t).CreateAppInstance(t.Context(), AppInstanceRequest{Name: "shop_db1", SizeGiB: 1})
		require.NoError(t, err)
		require.False(t, created)
	})
}

func methods(a *array) (methods []string) {
	for _, c := range a.recorded() {
		methods = append(methods, c.Method)
	}
	return methods
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	var followed atomic.Bool
	other := newPlain(t, func(http.ResponseWriter, *http.Request) { followed.Store(true) })
	a := newArray(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/elsewhere", http.StatusFound)
	})
	err := read(t.Context(), a.client(t))
	require.ErrorContains(t, err, other.URL+"/elsewhere")
	require.ErrorContains(t, err, "not followed")
	require.False(t, followed.Load())
}

// Looked at rather than tried: Go reads the environment's proxy once per process and never for loopback addresses.
func TestProxyIsNotUsed(t *testing.T) {
	t.Parallel()
	c := newArray(t, nil).client(t)
	require.Nil(t, c.http.GetClient().Transport.(counting).next.(*http.Transport).Proxy)
}

func TestBodyIsBounded(t *testing.T) {
	t.Parallel()
	a := newArray(t, func(w http.ResponseWriter, _ *http.Request) {
		for range bodyLimit>>20 + 1 {
			_, _ = w.Write(bytes.Repeat([]byte(" "), 1<<20))
		}
	})
	require.ErrorContains(t, read(t.Context(), a.client(t)), "larger than 16 MiB")
}

func TestNotTheArray(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"page":         {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>hello</html>") }, "is this the array's API?"},
		"other JSON":   {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"hello":1}`) }, "holds no data"},
		"null":         {always(nil), "holds no data"},
		"other type":   {always("text"), "cannot use the answer to GET http://"},
		"missing page": {http.NotFound, "404 Not Found: 404 page not found; this is not an answer of the array's API: check address and port"},
		"version":      {refusing(400, "UnsupportedVersionError", "no v2.2"), "does not speak API version 2.2"},
	} {
		t.Run(name, func(t *testing.T) {
			err := read(t.Context(), newArray(t, test.answer).client(t))
			require.ErrorContains(t, err, test.want)
			require.NotErrorIs(t, err, ErrNotFound, "only the array can say so")
		})
	}
}

func TestTransportHints(t *testing.T) {
	t.Parallel()
	c := newArray(t, nil).client(t)
	for want, err := range map[string]error{
		"has no way there":      &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)},
		"nothing answered":      &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded},
		"the connection broke":  io.ErrUnexpectedEOF,
		"nothing listens there": &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)},
	} {
		require.ErrorContains(t, c.transportError(request{method: get}, err), want)
	}
	require.NotErrorIs(t, c.transportError(request{method: post}, &net.OpError{Op: "dial", Err: io.EOF}), errLost, "nothing was sent")
}

// A secret is in no error and no log, even if the array repeats what it was sent.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	chap := Auth{Type: AuthMutualCHAP, TargetUserName: "host", TargetPassword: `canary-"chap"&1`, InitiatorUserName: "array", InitiatorPassword: "canary-chap-2"}
	for name, echo := range map[string]http.HandlerFunc{
		"in the error": func(w http.ResponseWriter, r *http.Request) {
			refuse(w, 422, "ValidationFailedError "+chap.TargetPassword, chap.InitiatorPassword+" "+r.Header.Get("Auth-Token")+password+chap.TargetPassword)
		},
		"in the details": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(400)
			_ = json.NewEncoder(w).Encode(map[string]any{"message": map[string]string{"target_pswd": chap.TargetPassword}, "errors": []any{r.Header, chap.InitiatorPassword, password}})
		},
		"as text": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, r.Header.Get("Auth-Token")+` "`+chap.TargetPassword+chap.InitiatorPassword+`" canary-\"chap\"`+"\\u00261", 400)
		},
		"as broken http": func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			fmt.Fprintf(conn, "%s %s %s\r\n\r\n", r.Header.Get("Auth-Token"), chap.InitiatorPassword, password)
			conn.Close()
		},
		"in a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://evil.example/?"+password+r.Header.Get("Auth-Token")+chap.InitiatorPassword, http.StatusTemporaryRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArray(t, inTurn(busy, echo))
			config, _ := cached(t, a)
			var log bytes.Buffer
			config.Logger = textLog(&log)
			c := connect(t, config)
			errs := []error{c.SetAuth(t.Context(), siPath, chap)}
			_, _, err := c.CreateAppInstance(t.Context(), AppInstanceRequest{Name: "shop_db1", SizeGiB: 1, Auth: chap})
			errs = append(errs, err, a.client(t).SetAuth(t.Context(), siPath, chap))
			for _, err := range errs {
				require.Error(t, err)
				require.NotContains(t, err.Error(), "canary")
			}
			require.NotContains(t, log.String(), "canary")
			require.Contains(t, log.String(), "request to the array", "the log is on")
		})
	}
	for _, v := range []any{chap, newArray(t, nil).config()} {
		require.NotContains(t, fmt.Sprintf("%v %+v", v, v), "canary")
		text, _ := json.Marshal(v)
		require.NotContains(t, string(text), "canary")
	}
}
