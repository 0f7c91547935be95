package calllog

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Writers with handles of their own are to the kernel what processes are.
func TestWritersThatRotateAtOnceLoseNoLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log", "iscsi.log")
	const writers, calls, lines = 8, 40, 5
	var group sync.WaitGroup
	for writer := range writers {
		group.Go(func() {
			for call := range calls {
				w, err := Append(path, Limits{Bytes: 1000, Backups: writers * calls * lines})
				if err != nil {
					t.Error(err)
					return
				}
				for line := range lines {
					if _, err := fmt.Fprintf(w, "writer %d call %d line %d%s\n", writer, call, line, strings.Repeat(".", line*20)); err != nil {
						t.Error(err)
					}
				}
				_ = w.Close()
			}
		})
	}
	group.Wait()
	var written, want []string
	files := Files(path)
	for i, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		if i < len(files)-1 {
			require.Greater(t, len(content), 500, "%s was rotated before it was full", file)
		}
		written = append(written, strings.SplitAfter(string(content), "\n")...)
	}
	for writer := range writers {
		for call := range calls {
			for line := range lines {
				want = append(want, fmt.Sprintf("writer %d call %d line %d%s\n", writer, call, line, strings.Repeat(".", line*20)))
			}
		}
	}
	written = slices.DeleteFunc(written, func(line string) bool { return line == "" })
	slices.Sort(written)
	slices.Sort(want)
	require.True(t, slices.Equal(want, written), "%d lines were written, %d are in the %d files", len(want), len(written), len(files))
}

func TestOnlySoManyRotatedFilesAreKept(t *testing.T) {
	for _, backups := range []int{0, 2, -1} {
		t.Run(fmt.Sprint(backups), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "iscsi.log")
			foreign := filepath.Join(filepath.Dir(path), "iscsi-by-hand.log")
			require.NoError(t, os.WriteFile(foreign, []byte("precious\n"), 0o600))
			w, err := Append(filepath.Dir(path)+"//./iscsi.log", Limits{Bytes: 20, Backups: backups})
			require.NoError(t, err)
			var all []string
			for line := range 9 {
				all = append(all, fmt.Sprintf("line %d of the log\n", line))
				_, err := w.Write([]byte(all[line]))
				require.NoError(t, err)
			}
			require.NoError(t, w.Close())
			var kept strings.Builder
			for _, file := range Files(path) {
				content, err := os.ReadFile(file)
				require.NoError(t, err)
				if file != foreign {
					kept.Write(content)
				}
			}
			last := map[int]int{0: 1, 2: 3, -1: 9}[backups]
			require.Equal(t, strings.Join(all[len(all)-last:], ""), kept.String())
			require.FileExists(t, foreign)
		})
	}
}

func TestOldRotatedFilesGo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "iscsi.log")
	name := func(age time.Duration) string {
		return filepath.Join(filepath.Dir(path), "iscsi-"+time.Now().Add(-age).UTC().Format(backupTime)+".log")
	}
	old, packed, young := name(8*24*time.Hour), name(9*24*time.Hour)+".gz", name(6*24*time.Hour)
	for _, file := range []string{old, packed, young} {
		require.NoError(t, os.WriteFile(file, nil, 0o600))
	}
	w, err := Append(path, Limits{Bytes: 1000, Backups: 5, Age: 7 * 24 * time.Hour})
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.Equal(t, []string{young, path}, Files(path))
}

// A log that is full and cannot be rotated goes on growing: a line is worth more than the limit.
func TestALogThatCannotBeRotatedIsWrittenTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "iscsi.log")
	w, err := Append(path, Limits{Bytes: 10, Backups: 5})
	require.NoError(t, err)
	_, err = w.Write([]byte("the first line\n"))
	require.NoError(t, err)
	other, err := Append(path, Limits{Bytes: 1000, Backups: 5}) // it rotates, and is stopped while it does
	require.NoError(t, err)
	require.NoError(t, lockFile(other.file))
	_, err = w.Write([]byte("the second\n"))
	require.NoError(t, err)
	require.NoError(t, other.Close())
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "the first line\nthe second\n", string(content))
	_, err = w.Write([]byte("the third\n"))
	require.NoError(t, err)
	require.Len(t, Files(path), 2, "it was not rotated when that was possible")
	require.NoError(t, w.Close())
	_, err = w.Write([]byte("late\n"))
	require.ErrorIs(t, err, os.ErrClosed)
}
