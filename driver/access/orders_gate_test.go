package access_test

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"runtime"
	"strings"
)

// step waits until it is the caller's turn, and does something on its node.
func (c *caller) step(label string, reads bool, do func()) {
	w := c.world
	chosen := w.gate(c, &step{label: label, reads: reads})
	if chosen == diesBefore {
		c.dies()
	}
	w.mutex.Lock()
	do()
	w.settle()
	c.learns(label)
	c.watches, c.watched, c.atLogin = label == "logs in", 0, c.history
	w.mutex.Unlock()
	if chosen == diesAfter {
		c.dies()
	}
}

// dies ends the process, or the caller itself. The kernel gives the process's locks free before anybody learns of it.
func (c *caller) dies() {
	c.world.mutex.Lock()
	c.dying = c.calls
	c.world.mutex.Unlock()
	c.world.stir()
	runtime.Goexit()
}

// gate waits until it is the caller's turn, and returns what becomes of the step.
func (w *world) gate(c *caller, s *step) string {
	w.mutex.Lock()
	if w.over {
		w.mutex.Unlock()
		return diesBefore
	}
	if w.free {
		w.mutex.Unlock()
		return goes
	}
	s.choice = make(chan string)
	s.kills, c.changed = !s.reads || c.changed, !s.reads
	c.waits = s
	w.mutex.Unlock()
	w.stir()
	return <-s.choice
}

func (w *world) stir() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// RoundTrip is the way to the array: each request waits for its turn. What reads something that no call changes (registered
// initiators, tenants, metadata) does not wait: it could change places with anything.
func (a *array) RoundTrip(r *http.Request) (*http.Response, error) {
	if c, ours := r.Context().Value(callerKey{}).(*caller); ours {
		return c.request(r)
	}
	return a.way.RoundTrip(r)
}

func (c *caller) request(r *http.Request) (*http.Response, error) {
	w, path := c.world, pathOf(r)
	if strings.HasPrefix(path, "/initiators/") || path == "/initiators" || strings.HasSuffix(path, "/metadata") || path == "/tenants" {
		return w.way.RoundTrip(r)
	}
	s := &step{label: w.labelOf(r), reads: r.Method == http.MethodGet, request: r}
	w.mutex.Lock()
	w.alone(c)
	w.expect(!w.none || c.kernel.in == "" || !strings.Contains(s.label, c.iqn+`","op":"remove"`), "%s removes its claim and is logged in", c.name)
	w.mutex.Unlock()
	chosen := w.gate(c, s)
	switch chosen {
	case diesBefore:
		c.dies()
	case givesUp:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		w.mutex.Lock()
		w.late = &late{c.name + ": " + s.label, again(r, body)}
		c.learns("gives up " + w.readable(s.label))
		w.mutex.Unlock()
		c.cancel()
		return nil, r.Context().Err()
	}
	answer, err := w.carryOut(r)
	if err == nil && w.blind {
		err = blinded(answer)
	}
	w.mutex.Lock()
	if err == nil {
		c.looks(s)
		if learnt := w.readable(s.label) + w.answer(r, answer.StatusCode); learnt != c.polls {
			c.learns(learnt)
			if s.reads { // what waits for the array to change asks the same again
				c.polls = learnt
			}
		}
	}
	w.mutex.Unlock()
	switch chosen {
	case diesAfter:
		c.dies()
	case loses:
		c.learns(loses)
		return nil, io.ErrUnexpectedEOF
	}
	return answer, err
}

var sessionsShown = regexp.MustCompile(`"active_initiators":\[[^\]]*\],?`)

// blinded is the answer of an array that shows no sessions.
func blinded(answer *http.Response) error {
	body, err := io.ReadAll(answer.Body)
	text := sessionsShown.ReplaceAllString(string(body), "")
	answer.Body, answer.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	return err
}

func again(r *http.Request, body []byte) *http.Request {
	request := r.Clone(context.Background())
	request.Body = io.NopCloser(strings.NewReader(string(body)))
	return request
}

// carryOut makes a request, and lets the world come to rest.
func (w *world) carryOut(r *http.Request) (*http.Response, error) {
	answer, err := w.way.RoundTrip(r)
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if err == nil && answer.StatusCode >= 400 {
		w.note("  is answered %d", answer.StatusCode)
	}
	if r.Method != http.MethodGet {
		w.settle()
	}
	return answer, err
}

// labelOf is a request as people read it. It keeps the names of groups.
func (w *world) labelOf(r *http.Request) string {
	label := r.Method + " " + pathOf(r)
	if r.URL.RawQuery != "" {
		label += "?" + r.URL.RawQuery
	}
	if r.Method == http.MethodGet || r.Body == nil {
		return label
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return label
	}
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	w.mutex.Lock()
	defer w.mutex.Unlock()
	for _, word := range strings.FieldsFunc(label+string(body), func(c rune) bool { return strings.ContainsRune(`/" `, c) }) {
		if strings.HasPrefix(word, "k8s_") || strings.HasPrefix(word, "Kubernetes-") {
			w.groups[word] = true
		}
	}
	return label + " " + string(body)
}

// alone wants the lock to be held: no two calls of one host work on one volume at once.
func (w *world) alone(c *caller) {
	for _, other := range w.callers {
		if w.oneHost && other != c && other.waits != nil && other.waits.request != nil && other.pv == c.pv {
			w.violated("%s and %s work on one volume at once, on one host", c.name, other.name)
		}
	}
}
