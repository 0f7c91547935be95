package driver

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// NewExplanation shows a person what a call does as it does it: a line for each REST call, program and remark, with the
// time since its beginning. It never shows any of secrets.
func NewExplanation(w io.Writer, secrets ...string) slog.Handler {
	return &explanation{w: w, secrets: secrets, begin: time.Now()}
}

type explanation struct {
	mutex   sync.Mutex
	w       io.Writer
	secrets []string
	begin   time.Time
}

// Enabled is part of slog.Handler: a person wants all.
func (e *explanation) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs is part of slog.Handler. What marks the lines of one call says nothing here.
func (e *explanation) WithAttrs([]slog.Attr) slog.Handler { return e }

// WithGroup is part of slog.Handler.
func (e *explanation) WithGroup(string) slog.Handler { return e }

// Handle is part of slog.Handler.
func (e *explanation) Handle(_ context.Context, r slog.Record) error {
	values := map[string]string{}
	var all []string
	r.Attrs(func(a slog.Attr) bool {
		values[a.Key] = a.Value.String()
		if values[a.Key] != "" {
			all = append(all, a.Key+"="+values[a.Key])
		}
		return true
	})
	var kind, what string
	switch r.Message {
	case "request to the array": // datera's word
		kind, what = "REST", fmt.Sprintf("%s %s  %s  %s", values["method"], values["path"], values["status"], values["took"])
	case "program": // driver/program's word
		kind, what = "program", fmt.Sprintf("%s  %s", values["command"], seconds(values["seconds"]))
		if values["error"] != "<nil>" {
			what += "  " + values["error"]
		}
	case MessageAnswered:
		kind, what = "answered", fmt.Sprintf("%s  REST calls %s, programs %s", values["status"], values["requests"], values["programs"])
	default:
		kind, what = strings.ToLower(r.Level.String()), strings.Join(append([]string{r.Message}, all...), "  ")
	}
	e.mutex.Lock()
	defer e.mutex.Unlock()
	_, err := fmt.Fprintf(e.w, "%8.3f s  %-8s  %s\n", r.Time.Sub(e.begin).Seconds(), kind, hidden(what, e.secrets...))
	return err
}

// seconds turns a number of seconds into a duration as people read it.
func seconds(text string) string {
	took, err := time.ParseDuration(text + "s")
	if err != nil {
		return text
	}
	return took.Round(time.Millisecond).String()
}

// hidden replaces secrets in a text.
func hidden(text string, secrets ...string) string {
	longestFirst := func(a, b string) int { return len(b) - len(a) } // one secret may be part of another
	for _, secret := range slices.SortedFunc(slices.Values(secrets), longestFirst) {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "(hidden)")
		}
	}
	return text
}
