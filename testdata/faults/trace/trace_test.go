package trace

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const launch = "launch"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == launch {
		fmt.Fprintln(os.Stderr, Launch(os.Args[2:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// subject is a program whose steps are known, in a folder of its own.
type subject struct {
	dir    string
	server *httptest.Server
	served atomic.Int32
}

func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "subject")
	cmd := exec.Command("go", "build", "-o", path, "./subject")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, string(output))
	return path
}

func newSubject(t *testing.T) *subject {
	s := &subject{dir: t.TempDir()}
	s.server = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { s.served.Add(1) }))
	t.Cleanup(s.server.Close)
	return s
}

func (s *subject) run(t *testing.T, binary string, options Options) Report {
	t.Helper()
	options.Launcher = []string{"/proc/self/exe", launch}
	options.Ignore = []string{s.in("log")}
	type result struct {
		report Report
		err    error
	}
	ended := make(chan result)
	go func() { // Run uses its thread up
		report, err := Run(options, binary, s.dir, s.server.URL)
		ended <- result{report, err}
	}()
	r := <-ended
	require.NoError(t, r.err)
	return r.report
}

func (s *subject) in(name string) string { return filepath.Join(s.dir, name) }

func (s *subject) has(name string) bool { return exists(s.in(name)) }

func (s *subject) size(name string) int64 {
	info, err := os.Stat(s.in(name))
	if err != nil {
		return 0
	}
	return info.Size()
}

// steps are the subject's, with what shows that one was made; nil: nothing that stays.
func (s *subject) steps() []struct {
	kind Kind
	what string
	made func() bool
} {
	return []struct {
		kind Kind
		what string
		made func() bool
	}{
		{Mkdir, s.in("made"), func() bool { return s.has("made") }},
		{Create, s.in("made/file"), func() bool { return s.has("made/file") }},
		{Write, s.in("made/file"), func() bool { return s.size("made/file") > 0 }},
		{Lock, s.in("made/file"), nil},
		{Rename, s.in("made/file") + " " + s.in("made/renamed"), func() bool { return s.has("made/renamed") }},
		{Program, "touch " + s.in("touched"), func() bool { return s.has("touched") }},
		{Request, "GET /hello", func() bool { return s.served.Load() > 0 }},
		{Answer, "GET /hello", nil},
		{Remove, s.in("made/renamed"), func() bool { return !s.has("made/renamed") }},
		{Remove, s.in("made"), func() bool { return !s.has("made") }},
		{Program, "true", nil},
	}
}

func TestListsWhatChangesTheWorld(t *testing.T) {
	binary, s := build(t), newSubject(t)
	report := s.run(t, binary, Options{})
	require.Equal(t, "done\n", report.Stdout, report.Stderr)
	require.Zero(t, report.Exit)
	var want, got []string
	for i, step := range s.steps() {
		want = append(want, Point{Number: i + 1, Kind: step.kind, What: step.what}.String())
	}
	for _, point := range report.Points {
		got = append(got, point.String())
		require.Empty(t, point.Error)
	}
	require.Equal(t, want, got)
}

func TestKillsAtEachPoint(t *testing.T) {
	binary := build(t)
	for i, step := range newSubject(t).steps() {
		for _, action := range []Action{Kill, KillAfter} {
			t.Run(fmt.Sprintf("%s %d %s", action, i+1, step.kind), func(t *testing.T) {
				s := newSubject(t)
				report := s.run(t, binary, Options{Fault: Fault{At: i + 1, Do: action}})
				require.True(t, report.Hit)
				require.True(t, report.Killed)
				require.Len(t, report.Points, i+1, "it went on")
				require.Empty(t, report.Stdout)
				made := s.steps()[i].made
				switch {
				case made == nil:
				case action == Kill:
					require.False(t, made(), "the step was made")
				default: // a program that was started goes on
					require.Eventually(t, made, 10*time.Second, time.Millisecond, "the step was not made")
				}
			})
		}
	}
}

func TestFailsEachStep(t *testing.T) {
	binary := build(t)
	for i, step := range newSubject(t).steps() {
		t.Run(fmt.Sprintf("%d %s", i+1, step.kind), func(t *testing.T) {
			s := newSubject(t)
			report := s.run(t, binary, Options{Fault: Fault{At: i + 1, Do: Fail}})
			require.True(t, report.Hit)
			require.False(t, report.Killed)
			require.Equal(t, 1, report.Exit, "the program was not told")
			require.NotEmpty(t, report.Stderr)
			if made := s.steps()[i].made; made != nil {
				require.False(t, made(), "the step was made")
			}
		})
	}
}

func TestHolds(t *testing.T) {
	binary := build(t)
	for i, step := range newSubject(t).steps() {
		t.Run(fmt.Sprintf("%d %s", i+1, step.kind), func(t *testing.T) {
			s := newSubject(t)
			made, released := s.steps()[i].made, make(chan struct{})
			held := false
			report := s.run(t, binary, Options{Fault: Fault{At: i + 1, Do: Hold, For: time.Hour}, Release: released, Held: func() {
				held = made == nil || !made()
				close(released)
			}})
			require.True(t, held, "the step was made before it was released")
			require.Equal(t, "done\n", report.Stdout, report.Stderr)
		})
	}
	t.Run("until its time is up", func(t *testing.T) {
		report := newSubject(t).run(t, binary, Options{Fault: Fault{At: 1, Do: Hold, For: time.Millisecond}})
		require.Equal(t, "done\n", report.Stdout, report.Stderr)
	})
}

func TestRefusesWhatItCannotTrace(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\n"), 0o700))
	_, err := Run(Options{}, script)
	require.ErrorContains(t, err, "script")
}
