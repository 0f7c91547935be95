package datera

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// About is what the array says without a login.
type About struct {
	Versions []string  // of the API that it speaks: "2.1", "2.2"; none when it does not say
	Clock    time.Time // the array's, to the second; zero when it does not say
}

// About asks the array what it is. That it answers says that it can be reached and, with https, who it is.
func (c *Client) About(ctx context.Context) (About, error) {
	r := request{method: get, at: at("api_versions"), unversioned: true}
	a, err := c.send(ctx, r)
	if err != nil {
		return About{}, err
	}
	var about About
	about.Clock, _ = http.ParseTime(a.header.Get("Date"))
	if a.status >= 400 && a.status < 500 && !isPage(a.body) {
		return about, nil // an array that does not know the question: 404, or 400 from an old one
	}
	if err := c.read(r, a, nil); err != nil {
		return about, err
	}
	var said struct {
		Versions []string `json:"api_versions"`
	}
	if err := json.Unmarshal(a.body, &said); err != nil {
		return about, c.unclear(r, err)
	}
	for _, version := range said.Versions {
		about.Versions = append(about.Versions, strings.TrimPrefix(version, "v"))
	}
	return about, nil
}

// isPage says that an error is for people, from a server that is not the array or does not speak https.
func isPage(body []byte) bool {
	return bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")) || bytes.Contains(bytes.ToUpper(body), []byte("HTTPS"))
}
