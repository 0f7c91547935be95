package metrics

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"datera-flexvolume/driver"
)

func newRecorder(t *testing.T, dir string) Recorder {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "textfile"), 0o755))
	return Recorder{
		Path: filepath.Join(dir, "textfile", "datera_iscsi.prom"), Dir: filepath.Join(dir, "run", "metrics"), Version: `v"1`,
		Volumes: func() int { return 2 }, Sessions: func() int { return 3 },
	}
}

// read is the file as Prometheus reads it.
func (r Recorder) read(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	content, err := os.ReadFile(r.Path)
	require.NoError(t, err)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(content))
	require.NoError(t, err)
	return families
}

// calls is the sum over all verbs and results.
func (r Recorder) calls(t *testing.T) int {
	t.Helper()
	sum := 0.0
	for _, metric := range r.read(t)["datera_iscsi_calls_total"].GetMetric() {
		sum += metric.GetCounter().GetValue()
	}
	return int(sum)
}

func call(verb string, success bool, took time.Duration) Call {
	return Call{verb, success, driver.Work{Duration: took, Programs: 3, Requests: 4}}
}

func TestTheFileIsPrometheus(t *testing.T) {
	r := newRecorder(t, t.TempDir())
	for _, c := range []Call{call("attach", true, 60*time.Millisecond), call("attach", false, 3*time.Second), call("detach", true, 200*time.Second)} {
		require.NoError(t, r.Record(t.Context(), c))
	}
	content, err := os.ReadFile(r.Path)
	require.NoError(t, err)
	problems, err := promlint.New(bytes.NewReader(content)).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)

	families := r.read(t)
	require.Len(t, families, 7)
	attach := families["datera_iscsi_call_duration_seconds"].GetMetric()[0].GetHistogram()
	require.EqualValues(t, 2, attach.GetSampleCount())
	require.InDelta(t, 3.06, attach.GetSampleSum(), 1e-9)
	within := map[float64]uint64{}
	for _, bucket := range attach.GetBucket() {
		within[bucket.GetUpperBound()] = bucket.GetCumulativeCount()
	}
	require.Equal(t, []uint64{0, 1, 1, 2}, []uint64{within[0.05], within[0.1], within[2.5], within[5]})
	require.Equal(t, 8.0, families["datera_iscsi_array_requests_total"].GetMetric()[0].GetCounter().GetValue())
	require.Equal(t, 6.0, families["datera_iscsi_programs_started_total"].GetMetric()[0].GetCounter().GetValue())
	require.Equal(t, 2.0, families["datera_iscsi_volumes"].GetMetric()[0].GetGauge().GetValue())
	require.Equal(t, 3.0, families["datera_iscsi_node_sessions"].GetMetric()[0].GetGauge().GetValue())

	info, err := os.Stat(r.Path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o644), info.Mode(), "node-exporter cannot read it")
	files, err := os.ReadDir(filepath.Dir(r.Path))
	require.NoError(t, err)
	require.Len(t, files, 1, "something was left beside it")
}

// As many processes as there may be calls at once, each with calls one after the other.
func TestManyProcessesLoseNoCall(t *testing.T) {
	const processes, each = 12, 15
	if dir := os.Getenv("METRICS_TEST_DIR"); dir != "" {
		for range each {
			require.NoError(t, newRecorder(t, dir).Record(t.Context(), call("mount", true, time.Millisecond)))
		}
		return
	}
	dir := t.TempDir()
	var group sync.WaitGroup
	for range processes {
		group.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^TestManyProcessesLoseNoCall$")
			cmd.Env = append(os.Environ(), "METRICS_TEST_DIR="+dir)
			output, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v: %s", err, output)
			}
		})
	}
	group.Wait()
	require.Equal(t, processes*each, newRecorder(t, dir).calls(t))
}

