package dateratest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ServeHTTP answers one request of the REST API, or of the simulator's own /sim API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/sim" || strings.HasPrefix(r.URL.Path, "/sim/") {
		s.serveSim(w, r)
		return
	}
	if s.front == nil && s.refusedFor() > 0 {
		panic(http.ErrAbortHandler)
	}
	began := s.now()
	c, err := s.newCall(r)
	c.faults = s.faults.hit(c.method, c.path, began)
	if !c.faults.delay(r.Context()) {
		return
	}
	var text []byte
	switch {
	case c.faults.refuseFor > 0:
		s.refuseConnections(c.faults.refuseFor)
		panic(http.ErrAbortHandler)
	case c.faults.unavailable:
		s.write(w, c, http.StatusServiceUnavailable, []byte(`{"message":"the REST server is busy, try again later"}`))
		return
	case c.faults.answer != nil:
		s.writeFixed(w, c, c.faults.answer)
		return
	case err == nil:
		text, err = s.perform(c, r, began)
	}
	if c.faults.answerAfter != nil {
		s.writeFixed(w, c, c.faults.answerAfter)
		return
	}
	if err != nil {
		f := asFailure(err)
		s.write(w, c, f.http, encode(s.failureBody(c, f)))
		return
	}
	s.write(w, c, http.StatusOK, text)
}

// perform runs a call under the lock and, if it changed something, saves it and brings the data path in line before
// the client hears of it: an initiator that was taken from an ACL has lost its session when the answer arrives.
func (s *Server) perform(c *call, r *http.Request, began time.Time) ([]byte, error) {
	sessions := s.liveSessions(r.Context(), c.path)
	text, changed, err := func() ([]byte, bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		c.sessions = sessions
		if c.faults.expireKeys {
			clear(s.keys)
		}
		answer, err := s.dispatch(c, r)
		if err != nil {
			return nil, false, err
		}
		changed := c.changes()
		if changed {
			s.endPretence()
			if err := s.save(); err != nil {
				return nil, false, err
			}
		}
		return encode(s.envelope(c, answer, s.now().Sub(began))), changed, nil
	}()
	if changed {
		s.reconcile(r.Context())
	}
	return text, err
}

// save keeps the state; the caller holds s.mu.
func (s *Server) save() error {
	if err := s.store.save(s.cluster); err != nil {
		return internal(err)
	}
	return nil
}

func asFailure(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	return asFailure(internal(err))
}

// encode is for answers, which hold nothing that JSON does not have.
func encode(answer any) []byte {
	text, err := json.Marshal(answer)
	if err != nil {
		panic(fmt.Sprintf("encode an answer: %v", err))
	}
	return text
}

func (s *Server) envelope(c *call, answer any, took time.Duration) any {
	ms := took.Milliseconds()
	switch a := answer.(type) {
	case bare:
		if _, isLogin := a["key"]; isLogin || c.path == "/api" {
			a["version"], a["request_time"] = c.dialect.api.String(), ms
		}
		return a
	case entity:
		path := c.path
		if own, ok := a["path"].(string); ok {
			path = own
		}
		return entity{"tenant": c.tenant.Path, "path": path, "version": c.dialect.api.String(), "data": a, "request_time": ms}
	case metadataAnswer:
		return entity{"tenant": c.tenant.Path, "path": c.path, "version": c.dialect.api.String(), "data": a, "request_time": ms}
	case list:
		about := entity{"total_count": a.total, "request_count": len(a.items), "limit": a.limit, "offset": a.start}
		switch {
		case c.faults.noOffset:
			about = entity{"total": a.total}
		case c.dialect.api == v21:
			about["total"] = a.total
		}
		tenant := c.tenant.Path
		if c.all {
			tenant = allTenants
		}
		return entity{"tenant": tenant, "path": c.path, "version": c.dialect.api.String(), "data": a.items,
			"metadata": about, "request_time": ms}
	}
	return entity{}
}

// failureBody is the error envelope. Everything in params and connInfo is a string: the vendor's Go client
// loses the whole error otherwise.
func (s *Server) failureBody(c *call, f *failure) entity {
	v := c.dialect.api
	if v == 0 {
		v = versions[len(versions)-1]
	}
	details := f.details
	if details == nil {
		details = []string{}
	}
	return entity{"name": f.name, "code": f.code, "http": f.http, "message": f.message, "debug": "",
		"ts": s.now().UTC().Format(time.RFC3339), "version": v.String(), "op": operation[c.method], "tenant": firstOf(c.tenantHeader, rootTenant), "path": c.path,
		"params": entity{}, "connInfo": entity{}, "client_id": "", "client_type": "", "api_req_id": s.record.next(),
		"tenancy_class": "", "errors": details}
}

// writeFixed sends what a fault answers.
func (s *Server) writeFixed(w http.ResponseWriter, c *call, f *fixedAnswer) {
	contentType, text := f.body(s, c)
	w.Header().Set("Content-Type", contentType)
	if f.retryAfter != "" {
		w.Header().Set("Retry-After", f.retryAfter)
	}
	s.write(w, c, f.status, text)
}

// write sends the answer, unless a fault cuts it off or loses it.
func (s *Server) write(w http.ResponseWriter, c *call, status int, text []byte) {
	s.record.add(s.log, c, status)
	if c.faults.loseAnswer {
		panic(http.ErrAbortHandler)
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	if c.faults.cut && c.faults.cutAfter < len(text) {
		_, _ = w.Write(text[:c.faults.cutAfter])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(text)
}
