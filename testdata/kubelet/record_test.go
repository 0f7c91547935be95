package kubelet

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"k8s.io/utils/exec"
)

var update = flag.Bool("update", false, "write the calls that Kubernetes makes to testdata, instead of comparing them")

// recorder starts programs for Kubernetes' code, remembers the words of each call, and
// holds each answer to the protocol.
type recorder struct {
	exec.Interface
	t *testing.T

	mutex      sync.Mutex
	calls      [][]string
	transcript strings.Builder
	names      []string // pairs: what varies, and what stands for it in the transcript
}

func (r *recorder) Command(program string, args ...string) exec.Cmd {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	words := append([]string{filepath.Base(program)}, args...)
	r.calls = append(r.calls, words)
	return &recordedCall{Cmd: r.Interface.Command(program, args...), t: r.t, words: words}
}

// made returns the calls since it was last asked, and forgets them.
func (r *recorder) made() [][]string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	calls := r.calls
	r.calls = nil
	return calls
}

// name writes something that varies, such as a disk, under a fixed name.
func (r *recorder) name(value, name string) { r.names = append(r.names, value, name) }

// step writes the calls since the last step under a title.
func (r *recorder) step(title string) {
	fmt.Fprintf(&r.transcript, "# %s\n", title)
	calls := r.made()
	if len(calls) == 0 {
		r.transcript.WriteString("no call\n")
	}
	replace := strings.NewReplacer(r.names...)
	for _, words := range calls {
		fmt.Fprintf(&r.transcript, "%s %s\n", words[0], words[1])
		for _, word := range words[2:] {
			fmt.Fprintf(&r.transcript, "\t%s\n", replace.Replace(word))
		}
	}
	r.transcript.WriteString("\n")
}

// compare holds the transcript to the golden file.
func (r *recorder) compare(file string) {
	r.t.Helper()
	golden := filepath.Join("testdata", file)
	got := strings.TrimSuffix(r.transcript.String(), "\n")
	if *update {
		require.NoError(r.t, os.WriteFile(golden, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(golden)
	require.NoError(r.t, err)
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		r.t.Errorf("Kubernetes calls the driver differently than %s says (-), namely so (+); if the driver is ready for it, run go test -update\n%s", golden, diff)
	}
}

type recordedCall struct {
	exec.Cmd
	t     *testing.T
	words []string
}

// CombinedOutput is how Kubernetes runs the driver: what is on stderr is part of the answer.
func (c *recordedCall) CombinedOutput() ([]byte, error) {
	output, err := c.Cmd.CombinedOutput()
	if err != nil || bytes.Count(output, []byte("\n")) != 1 || !json.Valid(output) {
		c.t.Errorf("%s: Kubernetes got %q and the error %v, not one line of JSON and exit status 0; it reads stdout and stderr together",
			strings.Join(c.words[:2], " "), output, err)
	}
	return output, err
}
