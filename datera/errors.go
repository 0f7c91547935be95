package datera

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"github.com/go-resty/resty/v2"
)

// Sentinels for errors.Is.
var (
	// ErrNotFound: the array has no such entity.
	ErrNotFound = errors.New("not found on the array")
	// ErrConflict: the array has such an entity already.
	ErrConflict = errors.New("conflicts with what is on the array")
	// ErrRefused: the array does not do what was asked, in this way or for this user.
	ErrRefused = errors.New("refused by the array")

	errLost    = errors.New("the connection broke before the whole answer was there")
	errNoData  = errors.New("the answer holds no data: is this the array's API?")
	errUnclear = errors.New("cannot use the answer")
)

// APIError is an answer of the array other than success.
type APIError struct {
	Method, Server, Path string // Path with the API version
	Tenant               string
	Status               int      // of HTTP
	Name                 string   // the array's class of error, for instance NotFoundError
	Code                 string   // the array's number within the class
	Message              string   // the array's text, or what this client makes of an answer that is not the array's
	Details              []string // the array's further texts
}

func (e *APIError) Error() string {
	text := fmt.Sprintf("%s %s%s: %d %s", e.Method, e.Server, e.Path, e.Status, cmp.Or(e.Name, http.StatusText(e.Status)))
	if e.Message != "" {
		text += ": " + e.Message
	}
	if len(e.Details) > 0 {
		text += " (" + strings.Join(e.Details, "; ") + ")"
	}
	if e.Tenant != "" && e.Tenant != "/root" {
		text += ", in tenant " + e.Tenant
	}
	return text
}

// Is makes the sentinels match.
//
// Only the array itself can say that something is not there: a 404 without the name of an error comes from
// a proxy or another server, and one with InvalidRouteError from an array that does not know the URL.
// To take those for "gone" would leave a host with access to a volume.
func (e *APIError) Is(target error) bool {
	switch target {
	case ErrNotFound:
		return e.Status == http.StatusNotFound && e.Name != "" && e.Name != "InvalidRouteError"
	case ErrConflict:
		return e.Status == http.StatusConflict
	case ErrRefused:
		// A 401 is about the session, unless it says otherwise.
		return slices.Contains([]int{http.StatusBadRequest, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusUnprocessableEntity}, e.Status) ||
			e.Status == http.StatusUnauthorized && e.Name == "PermissionDeniedError"
	case errLost:
		return e.Status == http.StatusBadGateway || e.Status == http.StatusGatewayTimeout
	}
	return false
}

// IsNotFound says that the array has no such entity.
func IsNotFound(err error) bool { return errors.Is(err, ErrNotFound) }

// IsConflict says that the array has such an entity already.
func IsConflict(err error) bool { return errors.Is(err, ErrConflict) }

// IsAuth says that the array did not accept the user, the password or the session.
func IsAuth(err error) bool {
	var e *APIError
	return errors.As(err, &e) && e.Status == http.StatusUnauthorized
}

// isFault says that the array found fault with the request itself.
func isFault(err error) bool {
	var e *APIError
	return errors.As(err, &e) && (e.Status == http.StatusBadRequest || e.Status == http.StatusUnprocessableEntity)
}

// isRefusal says that the array found fault with the request itself, or with what is there already.
func isRefusal(err error) bool { return isFault(err) || IsConflict(err) }

// Lengths, in characters, to which foreign text in errors is cut.
const (
	maxMessage = 400
	maxDetail  = 200
	maxDetails = 5
	maxName    = 60
)

// apiError reads the array's error document as far as it can be read: any field may be absent or of another type.
func (c *Client) apiError(r request, a answer) *APIError {
	e := &APIError{Method: r.method, Server: c.server, Path: strings.TrimPrefix(c.url(r), c.server), Tenant: r.tenant, Status: a.status}
	var fields map[string]json.RawMessage
	if json.Unmarshal(a.body, &fields) == nil {
		e.Name = c.foreign(r, fields["name"], maxName)
		e.Code = c.foreign(r, fields["code"], maxName)
		e.Message = c.foreign(r, fields["message"], maxMessage)
		var details []json.RawMessage
		_ = json.Unmarshal(fields["errors"], &details)
		for _, d := range details[:min(len(details), maxDetails)] {
			if text := c.foreign(r, d, maxDetail); text != "" {
				e.Details = append(e.Details, text)
			}
		}
	} else {
		e.Message = c.foreign(r, a.body, maxDetail)
	}
	if hint := c.answerHint(r, e, a, fields != nil); hint != "" {
		e.Message = strings.TrimPrefix(e.Message+"; "+hint, "; ")
	}
	return e
}

