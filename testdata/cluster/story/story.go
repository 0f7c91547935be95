package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"datera-flexvolume/datera"
	"datera-flexvolume/testdata/cluster"
	"datera-flexvolume/testdata/lab"
)

// story plays acts on a cluster. After the first failure it does nothing more, so that acts read straight down.
type story struct {
	ctx     context.Context
	cluster *cluster.Cluster
	array   *datera.Client
	out     io.Writer
	began   time.Time
	steps   int
	checks  int
	execs   int
	err     error
}

func newStory(ctx context.Context, c *cluster.Cluster, out io.Writer) (*story, error) {
	array, err := datera.New(datera.Config{
		Address: c.Lab.Array.Forwarded(lab.ArrayPort), Scheme: "http", Username: lab.User, Password: lab.Password, Driver: "story",
	})
	return &story{ctx: ctx, cluster: c, array: array, out: out, began: time.Now()}, err
}

// step begins a step of an act.
func (s *story) step(format string, args ...any) {
	if s.err != nil {
		return
	}
	s.steps++
	fmt.Fprintf(s.out, "\n[%2d] %s\n", s.steps, fmt.Sprintf(format, args...))
}

// say shows what was seen.
func (s *story) say(text string) {
	if s.err != nil {
		return
	}
	for line := range strings.Lines(strings.TrimSpace(text)) {
		fmt.Fprintf(s.out, "     %s\n", strings.TrimRight(line, "\n"))
	}
}

// fail ends the story.
func (s *story) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf(format, args...)
	}
}

// check ends the story unless a claim holds.
func (s *story) check(holds bool, format string, args ...any) {
	if s.err != nil {
		return
	}
	if !holds {
		s.fail(format, args...)
		return
	}
	s.checks++
}

// same ends the story unless two things are equal; what says of which thing they are two views.
func (s *story) same(want, got, what string) {
	s.check(want == got, "%s: it is %q and should be %q", what, got, want)
}

// until waits for something.
func (s *story) until(limit time.Duration, what string, check func() error) {
	if s.err != nil {
		return
	}
	s.err = cluster.Within(s.ctx, limit, what, check)
	s.checks++
}

// kubectl shows a command and returns what it printed.
func (s *story) kubectl(args ...string) string {
	if s.err != nil {
		return ""
	}
	s.say("$ kubectl " + strings.Join(args, " "))
	return s.ask(args...)
}

// ask is kubectl without showing it.
func (s *story) ask(args ...string) string {
	if s.err != nil {
		return ""
	}
	output, err := s.cluster.Control.Kubectl(s.ctx, "", args...)
	s.err = err
	return output
}

// apply makes objects of YAML documents.
func (s *story) apply(documents ...string) {
	if s.err != nil {
		return
	}
	_, s.err = s.cluster.Control.Kubectl(s.ctx, strings.Join(documents, "\n---\n"), "apply", "-f", "-")
}

// onNode runs a script on a node and returns what it printed.
func (s *story) onNode(node, script string) string {
	if s.err != nil {
		return ""
	}
	output, err := s.cluster.Nodes[node].Script(s.ctx, script)
	s.err = err
	return output
}

// do runs what can fail without a value.
func (s *story) do(what string, action func(context.Context) error) {
	if s.err != nil {
		return
	}
	if err := action(s.ctx); err != nil {
		s.fail("%s: %w", what, err)
	}
}

// report says how it went, and what is known when it went wrong.
func (s *story) report() error {
	if s.err == nil {
		fmt.Fprintf(s.out, "\nThe story is over: %d steps, %d checks, %.0f s.\n", s.steps, s.checks, time.Since(s.began).Seconds())
		return nil
	}
	failed := s.err
	fmt.Fprintf(s.out, "\nFAILED: %v\n", failed)
	if errors.Is(s.ctx.Err(), context.Canceled) {
		return failed
	}
	for _, view := range [][]string{
		{"get", "pods,pvc,pv", "--all-namespaces", "-o", "wide"},
		{"get", "events", "--all-namespaces", "--sort-by=.lastTimestamp", "--field-selector=type=Warning"},
	} {
		s.err = nil
		fmt.Fprintf(s.out, "\n$ kubectl %s\n%s\n", strings.Join(view, " "), s.ask(view...))
	}
	fmt.Fprintf(s.out, "\nThe logs of all parts are in %s.\n", s.cluster.CollectLogs(s.ctx))
	return failed
}
