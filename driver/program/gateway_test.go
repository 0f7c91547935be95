package program

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func gateway(secrets ...string) *Gateway { return New(slog.New(slog.DiscardHandler), secrets...) }

func TestRunReturnsAllOutputAndCounts(t *testing.T) {
	g := gateway()
	output, err := g.Run(t.Context(), "sh", "-c", "echo out; echo err >&2")
	require.NoError(t, err)
	require.Equal(t, "out\nerr\n", string(output))
	_, err = g.Run(t.Context(), "true")
	require.NoError(t, err)
	require.EqualValues(t, 2, g.Started())
}

func TestRunSpeaksCAndHasNoInput(t *testing.T) {
	output, err := gateway().Run(t.Context(), "sh", "-c", "echo $LC_ALL; cat")
	require.NoError(t, err)
	require.Equal(t, "C\n", string(output))
}

func TestErrorCarriesExitCodeAndOutput(t *testing.T) {
	output, err := gateway().Run(t.Context(), "sh", "-c", "echo no such record; exit 21")
	require.Equal(t, "no such record\n", string(output))
	var exit interface{ ExitCode() int }
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 21, exit.ExitCode())
	require.ErrorContains(t, err, "no such record")
}

// systemctl restart kubelet sends SIGTERM to all that kubelet has started.
func TestAProgramThatMustComeToItsEndIsNotEndedBySignals(t *testing.T) {
	for name, number := range map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "PIPE": syscall.SIGPIPE} {
		t.Run(name, func(t *testing.T) {
			g := gateway()
			for range 3 { // and the next program is as any other
				output, err := g.Run(context.WithoutCancel(t.Context()), "sh", "-c", "kill -"+name+" $$; echo at the end")
				require.NoError(t, err)
				require.Equal(t, "at the end\n", string(output))
				if signal.Ignored(number) {
					continue // as nohup has it for all that it starts
				}
				_, err = g.Run(t.Context(), "sh", "-c", "kill -"+name+" $$; echo at the end")
				require.ErrorContains(t, err, "signal: ")
			}
		})
	}
}

func TestMissingProgramIsNamed(t *testing.T) {
	g := gateway()
	_, err := g.Run(t.Context(), "no-such-program-here")
	require.ErrorContains(t, err, "no-such-program-here")
	require.ErrorContains(t, err, "install it on this node")
	require.Zero(t, g.Started(), "a program that did not start is not counted")
}

func TestSecretsAreShownNowhere(t *testing.T) {
	var logged bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	g := New(log, "canary-secret", "")
	_, err := g.Run(t.Context(), "sh", "-c", "echo $0; exit 1", "canary-secret")
	require.Error(t, err)
	require.NotContains(t, err.Error(), "canary-secret", "the error shows the secret")
	require.NotContains(t, logged.String(), "canary-secret", "the log shows the secret")
	require.Contains(t, err.Error(), "(hidden)")
}

func TestSecretsAreHiddenBeforeTheOutputIsCut(t *testing.T) {
	g := New(slog.New(slog.DiscardHandler), "canary", "canary-secret-long")
	filler := strings.Repeat("x", maxShown-8)
	_, err := g.Run(t.Context(), "sh", "-c", "echo canary-secret-long"+filler+"; exit 1")
	require.Error(t, err)
	require.NotContains(t, err.Error(), "secret")
}

func TestChildrenDoNotGetTheArraysPassword(t *testing.T) {
	t.Setenv("DAT_PASS", "canary")
	output, err := gateway().Run(t.Context(), "env")
	require.NoError(t, err)
	require.NotContains(t, string(output), "canary")
}

func TestRunEndsWithItsContext(t *testing.T) {
	tests := map[string]string{
		"a program that sleeps":               "sleep 60",
		"one that ignores SIGTERM":            "trap '' TERM; sleep 60",
		"one whose child holds the pipe open": "sleep 60 & sleep 60",
	}
	for name, script := range tests {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			begin := time.Now()
			_, err := gateway().Run(ctx, "sh", "-c", script)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Less(t, time.Since(begin), 30*time.Second, "the program outlived its context")
		})
	}
}

func TestBackgroundChildDoesNotHoldTheCall(t *testing.T) {
	output, err := gateway().Run(t.Context(), "sh", "-c", "sleep 30 & echo pid $!")
	require.NoError(t, err, "output %q", output)
	pid := strings.TrimSpace(strings.TrimPrefix(string(output), "pid "))
	require.FileExists(t, "/proc/"+pid+"/stat", "the child in the background was killed")
	_, err = gateway().Run(t.Context(), "kill", pid)
	require.NoError(t, err)
}

func TestDoneContextStartsNothing(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("SIGTERM"))
	g := gateway()
	_, err := g.Run(ctx, "true")
	require.Error(t, err)
	require.Zero(t, g.Started())
}

func TestOutputIsBounded(t *testing.T) {
	output, err := gateway().Run(t.Context(), "sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; echo end")
	require.NoError(t, err)
	require.LessOrEqual(t, len(output), maxOutput)
	require.True(t, strings.HasSuffix(string(output), "end\n"), "the end of the output is kept")
	_, err = gateway().Run(t.Context(), "sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; exit 1")
	require.Less(t, len(err.Error()), 2*maxShown)
}

func TestInheritsNoDescriptor(t *testing.T) {
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	defer reader.Close()
	defer writer.Close()
	output, err := gateway().Run(t.Context(), "sh", "-c", "ls /proc/self/fd")
	require.NoError(t, err)
	require.Equal(t, []string{"0", "1", "2", "3"}, strings.Fields(string(output)), "3 is ls's own; anything else was inherited")
}