func (c *Client) answerHint(r request, e *APIError, a answer, isJSON bool) string {
	switch {
	case a.status >= 300 && a.status < 400:
		return fmt.Sprintf("the server redirects to %q, which is not followed: check scheme, address and port", printable(c.redact(r, a.header.Get("Location")), maxDetail))
	case e.Name == "UnsupportedVersionError":
		return fmt.Sprintf("the array does not speak API version 2.%d: set another", c.minor)
	case !isJSON && a.status == http.StatusBadRequest && bytes.Contains(bytes.ToUpper(a.body), []byte("HTTPS")):
		return "the server speaks https on this port: set the scheme to https, or the port of plain http (7717 by default)"
	case a.status == http.StatusBadGateway || a.status == http.StatusGatewayTimeout:
		return "a proxy before the array got no answer from it"
	case !isJSON && a.status != http.StatusServiceUnavailable && a.status != http.StatusTooManyRequests:
		return "this is not an answer of the array's API: check address and port"
	}
	return ""
}

// foreign makes text of the array's fit for an error: a JSON string as it is, anything else as it is written.
func (c *Client) foreign(r request, raw []byte, length int) string {
	var text string
	if json.Unmarshal(raw, &text) != nil && !bytes.Equal(raw, []byte("null")) {
		text = string(raw)
	}
	return printable(c.redact(r, text), length)
}

// redact hides the secrets of a request, plain or as JSON writes them.
func (c *Client) redact(r request, text string) string {
	for _, secret := range append([]string{c.config.Password, r.key}, r.secrets...) {
		if secret == "" {
			continue
		}
		quoted, _ := json.Marshal(secret)
		for _, s := range []string{secret, strings.Trim(string(quoted), `"`), url.QueryEscape(secret)} {
			text = strings.ReplaceAll(text, s, "(hidden)")
		}
	}
	return text
}

// printable strips control characters and cuts to length.
func printable(text string, length int) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }), " ")
	if runes := []rune(text); len(runes) > length {
		return string(runes[:length]) + "…"
	}
	return text
}

// transportError is a request that got no answer. Its text is free of secrets, whatever the cause's holds.
type transportError struct {
	text  string
	cause error
	lost  bool
}

func (e *transportError) Error() string        { return e.text }
func (e *transportError) Unwrap() error        { return e.cause }
func (e *transportError) Is(target error) bool { return target == errLost && e.lost }

func (c *Client) transportError(r request, err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // it repeats method and URL
	}
	e := &transportError{cause: err, lost: isLost(err)}
	if hint := c.certificateHint(err); hint != "" {
		e.text = fmt.Sprintf("%s: %s", c.name(r), hint)
		return e
	}
	e.text = fmt.Sprintf("%s: %s", c.name(r), printable(c.redact(r, err.Error()), maxMessage))
	if hint := c.transportHint(err); hint != "" {
		e.text += ": " + hint
	}
	return e
}

// isLost says that a request may have been carried out although no whole answer came.
func isLost(err error) bool {
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
		return false
	}
	for _, broken := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed} {
		if errors.Is(err, broken) {
			return true
		}
	}
	return strings.Contains(err.Error(), "server closed idle connection")
}

// transportHint says what to do about a request that got no answer.
func (c *Client) transportHint(err error) string {
	var (
		record  tls.RecordHeaderError
		dns     *net.DNSError
		timeout net.Error
		text    = err.Error()
	)
	switch {
	case errors.Is(err, http.ErrSchemeMismatch):
		return "the server speaks plain http on this port: set the scheme to http, or the port of https (7718 by default)"
	case strings.Contains(text, `malformed HTTP response "\x15\x03`):
		return "the server speaks https on this port: set the scheme to https, or the port of plain http (7717 by default)"
	case errors.As(err, &record), strings.Contains(text, "malformed HTTP"):
		return "what listens there is not the array's API: check address and port"
	case errors.As(err, &dns):
		return "this host cannot resolve the name: check the array's address and DNS"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: check address and port, or the array's management service is down"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "this host has no way there: check address, routes and firewall"
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("nothing answered within %s: check address, routes and firewall", dialTimeout)
	case errors.Is(err, resty.ErrResponseBodyTooLarge):
		return fmt.Sprintf("the answer is larger than %d MiB, so it was not read: is this the array's API, or does it hold too many objects for one answer?", bodyLimit>>20)
	case isLost(err):
		return errLost.Error()
	}
	return ""
}
