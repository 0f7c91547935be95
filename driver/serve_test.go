package driver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestInitAnswersByItself(t *testing.T) {
	tests := map[string]*Driver{
		"without anything":             {},
		"with a configuration":         {Config: defaultConfig()},
		"with a broken configuration":  {Config: defaultConfig(), ConfigError: errInjected},
		"in a mode that has no attach": {Config: Config{Attach: AttachNone}},
	}
	for name, d := range tests {
		t.Run(name, func(t *testing.T) {
			file := "init"
			if d.Config.Attach == AttachNone {
				file = "init-none"
			}
			golden(t, file, d.Serve(t.Context(), []string{"init"}))
		})
	}
}

func TestUnknownVerbs(t *testing.T) {
	for _, verb := range []string{"getvolumename", "atach", "INIT", "", "--\n"} {
		t.Run(verb, func(t *testing.T) {
			reply := (&Driver{}).Serve(t.Context(), []string{verb, "{}"})
			require.Equal(t, NotSupported, reply.Status)
		})
	}
	golden(t, "getvolumename", (&Driver{}).Serve(t.Context(), []string{"getvolumename", "{}"}))
}

func TestWrongNumberOfWords(t *testing.T) {
	d := &Driver{Config: defaultConfig()}
	require.Contains(t, d.Serve(t.Context(), nil).Message, "no verb given")
	for _, verb := range Verbs() {
		for _, words := range []int{len(verb.Args) - 1, len(verb.Args) + 1} {
			if words < 0 {
				continue
			}
			t.Run(fmt.Sprint(verb.Name, " with ", words), func(t *testing.T) {
				reply := d.Serve(t.Context(), append([]string{verb.Name}, make([]string, words)...))
				require.Equal(t, Failure, reply.Status)
				require.Contains(t, reply.Message, fmt.Sprintf("%s got %d words", verb.Name, words))
				require.Contains(t, reply.Message, verb.Usage())
			})
		}
	}
}

func TestFlagsThatAreNone(t *testing.T) {
	tests := map[string]struct{ words, flag string }{
		"beside all words":   {"attach --bogus x y", "--bogus"},
		"for a word":         {"attach --bogus node-a", "--bogus"},
		"at the end":         {"detach pv-datera-0 --force", "--force"},
		"with a value":       {"unmount --pass=canary /x", "--pass"},
		"where none belongs": {"init --bogus", "--bogus"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			reply := (&Driver{Config: defaultConfig()}).Serve(t.Context(), strings.Fields(test.words))
			require.Equal(t, failure(fmt.Errorf("unknown flag %s: try `iscsi %s --help`", test.flag, strings.Fields(test.words)[0])), reply)
		})
	}
}

func TestConfigErrorIsReportedByEveryCallThatNeedsTheArray(t *testing.T) {
	n := newNode(t, array(t), "node-a")
	n.ConfigError = errors.New("configuration /x: unknown key")
	for _, call := range [][]string{{"attach", optionsWith(nil), "node-a"}, {"detach", "pv-datera-0", "node-a"}, {"isattached", optionsWith(nil), "node-a"}} {
		require.Contains(t, n.refused(t, call...), "unknown key")
	}
}

func TestServeAnswersAPanic(t *testing.T) {
	n := newNode(t, array(t), "node-a")
	n.Driver.OpenArray = func(string, Credentials, string) (Array, error) { panic("canary") }
	message := n.refused(t, "attach", optionsWith(nil), "node-a")
	require.Contains(t, message, "a fault in the driver itself")
}

func TestServeAnswersWhenItIsToldToStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, array(t), "node-a")
		lock, err := n.lockVolume(t.Context(), "pv-datera-0")
		require.NoError(t, err)
		defer lock()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		reply := n.Serve(ctx, []string{"attach", optionsWith(nil), "node-a"})
		require.Equal(t, Failure, reply.Status)
		require.Contains(t, reply.Message, "another call that works on volume pv-datera-0")
	})
}
