package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestShellsCompleteCommandsAndManifests(t *testing.T) {
	p := newPlace(t, nil)
	for shell, begins := range map[string]string{"bash": "# bash completion", "zsh": "#compdef iscsi", "fish": "# fish completion"} {
		text, exit := p.ask(t, "completion", shell)
		require.Zero(t, exit, text)
		require.Contains(t, text, begins)
	}
	tests := map[string]struct {
		words []string
		says  []string
	}{
		"verbs":                 {[]string{"wait"}, []string{"waitforattach\t", ":4\n"}},
		"for people":            {[]string{"do"}, []string{"doctor\t"}},
		"a manifest":            {[]string{"attach", "--pv", ""}, []string{"yaml\nyml\njson\n:8\n"}}, // files with these endings
		"request's manifest":    {[]string{"request", ""}, []string{"yaml\nyml\njson\n:8\n"}},
		"request's verb":        {[]string{"request", "pv.yaml", "unm"}, []string{"unmountdevice", ":4\n"}},
		"a verb's flags":        {[]string{"mount", "--"}, []string{"--pv\t", "--explain\t"}},
		"delete takes manifest": {[]string{"delete", "--pv", ""}, []string{"yaml\nyml\njson\n:8\n"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			text, exit := p.ask(t, append([]string{"__complete"}, test.words...)...)
			require.Zero(t, exit, text)
			for _, words := range test.says {
				require.Contains(t, text, words)
			}
		})
	}
}

func TestManualPages(t *testing.T) {
	dir := t.TempDir()
	output, err := exec.Command("go", "run", "-tags", "man", ".", "man", dir).CombinedOutput()
	require.NoError(t, err, string(output))
	for page, holds := range map[string]string{"iscsi.8": "waitforattach", "iscsi-attach.8": "kubectl get pv", "iscsi-support.8": "EXAMPLE"} {
		content, err := os.ReadFile(filepath.Join(dir, page))
		require.NoError(t, err)
		require.Contains(t, string(content), holds)
	}
}
