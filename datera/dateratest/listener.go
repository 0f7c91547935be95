package dateratest

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// listener is a TCP listener that can refuse connections for a while.
type listener struct {
	address net.Addr
	mu      sync.Mutex
	inner   net.Listener
	conns   map[net.Conn]struct{}
	opened  chan struct{} // closed while connections are accepted
	done    chan struct{}
}

func listen(address string) (*listener, error) {
	inner, err := net.Listen("tcp", address)
	if err != nil {
		return nil, listenError(address, err)
	}
	l := &listener{address: inner.Addr(), inner: inner, conns: map[net.Conn]struct{}{}, opened: make(chan struct{}), done: make(chan struct{})}
	close(l.opened)
	return l, nil
}

// Accept waits out the times in which connections are refused.
func (l *listener) Accept() (net.Conn, error) {
	for {
		l.mu.Lock()
		inner, opened := l.inner, l.opened
		l.mu.Unlock()
		select {
		case <-opened:
		case <-l.done:
			return nil, net.ErrClosed
		}
		conn, err := inner.Accept()
		if err == nil {
			return l.track(conn), nil
		}
		select {
		case <-l.done:
			return nil, net.ErrClosed
		default:
		}
		if !errors.Is(err, net.ErrClosed) {
			return nil, err
		}
	}
}

func (l *listener) track(c net.Conn) net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &trackedConn{c, l}
	l.conns[t] = struct{}{}
	return t
}

type trackedConn struct {
	net.Conn
	owner *listener
}

func (c *trackedConn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.conns, c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}

// refuse closes the listener and all its connections, and listens again after a while.
func (l *listener) refuse(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.opened:
	default:
		return // refusing already
	}
	opened := make(chan struct{})
	l.opened = opened
	_ = l.inner.Close()
	for c := range l.conns {
		_ = c.(*trackedConn).Conn.Close()
	}
	go l.reopen(d, opened)
}

func (l *listener) reopen(d time.Duration, opened chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.done:
		return
	}
	inner, err := backoff.Retry(ctx, func() (net.Listener, error) {
		select {
		case <-l.done:
			return nil, backoff.Permanent(net.ErrClosed)
		default:
			return net.Listen("tcp", l.address.String())
		}
	}, backoff.WithBackOff(backoff.NewConstantBackOff(20*time.Millisecond)), backoff.WithMaxElapsedTime(0))
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.done:
		_ = inner.Close()
	default:
		l.inner = inner
		close(opened)
	}
}

// Close is for http.Server; close does the work, once.
func (l *listener) Close() error {
	l.close()
	return nil
}

func (l *listener) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.done:
	default:
		close(l.done)
		_ = l.inner.Close()
	}
}

func (l *listener) Addr() net.Addr { return l.address }

// Listen answers on host:port, by TLS if a configuration is given. It returns at once; [Server.Close] ends it.
func (s *Server) Listen(address string, secure *tls.Config) error {
	front, err := listen(address)
	if err != nil {
		return err
	}
	scheme, serving := "http", net.Listener(front)
	if secure != nil {
		scheme, serving = "https", tls.NewListener(front, secure)
	}
	s.front, s.URL = front, scheme+"://"+front.address.String()
	s.web = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(errorLog{s}, "", 0),
		BaseContext: func(net.Listener) context.Context { return s.data.life }}
	s.finished = make(chan struct{})
	go func() {
		defer close(s.finished)
		_ = s.web.Serve(serving)
	}()
	if left := s.refusedFor(); left > 0 {
		front.refuse(left)
	}
	return nil
}

// refuseConnections closes the listener for a while.
func (s *Server) refuseConnections(d time.Duration) {
	s.mu.Lock()
	s.refused = s.now().Add(d)
	s.mu.Unlock()
	if s.front != nil {
		s.front.refuse(d)
	}
}

// refusedFor is how long connections are still refused. Who comes without a listener finds his connection broken.
func (s *Server) refusedFor() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused.Sub(s.now())
}

// errorLog passes on what net/http complains about.
type errorLog struct{ s *Server }

func (l errorLog) Write(p []byte) (int, error) {
	l.s.log.Debug("http server", "message", string(p))
	return len(p), nil
}
