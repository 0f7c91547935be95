package dateratest

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	outcomeNever  = "never"
	outcomeFailed = "failed"
)

// Fault is one way of misbehaving. It stays until it was used up, its time is over or it is removed.
type Fault struct {
	Name   string `json:"name"`
	Value  string `json:"value,omitempty"`
	Method string `json:"method,omitempty"` // regular expression for the whole method; empty matches all
	Path   string `json:"path,omitempty"`   // regular expression for the path without the version; empty matches all
	Count  int    `json:"count,omitempty"`  // matching requests that it acts on; 0 is all
	For    string `json:"for,omitempty"`    // a duration, how long it acts from now on; empty is without end
	// RetryAfter is a header of what Answer and AnswerAfter answer: seconds or a date.
	RetryAfter string `json:"retry_after,omitempty"`
}

// effects is what all faults together do to one request.
type effects struct {
	unavailable bool
	refuseFor   time.Duration
	slow        time.Duration
	cut         bool
	cutAfter    int
	expireKeys  bool
	opStateLate time.Duration
	outcome     string
	accessLate  time.Duration
	loseAnswer  bool
	capacity    int
	answer      *fixedAnswer // in place of the work
	answerAfter *fixedAnswer // in place of the answer

	refuseFilter       bool
	shortList          bool
	longest            int // of a short list
	noOffset           bool
	noActiveInitiators bool
}

// activeFault is a fault, understood.
type activeFault struct {
	Fault
	method, path *regexp.Regexp
	until        time.Time
	limited      bool
	act          func(*effects) // nil for what does not act on requests
	portal       netip.Addr
	refuse       time.Duration
}

type faultTable struct {
	mu   sync.Mutex
	list []*activeFault
}

// ParseFault reads a fault as the command line has it: name=value[,method=M][,path=P][,count=N][,for=D][,retry-after=T].
func ParseFault(text string) (Fault, error) {
	var f Fault
	for i, part := range strings.Split(text, ",") {
		key, value, _ := strings.Cut(part, "=")
		switch {
		case i == 0:
			f.Name, f.Value = key, value
		case key == "method":
			f.Method = value
		case key == "path":
			f.Path = value
		case key == "for":
			f.For = value
		case key == "retry-after":
			f.RetryAfter = value
		case key == "count":
			n, err := strconv.Atoi(value)
			if err != nil {
				return f, fmt.Errorf("fault %q: count %q is not a number", text, value)
			}
			f.Count = n
		default:
			return f, fmt.Errorf("fault %q: %q is none of method, path, count, for, retry-after", text, key)
		}
	}
	_, err := f.understand(time.Time{})
	return f, err
}

// understand checks a fault and makes it ready to act.
func (f Fault) understand(now time.Time) (*activeFault, error) {
	a := &activeFault{Fault: f}
	read, known := faultKinds()[f.Name]
	if !known {
		return nil, fmt.Errorf("fault %q is unknown; known are %s", f.Name, strings.Join(sortedKeys(faultKinds()), ", "))
	}
	if err := read(a); err != nil {
		return nil, fmt.Errorf("fault %s=%s: %w", f.Name, f.Value, err)
	}
	var err error
	if a.method, err = regexp.Compile("^(?:" + f.Method + ")$"); err != nil {
		return nil, fmt.Errorf("fault %s: method: %w", f.Name, err)
	}
	if a.path, err = regexp.Compile(f.Path); err != nil {
		return nil, fmt.Errorf("fault %s: path: %w", f.Name, err)
	}
	if f.Method == "" {
		a.method = regexp.MustCompile("")
	}
	if a.For != "" {
		d, err := time.ParseDuration(a.For)
		if err != nil {
			return nil, fmt.Errorf("fault %s: for: %w", f.Name, err)
		}
		a.until = now.Add(d)
	}
	if a.Count < 0 {
		return nil, fmt.Errorf("fault %s: count %d is negative", f.Name, a.Count)
	}
	a.limited = a.Count > 0
	return a, nil
}

// hit tells what the faults do to a request, and uses up those that are counted.
func (t *faultTable) hit(method, path string, now time.Time) effects {
	t.mu.Lock()
	defer t.mu.Unlock()
	var e effects
	t.dropSpent(now)
	for _, f := range t.list {
		if f.act != nil && f.method.MatchString(method) && f.path.MatchString(path) {
			f.act(&e)
			f.Count--
		}
	}
	t.dropSpent(now)
	return e
}

func (t *faultTable) dropSpent(now time.Time) {
	var kept []*activeFault
	for _, f := range t.list {
		over := !f.until.IsZero() && !now.Before(f.until)
		if !over && (!f.limited || f.Count > 0) {
			kept = append(kept, f)
		}
	}
	t.list = kept
}

// portalDown tells whether a fault keeps a portal away.
func (t *faultTable) portalDown(a netip.Addr, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropSpent(now)
	for _, f := range t.list {
		if f.portal == a {
			return true
		}
	}
	return false
}

// portalsUntil is when the first portal that a fault keeps away comes back by itself.
func (t *faultTable) portalsUntil(now time.Time) (end time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropSpent(now)
	for _, f := range t.list {
		if f.portal.IsValid() && !f.until.IsZero() {
			end = earlier(end, f.until)
		}
	}
	return end
}

// delay waits as long as the slow faults say; false if the client went away.
func (e effects) delay(ctx context.Context) bool {
	if e.slow == 0 {
		return true
	}
	timer := time.NewTimer(e.slow)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// SetFault makes the cluster misbehave. A fault with the same name, method and path is replaced.
func (s *Server) SetFault(f Fault) error {
	a, err := f.understand(s.now())
	if err != nil {
		return err
	}
	if a.atOnce() {
		s.refuseConnections(a.refuse)
		return nil
	}
	s.addFault(a)
	return nil
}

// atOnce tells a refusal that does not wait for a request.
func (a *activeFault) atOnce() bool {
	return a.Name == Refuse && a.Method == "" && a.Path == "" && a.Count == 0
}

func (s *Server) addFault(a *activeFault) {
	s.faults.mu.Lock()
	var kept []*activeFault
	for _, other := range s.faults.list {
		if other.Name != a.Name || other.Method != a.Method || other.Path != a.Path || other.portal != a.portal {
			kept = append(kept, other)
		}
	}
	s.faults.list = append(kept, a)
	s.faults.mu.Unlock()
	s.faultsChanged()
}

// ClearFaults removes the faults of these names, or all of them.
func (s *Server) ClearFaults(names ...string) {
	s.faults.mu.Lock()
	var kept []*activeFault
	for _, f := range s.faults.list {
		if len(names) > 0 && !slices.Contains(names, f.Name) {
			kept = append(kept, f)
		}
	}
	s.faults.list = kept
	s.faults.mu.Unlock()
	s.faultsChanged()
}

// Faults are those that still act, with the counts that are left.
func (s *Server) Faults() []Fault {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.dropSpent(s.now())
	list := []Fault{}
	for _, f := range s.faults.list {
		left := f.Fault
		if !f.limited {
			left.Count = 0
		}
		list = append(list, left)
	}
	return list
}
