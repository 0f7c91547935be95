package calllog

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
)

// writer is a log as the executable writes it.
type writer struct {
	*Writer
	t *testing.T
}

func newWriter(t *testing.T) writer {
	t.Helper()
	w, err := Append(filepath.Join(t.TempDir(), "log", "iscsi.log"), Limits{Bytes: 1 << 20, Backups: 5})
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.Close() })
	return writer{w, t}
}

// answered logs a call as the driver does.
func (w writer) answered(verb, pv string, reply driver.Reply) {
	w.t.Helper()
	log := slog.New(slog.NewJSONHandler(w, nil)).With("call", "1a2b3c4d", "verb", verb, "pv", pv, "volume", "kube-"+pv)
	log.Info("something else", "verb", verb)
	(&driver.Driver{Log: log}).LogAnswer(reply, driver.Work{Duration: 1234567 * time.Microsecond, Programs: 3, Requests: 4})
}

// rotate is what a process does that finds the log full.
func (w writer) rotate() {
	w.t.Helper()
	require.NoError(w.t, os.Rename(w.path, w.backup(time.Now())))
	file, err := open(w.path)
	require.NoError(w.t, errors.Join(err, w.file.Close()))
	w.file = file
}

// pack is what an administrator's logrotate does.
func pack(t *testing.T, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	var packed bytes.Buffer
	gz := gzip.NewWriter(&packed)
	_, err = gz.Write(content)
	require.NoError(t, errors.Join(err, gz.Close(), os.WriteFile(path+".gz", packed.Bytes(), 0o600), os.Remove(path)))
}

var success, failure = driver.Reply{Status: driver.Success, Device: "/dev/sdb"}, driver.Reply{Status: driver.Failure, Message: "no\x1b[31m way"}

func names(entries []Entry) string {
	var all []string
	for _, e := range entries {
		all = append(all, e.PV)
	}
	return strings.Join(all, " ")
}

// read returns the volumes of the calls in their order.
func read(t *testing.T, path string, filter Filter) string {
	t.Helper()
	var found string
	require.NoError(t, Read(t.Context(), path, filter, false, func(entries []Entry) error { found = names(entries); return nil }))
	return found
}

func TestReadsRotatedAndPackedFilesInOrder(t *testing.T) {
	w := newWriter(t)
	for _, pv := range []string{"pv-1", "pv-2", "pv-3"} {
		w.answered("attach", pv, success)
		if pv != "pv-3" {
			w.rotate()
		}
	}
	for _, packed := range []bool{false, true} {
		t.Run(fmt.Sprint("packed ", packed), func(t *testing.T) {
			if packed {
				pack(t, Files(w.path)[0])
			}
			require.Len(t, Files(w.path), 3)
			require.Equal(t, "pv-1 pv-2 pv-3", read(t, w.path, Filter{}))
			old := time.Now().Add(-time.Hour)
			require.NoError(t, os.Chtimes(Files(w.path)[0], old, old))
			require.Equal(t, "pv-2 pv-3", read(t, w.path, Filter{Since: time.Now().Add(-time.Minute)}))
		})
	}
}

func TestFilters(t *testing.T) {
	w := newWriter(t)
	w.answered("attach", "pv-1", success)
	w.answered("detach", "pv-2", failure)
	w.answered("mount", "pv-1", driver.Reply{Status: driver.NotSupported})
	_, err := io.WriteString(w, "{\"msg\":\"answered\", cut off\n\n\x00\n")
	require.NoError(t, err)
	tests := map[string]struct {
		filter Filter
		want   string
	}{
		"none":           {Filter{}, "pv-1 pv-2 pv-1"},
		"a volume":       {Filter{PV: "pv-1"}, "pv-1 pv-1"},
		"failed":         {Filter{Failed: true}, "pv-2 pv-1"},
		"both":           {Filter{PV: "pv-2", Failed: true}, "pv-2"},
		"from later on":  {Filter{Since: time.Now().Add(time.Hour)}, ""},
		"from before":    {Filter{Since: time.Now().Add(-time.Hour)}, "pv-1 pv-2 pv-1"},
		"of nobody else": {Filter{PV: "pv-"}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, read(t, w.path, test.filter)) })
	}
	err = Read(t.Context(), filepath.Join(t.TempDir(), "iscsi.log"), Filter{}, false, nil)
	require.ErrorContains(t, err, "there is no log")
}

func TestPrintsATable(t *testing.T) {
	w := newWriter(t)
	w.answered("waitforattach", "pv-datera-0", success)
	w.answered("detach", "", failure)
	var text strings.Builder
	printer := &Printer{W: &text}
	require.NoError(t, Read(t.Context(), w.path, Filter{}, false, printer.Print))
	lines := strings.Split(text.String(), "\n")
	require.Equal(t, "TIME                 VERB           PV           DURATION  RESULT   MESSAGE", lines[0])
	require.Equal(t, "  waitforattach  pv-datera-0    1.235s  Success  /dev/sdb", lines[1][19:])
	require.Equal(t, "  detach         -              1.235s  Failure  no [31m way", lines[2][19:])
	at, err := time.ParseInLocation(time.DateTime, lines[1][:19], time.Local)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), at, time.Minute)
}

func TestFollowsThroughARotation(t *testing.T) {
	w := newWriter(t)
	ctx, stop := context.WithCancel(t.Context())
	got, ended := make(chan string, 100), make(chan error, 1)
	go func() {
		ended <- Read(ctx, w.path, Filter{}, true, func(entries []Entry) error {
			for _, e := range entries {
				got <- e.PV
			}
			return nil
		})
	}()
	next := func(want string) {
		t.Helper()
		select {
		case pv := <-got:
			require.Equal(t, want, pv)
		case <-time.After(10 * time.Second):
			t.Fatalf("%s was not seen", want)
		}
	}
	w.answered("attach", "pv-1", success) // the log did not exist when it began
	next("pv-1")
	w.answered("attach", "pv-2", success)
	w.rotate()
	w.answered("attach", "pv-3", success)
	next("pv-2")
	next("pv-3")
	line, err := json.Marshal(map[string]any{"msg": "answered", "pv": "pv-4"})
	require.NoError(t, err)
	file, err := os.OpenFile(w.path, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	defer file.Close()
	_, _ = file.Write(line[:5])
	select {
	case pv := <-got:
		t.Fatalf("half a line was taken for %s", pv)
	case <-time.After(2 * pollInterval):
	}
	_, _ = file.Write(append(line[5:], '\n'))
	next("pv-4")
	stop()
	require.NoError(t, <-ended)
}
