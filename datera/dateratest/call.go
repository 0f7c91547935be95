package dateratest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	maxBody   = 1 << 20  // far more than any body of the API needs
	maxUpload = 64 << 20 // of logs
)

// call is one request on its way through the cluster. Handlers run with Server.mu held.
type call struct {
	*Server
	method, path string // path without the version
	dialect      dialect
	tenant       *tenant
	all          bool // the list is over all tenants
	user         string
	key          string
	at           time.Time
	query        url.Values
	variable     func(string) string
	raw          []byte
	body         map[string]any
	force        bool
	faults       effects
	tenantHeader string
	sessions     map[string][]string // live iSCSI sessions: initiators by target IQN
}

// entity is a thing of the cluster as JSON.
type entity = map[string]any

// bare is an answer without the data envelope.
type bare map[string]any

// list is an answer with many entities, already filtered and cut to a page.
type list struct {
	items []entity
	total int
	limit int
	start int
}

// newCall reads the request. Bodies of GET requests are ignored: the vendor's Go client sends some.
func (s *Server) newCall(r *http.Request) (*call, error) {
	v, first, rest := splitVersion(r.URL.Path)
	c := &call{Server: s, method: r.Method, path: rest, dialect: dialect{v, atLeast(s.options.SoftwareVersion, 3, 3)},
		at: s.now(), query: r.URL.Query(), key: r.Header.Get("Auth-Token"), tenantHeader: r.Header.Get("tenant"), body: entity{}}
	if v == 0 {
		c.path = r.URL.Path
	}
	limit := maxBody
	if c.path == uploadPath {
		limit = maxUpload
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, int64(limit)+1))
	switch {
	case err != nil:
		return c, refused("read the request body: %v", err)
	case len(raw) > limit:
		return c, refused("request body is longer than %d bytes", limit)
	case v == 0 && looksLikeVersion(first):
		return c, unsupportedVersion(first)
	case r.Method == http.MethodGet:
		return c, nil
	}
	return c, c.takeBody(r.Header.Get("Content-Type"), raw)
}

// takeBody reads a body by what it is: curl calls JSON a form unless it is told not to. What begins like JSON is JSON.
func (c *call) takeBody(contentType string, raw []byte) error {
	looksLikeJSON := bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) || bytes.HasPrefix(bytes.TrimSpace(raw), []byte("["))
	kind, details, _ := mime.ParseMediaType(contentType)
	switch {
	case kind == "multipart/form-data":
		return c.takeMultipart(raw, details["boundary"])
	case kind == "application/x-www-form-urlencoded" && !looksLikeJSON && c.path == "/login":
		return c.takeForm(string(raw))
	}
	return c.takeJSON(raw)
}

func looksLikeVersion(s string) bool {
	return len(s) > 1 && s[0] == 'v' && s[1] >= '0' && s[1] <= '9'
}

func (c *call) takeJSON(raw []byte) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		c.raw = []byte("{}")
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if err := decoder.Decode(&c.body); err != nil || c.body == nil {
		c.body = entity{}
		return refused("request body is not a JSON object")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		c.body = entity{}
		return refused("request body has something after its JSON object")
	}
	c.raw = raw
	return nil
}

// takeForm makes a form look like JSON. Only a login comes as one.
func (c *call) takeForm(raw string) error {
	form, err := url.ParseQuery(raw)
	if err != nil {
		return refused("request body is not a form")
	}
	return c.takeFields(form)
}

// takeMultipart takes the fields of a form with files, and of each file its size. Only logs are uploaded so.
func (c *call) takeMultipart(raw []byte, boundary string) error {
	form, err := multipart.NewReader(bytes.NewReader(raw), boundary).ReadForm(maxUpload)
	if err != nil {
		return refused("request body is not a form with files")
	}
	for name, files := range form.File {
		form.Value[name] = []string{strconv.FormatInt(files[0].Size, 10)}
	}
	return c.takeFields(form.Value) // all of it is in memory: nothing to remove
}

func (c *call) takeFields(form map[string][]string) (err error) {
	for name, values := range form {
		c.body[name] = values[0]
	}
	c.raw, err = json.Marshal(c.body)
	return err
}

// bind fills a struct from the body, which has been checked against its schema before.
func (c *call) bind(into any) error {
	if err := json.Unmarshal(c.raw, into); err != nil {
		return invalid("", "%v", err)
	}
	return nil
}

// given tells whether the body has a property.
func (c *call) given(name string) bool {
	_, ok := c.body[name]
	return ok
}
