package datera

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAbout(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status   int
		body     string
		versions []string
		says     string // "" for no error
	}{
		"an array":                   {200, `{"api_versions":["v2.1","v2.2"]}`, []string{"2.1", "2.2"}, ""},
		"one that does not say":      {404, `{"name":"InvalidRouteError","message":"no such route"}`, nil, ""},
		"an old one":                 {400, `{"name":"InvalidRequestError"}`, nil, ""},
		"an old one, in plain words": {400, "Bad Request", nil, ""},
		"one that wants a login":     {403, `{}`, nil, ""},
		"https on this port":         {400, "Client sent an HTTP request to an HTTPS server.\n", nil, "set the scheme to https"},
		"another server's page":      {400, "\n<html><h1>Bad Request</h1></html>", nil, "not an answer of the array's API"},
		"something else":             {404, `<html>not found</html>`, nil, "not an answer of the array's API"},
		"an answer that is no JSON":  {200, `[]`, nil, "cannot use the answer to GET"},
		"an error":                   {500, `{"name":"InternalError"}`, nil, "InternalError"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArray(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", "Sat, 21 Nov 2026 01:02:03 GMT")
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte(test.body))
			})
			a.anyKey = true
			c := a.client(t)
			about, err := c.About(t.Context())
			if test.says == "" {
				require.NoError(t, err)
				require.Equal(t, time.Date(2026, 11, 21, 1, 2, 3, 0, time.UTC), about.Clock)
			} else {
				require.ErrorContains(t, err, test.says)
			}
			require.Equal(t, test.versions, about.Versions)
			require.Len(t, a.calls, 1, "it logged in")
			require.Equal(t, "/api_versions", a.calls[0].Path)
		})
	}
}
