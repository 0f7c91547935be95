package driver

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/datera"
)

// silentArray takes every question and answers none, as an array behind a dead switch. What it is not asked in these tests is
// not there.
type silentArray struct {
	Array
	answersAfter time.Duration // 0: never
}

func (silentArray) Server() string { return "https://array.example.com:7718" }

func (a silentArray) wait(ctx context.Context) error {
	answer := make(<-chan time.Time)
	if a.answersAfter > 0 {
		answer = time.After(a.answersAfter)
	}
	select {
	case <-answer:
		return errInjected
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (a silentArray) AppInstance(ctx context.Context, _ string) (*datera.AppInstance, error) {
	return nil, a.wait(ctx)
}

func (a silentArray) InitiatorByName(ctx context.Context, _ string) (*datera.Initiator, error) {
	return nil, a.wait(ctx)
}

func (a silentArray) InitiatorGroupsContaining(ctx context.Context, _ string) ([]datera.InitiatorGroup, error) {
	return nil, a.wait(ctx)
}

// kube-controller-manager asks for every volume once a minute and does not look whether the last question was answered.
func TestIsAttachedDoesNotPileUp(t *testing.T) {
	tests := map[string]struct {
		args  []string
		array silentArray
		after time.Duration // it is told to stop then; 0: never
		takes time.Duration
		says  []string
		not   string
	}{
		"an array that is away": {
			[]string{"isattached", optionsWith(nil), "node-a"}, silentArray{}, 0, 5 * time.Second,
			[]string{"isattached was given up after 5s", "deadline exceeded", "see whether the array is away"}, "",
		},
		"an array that refuses in time": {
			[]string{"isattached", optionsWith(nil), "node-a"}, silentArray{answersAfter: 4 * time.Second}, 0, 4 * time.Second,
			[]string{"injected"}, "given up",
		},
		"a call that is told to stop": {
			[]string{"isattached", optionsWith(nil), "node-a"}, silentArray{}, 2 * time.Second, 2 * time.Second,
			[]string{"told to stop"}, "given up",
		},
		"an attach has all the time that kubelet gives": {
			[]string{"attach", optionsWith(nil), "node-a"}, silentArray{answersAfter: 60 * time.Second}, 0, 60 * time.Second,
			[]string{"injected"}, "given up",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				config := defaultConfig()
				config.ManagementIP, config.Username, config.Password = "array.example.com", "admin", "password"
				config.Aliases = []string{"tlx170.tlx.daterainc.com"}
				config.StateDir, config.RunDir = dir, dir
				d := &Driver{Config: config, Log: slog.New(slog.DiscardHandler), OpenArray: func(string, Credentials, string) (Array, error) {
					return test.array, nil
				}}
				ctx, cancel := context.WithTimeout(t.Context(), CallDeadline)
				defer cancel()
				if test.after > 0 {
					stopped, stop := context.WithCancelCause(ctx)
					defer time.AfterFunc(test.after, func() { stop(errors.New("told to stop")) }).Stop()
					ctx = stopped
				}
				began := time.Now()
				reply := d.Serve(ctx, test.args)
				require.Equal(t, test.takes, time.Since(began))
				require.Equal(t, Failure, reply.Status)
				for _, words := range test.says {
					require.Contains(t, reply.Message, words)
				}
				if test.not != "" {
					require.NotContains(t, reply.Message, test.not)
				}
			})
		})
	}
}
