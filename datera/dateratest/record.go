package dateratest

import (
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"sync"
)

// maxRecord bounds the memory of a cluster that runs for long; the oldest calls are forgotten.
const maxRecord = 10_000

// Request is one call that a client made. No password is in it.
type Request struct {
	Method  string         `json:"method"`
	Version string         `json:"version"` // "v2.2"; "" if the path has none
	Path    string         `json:"path"`    // without the version
	Query   string         `json:"query,omitempty"`
	Tenant  string         `json:"tenant,omitempty"` // the header, "" if it was not sent
	Body    map[string]any `json:"body,omitempty"`
	Status  int            `json:"status"`
	Lost    bool           `json:"lost,omitempty"` // the client did not get the answer, or only a part
}

// String is short and good for comparing, such as "PUT /login 200".
func (r Request) String() string {
	return r.Method + " " + r.Path + " " + strconv.Itoa(r.Status)
}

type requestLog struct {
	mu    sync.Mutex
	list  []Request
	count int
}

func (l *requestLog) next() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count + 1
}

func (l *requestLog) add(log *slog.Logger, c *call, status int) {
	version := ""
	if c.dialect.api != 0 {
		version = c.dialect.api.String()
	}
	r := Request{Method: c.method, Version: version, Path: c.path, Query: c.query.Encode(), Tenant: c.tenantHeader, Status: status,
		Lost: c.faults.loseAnswer || c.faults.cut}
	switch {
	case c.path == "/login": // a form gone wrong can have the password for a name
		if name, given := c.body["name"]; given {
			r.Body, _ = withoutSecrets(map[string]any{"name": name}).(map[string]any)
		}
	case len(c.body) > 0:
		r.Body, _ = withoutSecrets(c.body).(map[string]any)
	}
	about := []any{"method", r.Method, "path", r.Path, "query", r.Query, "tenant", r.Tenant, "status", status}
	if status < http.StatusBadRequest { // of what was refused it is not known what is secret
		about = append(about, "body", r.Body)
	}
	log.Debug("request", about...)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	if len(l.list) == maxRecord {
		l.list = append([]Request(nil), l.list[maxRecord/2:]...)
	}
	l.list = append(l.list, r)
}

// plainName is what names of properties look like. What does not may be anything, a whole body with a password in it, too.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_.:\-]{1,64}$`)

// withoutSecrets copies a decoded body and leaves out every password, and what has no name that could tell one.
func withoutSecrets(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, member := range v {
			switch name {
			case "password", "initiator_pswd", "target_pswd", "auth_pass", "encr_pass", "secret_key", "private_key":
			default:
				if plainName.MatchString(name) {
					out[name] = withoutSecrets(member)
				}
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = withoutSecrets(item)
		}
		return out
	}
	return v
}

// Requests are the calls since the start or the last [Server.ResetRequests], oldest first.
func (s *Server) Requests() []Request {
	s.record.mu.Lock()
	defer s.record.mu.Unlock()
	return append([]Request{}, s.record.list...)
}

// ResetRequests forgets the calls that were made.
func (s *Server) ResetRequests() {
	s.record.mu.Lock()
	defer s.record.mu.Unlock()
	s.record.list = nil
}
