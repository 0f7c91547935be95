// Package calllog writes the driver's log, to which many processes append at once, and reads it back for people: a line
// for each call, whichever of the rotated files it is in.
package calllog

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"datera-flexvolume/driver"
)

// Entry is one call, as driver.LogAnswer wrote it.
type Entry struct {
	Time    time.Time     `json:"time"` // of the answer
	Kind    string        `json:"msg"`
	Verb    string        `json:"verb"`
	PV      string        `json:"pv"`
	Status  driver.Status `json:"status"`
	Message string        `json:"message"`
	Device  string        `json:"device"`
	Seconds float64       `json:"seconds"`

	Line string `json:"-"` // of the log, as it is
}

// parse reads a line; false when it is none of a whole call.
func parse(line []byte) (Entry, bool) {
	e := Entry{Line: string(line)}
	err := json.Unmarshal(line, &e)
	return e, err == nil && e.Kind == driver.MessageAnswered
}

// Filter chooses calls. The zero value takes all.
type Filter struct {
	PV     string // name of the volume in Kubernetes
	Since  time.Time
	Failed bool
}

func (f Filter) takes(e Entry) bool {
	return (f.PV == "" || f.PV == e.PV) && !e.Time.Before(f.Since) && (!f.Failed || e.Status != driver.Success)
}

// Printer prints entries as a table that grows.
type Printer struct {
	W      io.Writer
	begun  bool
	widest int // of the names so far
}

// Print adds lines to the table.
func (p *Printer) Print(entries []Entry) error {
	for _, e := range entries {
		p.widest = max(p.widest, len(e.PV))
	}
	if !p.begun && len(entries) > 0 {
		p.begun = true
		if err := p.row("TIME", "VERB", "PV", "DURATION", "RESULT", "MESSAGE"); err != nil {
			return err
		}
	}
	for _, e := range entries {
		message := e.Message
		if message == "" {
			message = e.Device
		}
		pv := e.PV
		if pv == "" {
			pv = "-"
		}
		took := time.Duration(e.Seconds * float64(time.Second)).Round(time.Millisecond)
		if err := p.row(e.Time.Local().Format(time.DateTime), e.Verb, pv, took.String(), string(e.Status), message); err != nil {
			return err
		}
	}
	return nil
}

func (p *Printer) row(at, verb, pv, took, result, message string) error {
	line := fmt.Sprintf("%-19s  %-13s  %-*s  %8s  %-7s  %s", at, verb, p.widest, pv, took, result, message)
	_, err := fmt.Fprintln(p.W, strings.TrimRight(strings.Map(printable, line), " "))
	return err
}

// printable keeps what an array says from steering the terminal.
func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return ' '
}
