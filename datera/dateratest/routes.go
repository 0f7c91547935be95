package dateratest

import (
	"net/http"
	"path"
	"strings"
)

type handler func(*call) (any, error)

type route struct {
	pattern string
	body    string // name of the body's description
	handle  handler
	open    bool // needs no key
}

// operation is the word for a method in an error's "op".
var operation = map[string]string{"GET": "read", "POST": "create", "PUT": "update", "DELETE": "delete"}

// newRoutes builds the router. Its handlers only find the route; [Server.dispatch] runs it.
func newRoutes(s *Server) *http.ServeMux {
	mux := http.NewServeMux()
	described := bodies()
	for _, r := range table() {
		body := described[r.body]
		mux.Handle(r.pattern, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			w.(*dispatcher).run(req, r, body)
		}))
	}
	return mux
}

// dispatcher carries a call through the router.
type dispatcher struct {
	http.ResponseWriter
	call   *call
	answer any
	err    error
}

// dispatch finds the route of a call and runs it.
func (s *Server) dispatch(c *call, r *http.Request) (any, error) {
	if c.method == http.MethodGet && r.URL.Path == "/api_versions" {
		return bare{"api_versions": versionNames()}, nil
	}
	versionless := r.Clone(r.Context())
	versionless.URL.Path, versionless.URL.RawPath = c.path, strings.TrimPrefix(r.URL.EscapedPath(), "/"+c.dialect.api.String())
	_, pattern := s.routes.Handler(versionless)
	if c.dialect.api == 0 || pattern == "" || operation[c.method] == "" || c.path != path.Clean(c.path) {
		return nil, invalidRoute(r.Method, r.URL.Path)
	}
	d := &dispatcher{call: c}
	s.routes.ServeHTTP(d, versionless)
	return d.answer, d.err
}

// run checks the key, the tenant and the body, in this order, and lets the route do its work.
func (d *dispatcher) run(req *http.Request, r route, body property) {
	c := d.call
	c.variable = req.PathValue
	if c.below("/initiators") {
		c.variable = func(name string) string { return c.fold(req.PathValue(name)) }
	}
	d.err = func() error {
		if err := c.enter(r.open); err != nil {
			return err
		}
		if c.method != http.MethodGet {
			if err := body.check(c.dialect, "", c.body); err != nil {
				return err
			}
			c.force, _ = c.body["force"].(bool)
		}
		answer, err := r.handle(c)
		d.answer = answer
		return err
	}()
}

func versionNames() []string {
	var names []string
	for _, v := range versions {
		names = append(names, v.String())
	}
	return names
}
