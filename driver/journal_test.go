package driver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestJournal(t *testing.T) {
	j := journal{t.TempDir()}
	r := record{Name: "pv-1", AppInstance: "vol-1", Device: "iscsi://…", Direct: &directAttachment{Mount: "/x", Server: "array"}}

	_, found := j.read("pv-1")
	require.False(t, found)
	require.NoError(t, j.write("pv-1", r))
	read, found := j.read("pv-1")
	require.True(t, found)
	require.Equal(t, r, read)
	require.Empty(t, j.unfinished())

	require.NoError(t, j.leave("pv-1"))
	require.NoError(t, j.leave("pv-1"), "marking it again changes nothing")
	require.Equal(t, []string{"pv-1"}, j.unfinished())
	read, found = j.read("pv-1")
	require.True(t, found, "a volume that is leaving is still known")
	require.Equal(t, r, read)

	require.NoError(t, j.write("pv-1", r))
	require.Empty(t, j.unfinished(), "a volume that came back is not leaving")

	require.NoError(t, j.forget("pv-1"))
	require.NoError(t, j.forget("pv-1"))
	_, found = j.read("pv-1")
	require.False(t, found)
}

func TestJournalIsForRootAlone(t *testing.T) {
	j := journal{filepath.Join(t.TempDir(), "state")}
	require.NoError(t, j.write("pv-1", record{Name: "pv-1"}))
	info, err := os.Stat(j.inUse("pv-1"))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
	info, err = os.Stat(filepath.Dir(j.inUse("pv-1")))
	require.NoError(t, err)
	require.EqualValues(t, 0o700, info.Mode().Perm())
}

func TestJournalTakesWhatItCannotReadAsLost(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "cut off": `{"name":"pv-1"`, "a foreign name": `{"name":"../../etc"}`} {
		t.Run(name, func(t *testing.T) {
			j := journal{t.TempDir()}
			require.NoError(t, os.MkdirAll(filepath.Dir(j.inUse("pv-1")), 0o700))
			require.NoError(t, os.WriteFile(j.inUse("pv-1"), []byte(content), 0o600))
			_, found := j.read("pv-1")
			require.False(t, found)
		})
	}
}

func TestWriteDurablyKeepsTheOldOrTheNew(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	require.NoError(t, writeDurably(path, []byte("old")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "taken"), 0o700))
	require.Error(t, writeDurably(filepath.Join(dir, "taken"), []byte("new")), "a folder was replaced by a file")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, entry := range entries {
		require.False(t, strings.HasPrefix(entry.Name(), "."), "temporary file %s was left behind", entry.Name())
	}
}

func FuzzReadRecord(f *testing.F) {
	f.Add([]byte(`{"name":"pv-1","device":"iscsi://x/y/0"}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(dir, "record")
		require.NoError(t, os.WriteFile(path, content, 0o600))
		if r, err := readRecord(path); err == nil {
			require.NoError(t, checkVolumeName(r.Name))
		}
	})
}
