package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
)

// ask runs a verb for people and returns what it prints and its exit status.
func (p place) ask(t *testing.T, args ...string) (string, int) {
	t.Helper()
	output, err := p.command(args...).CombinedOutput()
	if exit, failed := err.(*exec.ExitError); failed {
		return string(output), exit.ExitCode()
	}
	require.NoError(t, err)
	return string(output), 0
}

func TestStatusDoctorAndReapExplainThemselves(t *testing.T) {
	p := newPlace(t, nil)
	for _, verb := range []string{"status", "doctor", "reap"} {
		for _, args := range [][]string{{verb, "--help"}, {"help", verb}} {
			text, exit := p.ask(t, args...)
			require.Zero(t, exit)
			require.Contains(t, text, "Examples:\n  iscsi "+verb)
			require.Contains(t, text, "--output")
		}
		text, exit := p.ask(t, verb, "-o", "xml")
		require.Equal(t, 1, exit)
		require.Contains(t, text, "accepted is text or json")
		_, exit = p.ask(t, verb, "word")
		require.Equal(t, 1, exit)
	}
}

func TestStatusOfNoVolume(t *testing.T) {
	p := newPlace(t, nil)
	text, exit := p.ask(t, "status", "-o", "json")
	require.Zero(t, exit, text)
	var volumes []driver.VolumeStatus
	require.NoError(t, json.Unmarshal([]byte(text), &volumes), text)
}

func TestDoctorGoesOnWithABrokenConfiguration(t *testing.T) {
	p := newPlace(t, nil)
	require.NoError(t, os.WriteFile(p.config, []byte("password: canary-password\nfoo: bar\n"), 0o600))
	text, exit := p.ask(t, "doctor", "-o", "json")
	require.Equal(t, 1, exit)
	var findings []driver.Finding
	require.NoError(t, json.Unmarshal([]byte(text), &findings), text)
	require.Equal(t, driver.LevelProblem, findings[0].Level)
	require.Contains(t, findings[0].Message, `unknown key "foo"`)
	require.Greater(t, len(findings), 10, "one fault hides all others")
	require.NotContains(t, text, "canary")

	text, exit = p.ask(t, "doctor")
	require.Equal(t, 1, exit)
	require.GreaterOrEqual(t, strings.Count(text, "\n"), len(findings))
}

func TestReapTellsByItsExitStatus(t *testing.T) {
	p := newPlace(t, nil)
	file := filepath.Join(p.dir, "state", "volumes", ".pv-1.json.123456")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte("{"), 0o600))
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(file, old, old))

	text, exit := p.ask(t, "reap")
	require.Equal(t, 1, exit)
	require.Contains(t, text, "leftover  file  "+file)
	require.FileExists(t, file, "it was removed without --yes")
	_, exit = p.ask(t, "reap", "--older", "2h")
	require.Zero(t, exit)
	text, exit = p.ask(t, "reap", "--yes")
	require.Zero(t, exit)
	require.Contains(t, text, "removed  file  "+file)
	require.NoFileExists(t, file)
	text, exit = p.ask(t, "reap", "-o", "json")
	require.Zero(t, exit)
	require.Equal(t, "[]\n", text)
	text, exit = p.ask(t, "reap", "--yes", "--older", "1m")
	require.Equal(t, 1, exit)
	require.Contains(t, text, "4m0s or more")
}
