package dateratest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"syscall"
)

// Transport carries requests to the cluster within the process: without sockets, so that it works in virtual time
// (testing/synctest), too. It does not look at the address; a client needs the scheme http and some name for a host.
//
// As on a line, a request that is being carried out when its caller gives up is carried out. Connections are refused,
// answers lost and cut off as the faults say.
func (s *Server) Transport() http.RoundTripper { return inProcess{s} }

type inProcess struct{ server *Server }

func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	sent, err := received(r)
	if err != nil {
		return nil, err
	}
	if t.server.refusedFor() > 0 {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	answered := make(chan *http.Response, 1)
	go func() { answered <- serve(t.server, sent) }()
	select {
	case answer := <-answered:
		if answer == nil {
			return nil, io.EOF
		}
		answer.Request = r
		return answer, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// received is a request as a server gets it: whole, with its target in a form of its own.
func received(r *http.Request) (*http.Request, error) {
	var body []byte
	if r.Body != nil {
		var err error
		body, err = io.ReadAll(r.Body)
		if err = errors.Join(err, r.Body.Close()); err != nil {
			return nil, err
		}
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	sent := r.Clone(r.Context())
	sent.Body = io.NopCloser(bytes.NewReader(body))
	sent.RequestURI = r.URL.RequestURI()
	if sent.Host == "" {
		sent.Host = r.URL.Host
	}
	return sent, nil
}

// serve returns what a handler wrote; if it broke the connection off, what it had flushed by then, or nil.
func serve(h http.Handler, r *http.Request) (answer *http.Response) {
	w := httptest.NewRecorder()
	defer func() {
		switch cause := recover(); {
		case cause == nil:
			answer = w.Result()
		case cause != any(http.ErrAbortHandler):
			panic(cause)
		case w.Flushed:
			answer = w.Result()
			answer.Body = io.NopCloser(io.MultiReader(answer.Body, brokenOff{}))
		}
	}()
	h.ServeHTTP(w, r)
	return nil
}

// brokenOff is the end of an answer that is not whole.
type brokenOff struct{}

func (brokenOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
