package driver

import (
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestExplanationIsALineForEachStep(t *testing.T) {
	var said strings.Builder
	log := slog.New(NewExplanation(&said, "canary", "canary-longer", "")).With("call", "1a2b3c4d")
	var none error
	log.Debug("request to the array", "method", "GET", "path", "/app_instances/x", "tenant", "/root", "status", 200, "took", "4ms")
	log.Debug("program", "command", "iscsiadm -v canary-longer", "seconds", 0.0123, "error", none)
	log.Debug("program", "command", "mount /x", "seconds", 0.5, "error", errors.New("exit status 32"))
	log.Warn("node records repaired, trying again", "target", "canary")
	log.Info(MessageAnswered, "status", Success, "requests", 1, "programs", 2)
	require.Equal(t, `
REST      GET /app_instances/x  200  4ms
program   iscsiadm -v (hidden)  12ms
program   mount /x  500ms  exit status 32
warn      node records repaired, trying again  target=(hidden)
answered  Success  REST calls 1, programs 2
`, "\n"+regexp.MustCompile(`(?m)^ +\d+\.\d{3} s  `).ReplaceAllString(said.String(), ""))
}