func TestNoCallIsCountedTwiceOrLost(t *testing.T) {
	r := newRecorder(t, t.TempDir())
	require.NoError(t, r.Record(t.Context(), call("attach", true, 0)))
	content, err := os.ReadFile(r.state())
	require.NoError(t, err)
	var counted state
	require.NoError(t, json.Unmarshal(content, &counted))

	// A call that was killed before it deleted its note.
	require.NoError(t, os.WriteFile(filepath.Join(r.notes(), counted.Notes[0]), []byte(`{"Verb":"attach","Success":true}`), 0o600))
	require.NoError(t, r.Record(t.Context(), call("attach", true, 0)))
	require.Equal(t, 2, r.calls(t), "one was counted twice")

	// Calls that found the lock taken are counted by the next, and did not wait.
	lock, err := os.Open(filepath.Join(r.Dir, "lock"))
	require.NoError(t, err)
	require.NoError(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	begin := time.Now()
	for range 3 {
		require.NoError(t, r.Record(t.Context(), call("attach", true, 0)))
	}
	require.Less(t, time.Since(begin), time.Second)
	require.Equal(t, 2, r.calls(t))
	require.NoError(t, lock.Close())
	require.NoError(t, r.Record(t.Context(), call("attach", true, 0)))
	require.Equal(t, 6, r.calls(t))

	// What was lost begins anew.
	require.NoError(t, os.WriteFile(r.state(), []byte("{"), 0o600))
	require.NoError(t, r.Record(t.Context(), call("attach", true, 0)))
	require.Equal(t, 1, r.calls(t))
}

func TestACallThatComesWhileAnotherAddsUpIsCounted(t *testing.T) {
	r := newRecorder(t, t.TempDir())
	late := r
	r.Volumes = sync.OnceValue(func() int { // the notes that there are have been read by now
		require.NoError(t, late.Record(t.Context(), call("attach", true, 0)))
		return 1
	})
	require.NoError(t, r.Record(t.Context(), call("attach", true, 0)))
	require.Equal(t, 2, r.calls(t))
}

func TestWhatAKilledCallWasWritingIsSwept(t *testing.T) {
	r := newRecorder(t, t.TempDir())
	folder := filepath.Dir(r.Path)
	stale := []string{folder + "/.datera_iscsi.prom.1234", r.Dir + "/.state-1234", r.notes() + "/.call-1234.json"}
	others := []string{folder + "/.other.prom.1234", folder + "/other.prom"}
	written := folder + "/.datera_iscsi.prom.5678" // by a call that goes on
	require.NoError(t, os.MkdirAll(r.notes(), 0o700))
	for _, path := range append(append(stale, others...), written) {
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		if path != written {
			old := time.Now().Add(-2 * time.Hour)
			require.NoError(t, os.Chtimes(path, old, old))
		}
	}
	require.NoError(t, r.Record(t.Context(), call("mount", true, time.Second)))
	for _, path := range stale {
		require.NoFileExists(t, path)
	}
	for _, path := range append(others, written) {
		require.FileExists(t, path)
	}
	require.Equal(t, 1, r.calls(t))
}

func TestAFileSystemThatHangsDelaysNoCall(t *testing.T) {
	dir := t.TempDir()
	r := newRecorder(t, dir)
	hang := make(chan struct{})
	defer close(hang)
	r.Volumes = func() int { <-hang; return 0 }
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, r.Record(ctx, call("attach", true, 0)), context.DeadlineExceeded)

	broken := newRecorder(t, filepath.Join(dir, "2"))
	broken.Path = filepath.Join(dir, "no such folder", "x.prom")
	require.ErrorContains(t, broken.Record(t.Context(), call("attach", true, 0)), "no such folder")
	broken.Path = newRecorder(t, filepath.Join(dir, "2")).Path
	require.NoError(t, broken.Record(t.Context(), call("attach", true, 0)))
	require.Equal(t, 2, broken.calls(t), "the call before was lost")
}
