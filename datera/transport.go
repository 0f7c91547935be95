package datera

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/go-resty/resty/v2"
)

const (
	dialTimeout = 10 * time.Second
	bodyLimit   = 16 << 20 // bytes; a list of a thousand app instances is far below
	repetitions = 2        // of an idempotent request whose answer was lost
)

func newHTTP(config Config, requests *atomic.Int64) (*resty.Client, error) {
	transport := config.Transport
	if transport == nil {
		var err error
		if transport, err = newTransport(config); err != nil {
			return nil, err
		}
	}
	client := resty.NewWithClient(&http.Client{
		Transport: counting{transport, requests},
		// A redirect could carry the session key to another host, so none is followed.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	})
	// Resty's own retry is off: it knows neither sessions nor which answers may be lost. So is its log.
	return client.SetResponseBodyLimit(bodyLimit).SetLogger(silent{}), nil
}

func newTransport(config Config) (*http.Transport, error) {
	trust, err := newTLS(config)
	if err != nil {
		return nil, err
	}
	return &http.Transport{
		// No proxy, whatever the environment says: the management network is a direct one, and a proxy that
		// is meant for the way to the internet would see the password.
		Proxy:               nil,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		TLSClientConfig:     trust,
		IdleConnTimeout:     time.Minute,
		MaxIdleConnsPerHost: 8,
	}, nil
}

type counting struct {
	next     http.RoundTripper
	requests *atomic.Int64
}

func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.requests.Add(1)
	return c.next.RoundTrip(r)
}

type silent struct{}

func (silent) Errorf(string, ...any) {}
func (silent) Warnf(string, ...any)  {}
func (silent) Debugf(string, ...any) {}

type answer struct {
	status int
	header http.Header
	body   []byte
}

// send makes a request until the array answers anything but "not now", without looking into the answer. Repeated are: what
// was not carried out, until ctx ends (503, 429, an array that starts, and a refused connection while it fails over); an
// idempotent request to which a proxy had no answer, until ctx ends; and one whose answer was lost, twice.
func (c *Client) send(ctx context.Context, r request) (answer, error) {
	started, lost := time.Now(), 0
	delays := backoff.ExponentialBackOff{InitialInterval: 100 * time.Millisecond, Multiplier: 2, MaxInterval: 5 * time.Second}
	for tries := 1; ; tries++ {
		a, err := c.once(ctx, r)
		switch {
		case ctx.Err() != nil && err != nil:
			outlast(r)
			return answer{}, fmt.Errorf("%s: no answer; tried %d times in %s: %w", c.name(r), tries, since(started), ctx.Err())
		case err == nil && !c.passes(r, a):
			return a, nil
		case err == nil:
			err = c.apiError(r, a)
		case errors.Is(err, errLost) && r.method != post && lost < repetitions:
			lost++
		case !errors.Is(err, syscall.ECONNREFUSED):
			outlast(r)
			return answer{}, err
		}
		c.log.Debug("request to the array will be repeated", "method", r.method, "path", r.at.path, "tries", tries, "err", err)
		if cause := wait(ctx, max(delays.NextBackOff(), retryAfter(a.header))); cause != nil {
			return answer{}, fmt.Errorf("%w; tried %d times in %s: %w", err, tries, since(started), cause)
		}
	}
}

// passes says that the array, or a proxy before it, has only no time for the request now.
func (c *Client) passes(r request, a answer) bool {
	switch a.status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return true
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return r.method != post // it may have been carried out
	case http.StatusInternalServerError: // python-sdk, src/dfs_sdk/connection.py
		return strings.Contains(c.apiError(r, a).Message, "still initializing")
	}
	return false
}

// longestPause bounds for how long the array may ask to be left alone.
const longestPause = 20 * time.Second

// retryAfter is when the array asks to be asked again: in so many seconds, or at a time by its own clock.
func retryAfter(header http.Header) time.Duration {
	text := header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, longestPause)
	}
	then, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return min(then.Sub(now), longestPause)
}

// late is how long after it was given up the array may carry out a change.
const late = time.Second

// outlast waits until a change that was given up, or whose answer was lost, is carried out or never will be: its caller may
// take it back, or let another caller come, and must not be overtaken by it.
func outlast(r request) {
	if r.method != get {
		<-time.After(late)
	}
}

func since(t time.Time) time.Duration { return time.Since(t).Round(time.Millisecond) }

// wait lets d pass. It returns at once when ctx would end before, so that the caller has the rest of its time.
func wait(ctx context.Context, d time.Duration) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return context.DeadlineExceeded
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// once makes one HTTP request.
func (c *Client) once(ctx context.Context, r request) (answer, error) {
	started := time.Now()
	req := c.http.R().SetContext(ctx).SetHeader("Accept", "application/json").SetQueryParamsFromValues(r.query)
	for name, value := range map[string]string{"Auth-Token": r.key, "tenant": r.tenant, "Datera-Driver": c.config.Driver, "User-Agent": c.config.Driver} {
		if value != "" {
			req.SetHeader(name, value)
		}
	}
	if r.body != nil {
		body, err := json.Marshal(r.body)
		if err != nil {
			return answer{}, err
		}
		req.SetHeader("Content-Type", "application/json").SetBody(body)
	}
	res, err := req.Execute(r.method, c.url(r))
	if err != nil {
		return answer{}, c.transportError(r, err)
	}
	c.log.Debug("request to the array", "method", r.method, "path", r.at.path, "tenant", r.tenant, "status", res.StatusCode(), "took", since(started))
	if res.IsSuccess() && cutOff(res.Body()) {
		return answer{}, c.transportError(r, io.ErrUnexpectedEOF)
	}
	return answer{status: res.StatusCode(), header: res.Header(), body: res.Body()}, nil
}

func (c *Client) url(r request) string {
	if r.unversioned {
		return c.server + r.at.path
	}
	return fmt.Sprintf("%s/v2.%d%s", c.server, c.minor, r.at.path)
}

// name is how a request appears in messages.
func (c *Client) name(r request) string { return r.method + " " + c.url(r) }

// read judges an answer and decodes its data.
func (c *Client) read(r request, a answer, out any) error {
	if a.status < 200 || a.status > 299 {
		return c.apiError(r, a)
	}
	if out == nil {
		return nil
	}
	if err := decode(a.body, out); err != nil {
		return c.unclear(r, err)
	}
	return nil
}

// unclear is an answer that is not about what was asked, or does not say it.
func (c *Client) unclear(r request, err error) error {
	return fmt.Errorf("%w to %s: %w", errUnclear, c.name(r), err)
}
