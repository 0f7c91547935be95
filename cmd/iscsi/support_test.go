package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"datera-flexvolume/driver"
)

func TestSupportPacksWithoutSecrets(t *testing.T) {
	p, pv := onArray(t, func(c *driver.Config) {
		c.CHAP = driver.CHAPConfig{Username: "u", Password: "canary-chap-1"}
	})
	say(t, p.command("attach", "--pv", pv, "node-a"))
	log, err := os.OpenFile(filepath.Join(p.dir, "log", "iscsi.log"), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = io.WriteString(log, "{\"msg\":\"canary-env-2 canary-chap-1\",\"password\":\"canary-old\"}\n")
	require.NoError(t, errors.Join(err, log.Close()))

	path := filepath.Join(p.dir, "support.tar.gz")
	cmd := p.command("support", path)
	cmd.Env = append(cmd.Env, "DAT_PASS=canary-env-2")
	stdout, stderr, exit := say(t, cmd)
	require.Zero(t, exit, stderr)
	require.True(t, strings.HasPrefix(stdout, path+"\n"), stdout)
	require.Contains(t, stdout, "  log/iscsi.log ")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	packed, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, strings.Count(stdout, "\n")-1, unpack(t, packed))

	_, stderr, exit = say(t, p.command("support", path))
	require.Equal(t, 1, exit, "a file that was there was replaced")
	require.Contains(t, stderr, "file exists")

	cmd = p.command("support", "-")
	cmd.Env = append(cmd.Env, "DAT_PASS=canary-env-2")
	stdout, stderr, exit = say(t, cmd)
	require.Zero(t, exit, stderr)
	require.Equal(t, strings.Count(stderr, "\n")-1, unpack(t, []byte(stdout)))
}

// unpack counts the files of a package, in none of which there is a canary.
func unpack(t *testing.T, packed []byte) int {
	t.Helper()
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	require.NoError(t, err)
	archive := tar.NewReader(unpacked)
	for files := 0; ; files++ {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		content, err := io.ReadAll(archive)
		require.NoError(t, err)
		for line := range strings.Lines(string(content)) {
			require.NotContains(t, line, "canary", header.Name)
		}
	}
}
