package dateratest

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// The faults, by name, with what their value means.
const (
	// Unavailable answers 503 with nothing but a message. Value: a count, a duration, or nothing.
	Unavailable = "unavailable"
	// Refuse closes the listener, so that connections are refused. Value: for how long.
	// With a method, path or count it begins at a matching request, else at once.
	Refuse = "refuse"
	// Slow lets each answer wait. Value: for how long.
	Slow = "slow"
	// Cut ends the connection in the middle of the answer. Value: bytes of the body that still come.
	Cut = "cut"
	// Expire makes all keys expire at a matching request; at one only, unless a count is given.
	Expire = "expire"
	// OpState makes things that are started by a matching request available late, or not at all.
	// Value: a duration, "never" or "failed".
	OpState = "op-state"
	// AccessLate hides the target's addresses after it went online. Value: for how long.
	AccessLate = "access-late"
	// LoseAnswer does the work and closes the connection without an answer. Value: a count, 1 by default.
	LoseAnswer = "lose-answer"
	// PortalDown takes a portal away from the data path. Value: its IP address.
	PortalDown = "portal-down"
	// Capacity adds to the capacity_in_use of every volume. Value: GiB.
	Capacity = "capacity"
	// Answer answers with a status in place of doing the work. Value: the status, then the text of the message if it
	// matters. What a proxy answers (502, 504) is HTML, what the array answers is an error of its kind.
	Answer = "answer"
	// AnswerAfter does the work first. Value: as of Answer.
	AnswerAfter = "answer-after"
	// RefuseFilter answers 400 to every list with a filter.
	RefuseFilter = "refuse-filter"
	// ShortList ends all lists after some elements, whatever the limit and the offset; their total is the true one.
	// Value: how many elements there are at most.
	ShortList = "short-list"
	// NoOffset lets lists begin at the beginning whatever the offset, as v2.1 describes them, with a total and nothing else.
	NoOffset = "no-offset"
	// NoActiveInitiators leaves active_initiators out of storage instances.
	NoActiveInitiators = "no-active-initiators"
)

// faultKinds give the value of a fault its meaning, by its name.
func faultKinds() map[string]func(*activeFault) error {
	return map[string]func(*activeFault) error{
		Unavailable: func(a *activeFault) (err error) {
			a.act = func(e *effects) { e.unavailable = true }
			if _, isTime := time.ParseDuration(a.Value); isTime == nil && a.Value != "0" {
				a.For = a.Value
			} else if a.Value != "" {
				a.Count, err = strconv.Atoi(a.Value)
			}
			return err
		},
		Refuse: func(a *activeFault) (err error) {
			a.refuse, err = time.ParseDuration(a.Value)
			a.act = func(e *effects) { e.refuseFor = a.refuse }
			return err
		},
		Slow: ofDuration(func(e *effects, d time.Duration) { e.slow += d }),
		Cut:  ofNumber(func(e *effects, n int) { e.cut, e.cutAfter = true, n }),
		Expire: func(a *activeFault) error {
			a.Count = max(a.Count, 1)
			a.act = func(e *effects) { e.expireKeys = true }
			return nil
		},
		OpState: func(a *activeFault) error {
			if a.Value == outcomeNever || a.Value == outcomeFailed {
				a.act = func(e *effects) { e.outcome = a.Value }
				return nil
			}
			return ofDuration(func(e *effects, d time.Duration) { e.opStateLate = d })(a)
		},
		AccessLate: ofDuration(func(e *effects, d time.Duration) { e.accessLate = d }),
		LoseAnswer: func(a *activeFault) (err error) {
			if a.Value != "" {
				a.Count, err = strconv.Atoi(a.Value)
			}
			a.Count = max(a.Count, 1)
			a.act = func(e *effects) { e.loseAnswer = true }
			return err
		},
		PortalDown: func(a *activeFault) (err error) {
			a.portal, err = netip.ParseAddr(a.Value)
			return err
		},
		Capacity:           ofNumber(func(e *effects, n int) { e.capacity += n }),
		Answer:             ofAnswer(func(e *effects, f *fixedAnswer) { e.answer = f }),
		AnswerAfter:        ofAnswer(func(e *effects, f *fixedAnswer) { e.answerAfter = f }),
		RefuseFilter:       ofNothing(func(e *effects) { e.refuseFilter = true }),
		ShortList:          ofNumber(func(e *effects, n int) { e.shortList, e.longest = true, n }),
		NoOffset:           ofNothing(func(e *effects) { e.noOffset = true }),
		NoActiveInitiators: ofNothing(func(e *effects) { e.noActiveInitiators = true }),
	}
}

func ofDuration(act func(*effects, time.Duration)) func(*activeFault) error {
	return func(a *activeFault) error {
		d, err := time.ParseDuration(a.Value)
		a.act = func(e *effects) { act(e, d) }
		return err
	}
}

func ofNumber(act func(*effects, int)) func(*activeFault) error {
	return func(a *activeFault) error {
		n, err := strconv.Atoi(a.Value)
		if err == nil && n < 0 {
			err = fmt.Errorf("%d is negative", n)
		}
		a.act = func(e *effects) { act(e, n) }
		return err
	}
}

func ofNothing(act func(*effects)) func(*activeFault) error {
	return func(a *activeFault) error {
		a.act = act
		if a.Value != "" {
			return fmt.Errorf("it takes no value")
		}
		return nil
	}
}

func ofAnswer(act func(*effects, *fixedAnswer)) func(*activeFault) error {
	return func(a *activeFault) error {
		status, message, _ := strings.Cut(a.Value, " ")
		n, err := strconv.Atoi(status)
		if err == nil && (n < 200 || n > 599) {
			err = fmt.Errorf("%d is not the status of an answer", n)
		}
		answer := &fixedAnswer{n, message, a.RetryAfter}
		a.act = func(e *effects) { act(e, answer) }
		return err
	}
}

// fixedAnswer is what a fault answers.
type fixedAnswer struct {
	status              int
	message, retryAfter string
}

// body is what comes with the status: a page from a proxy, nothing but a message from an array that is busy, an error of
// its kind else.
func (f *fixedAnswer) body(s *Server, c *call) (contentType string, text []byte) {
	const json = "application/json; charset=utf-8"
	names := map[int]string{400: "InvalidRequestError", 401: "AuthFailedError", 403: "PermissionDeniedError", 404: "NotFoundError",
		409: "ConflictError", 422: "ValidationFailedError"}
	message := firstOf(f.message, http.StatusText(f.status))
	switch {
	case f.status == http.StatusBadGateway, f.status == http.StatusGatewayTimeout:
		return "text/html", fmt.Appendf(nil, "<html><body><h1>%d %s</h1></body></html>\n", f.status, message)
	case f.status == http.StatusInternalServerError && f.message == "":
		message = "REST server is still initializing, try again later"
	case names[f.status] != "":
		return json, encode(s.failureBody(c, &failure{name: names[f.status], http: f.status, code: 9, message: message}))
	}
	return json, encode(entity{"message": message})
}
