package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"
)

// static is a static program with dependencies: this one.
var static string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "image-test")
	if err != nil {
		panic(err)
	}
	static = filepath.Join(dir, "iscsi")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", static, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	output, err := cmd.CombinedOutput()
	code := 1
	if err == nil {
		code = m.Run()
	} else {
		fmt.Fprintf(os.Stderr, "%v: %s", err, output)
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func TestImage(t *testing.T) {
	second := filepath.Join(t.TempDir(), "datera-provisioner")
	content, err := os.ReadFile(static)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(second, content, 0o700))
	dir := t.TempDir()
	var out bytes.Buffer
	assemble := func(output string) string {
		out.Reset()
		args := []string{"-output", output, "-tag", "datera-flexvolume:v1", "-version", "v1.2.3", "-revision", "abc", static, second}
		require.NoError(t, run(t.Context(), args, "1700000000", &out))
		return out.String()
	}
	archive := filepath.Join(dir, "new", "image.tar")
	said := assemble(archive)

	t.Run("what is printed", func(t *testing.T) {
		require.Regexp(t, `\A\S+/image\.tar datera-flexvolume:v1 sha256:[0-9a-f]{64}\n\z`, said)
	})
	t.Run("again", func(t *testing.T) {
		again := filepath.Join(dir, "again.tar")
		require.Equal(t, strings.Fields(said)[2], strings.Fields(assemble(again))[2], "two runs give two images")
		one, err := os.ReadFile(archive)
		require.NoError(t, err)
		two, err := os.ReadFile(again)
		require.NoError(t, err)
		require.True(t, bytes.Equal(one, two), "two runs give two files")
	})
	image, err := tarball.ImageFromPath(archive, nil)
	require.NoError(t, err)
	t.Run("configuration", func(t *testing.T) {
		require.NoError(t, validate.Image(image))
		config, err := image.ConfigFile()
		require.NoError(t, err)
		require.Equal(t, []string{"/usr/bin/iscsi"}, config.Config.Entrypoint)
		require.Equal(t, []string{"PATH=/usr/bin"}, config.Config.Env)
		require.Equal(t, "65532:65532", config.Config.User)
		require.Equal(t, "linux/amd64", config.OS+"/"+config.Architecture)
		require.Equal(t, int64(1700000000), config.Created.Unix())
		labels := config.Config.Labels
		require.Equal(t, []string{"datera-flexvolume", "v1.2.3", "abc", "Apache-2.0", "2023-11-14T22:13:20Z"}, []string{
			labels["org.opencontainers.image.title"], labels["org.opencontainers.image.version"], labels["org.opencontainers.image.revision"],
			labels["org.opencontainers.image.licenses"], labels["org.opencontainers.image.created"]})
	})
	t.Run("files", func(t *testing.T) {
		bill, err := os.ReadFile(filepath.Join(dir, "new", "image.cdx.json"))
		require.NoError(t, err)
		require.Equal(t, map[string]string{
			"usr/bin/iscsi 0755": string(content), "usr/bin/datera-provisioner 0755": string(content),
			"usr/share/sbom/datera-flexvolume.cdx.json 0644": string(bill),
		}, filesOf(t, image))
	})
	t.Run("bill of materials", func(t *testing.T) {
		file, err := os.Open(filepath.Join(dir, "new", "image.cdx.json"))
		require.NoError(t, err)
		defer file.Close()
		var bill cyclonedx.BOM
		require.NoError(t, cyclonedx.NewBOMDecoder(file, cyclonedx.BOMFileFormatJSON).Decode(&bill))
		listed := map[string]cyclonedx.ComponentType{}
		for _, component := range *bill.Components {
			require.NotContains(t, listed, component.BOMRef, "listed twice")
			listed[component.BOMRef] = component.Type
		}
		require.Equal(t, cyclonedx.ComponentTypeApplication, listed["/usr/bin/iscsi"])
		require.Equal(t, cyclonedx.ComponentTypeApplication, listed["/usr/bin/datera-provisioner"])
		require.Equal(t, cyclonedx.ComponentTypeLibrary, listed["pkg:golang/github.com/google/go-containerregistry@v0.22.1"])
		require.Contains(t, listed, "pkg:golang/github.com/cyclonedx/cyclonedx-go@v0.12.0")
		require.Contains(t, *bill.Dependencies, cyclonedx.Dependency{Ref: "datera-flexvolume", Dependencies: &[]string{"/usr/bin/iscsi", "/usr/bin/datera-provisioner"}})
		for _, dependency := range *bill.Dependencies {
			for _, on := range *dependency.Dependencies {
				require.Contains(t, listed, on, "%s depends on what is not listed", dependency.Ref)
			}
		}
	})
}

// filesOf are the files of an image with their modes, and what is in them.
func filesOf(t *testing.T, image v1.Image) map[string]string {
	t.Helper()
	flat := mutate.Extract(image)
	defer flat.Close()
	files := map[string]string{}
	for r := tar.NewReader(flat); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		require.Zero(t, header.Uid+header.Gid, header.Name)
		require.Equal(t, int64(1700000000), header.ModTime.Unix(), header.Name)
		content, err := io.ReadAll(r)
		require.NoError(t, err)
		files[fmt.Sprintf("%s %04o", header.Name, header.Mode)] = string(content)
	}
}

func TestPush(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	reference := strings.TrimPrefix(server.URL, "http://") + "/storage/datera-flexvolume:v1"
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-output", filepath.Join(t.TempDir(), "image.tar"), "-push", reference, static}, "", &out))
	pushed, err := name.ParseReference(reference)
	require.NoError(t, err)
	there, err := remote.Head(pushed)
	require.NoError(t, err)
	require.Contains(t, out.String(), "/storage/datera-flexvolume@"+there.Digest.String())
}

func TestRefuses(t *testing.T) {
	content, err := os.ReadFile(static)
	require.NoError(t, err)
	dynamic := filepath.Join(t.TempDir(), "dynamic")
	require.NoError(t, os.WriteFile(dynamic, bytes.ReplaceAll(content, []byte("build\tCGO_ENABLED=0"), []byte("build\tCGO_ENABLED=1")), 0o755))
	script := filepath.Join(t.TempDir(), "script")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755))
	tests := map[string]struct {
		args  []string
		epoch string
		says  string
	}{
		"nothing":              {nil, "", "no executables given"},
		"no such file":         {[]string{"/no/such/file"}, "", "/no/such/file"},
		"no Go executable":     {[]string{script}, "", "is no Go executable"},
		"not static":           {[]string{dynamic}, "", "build it with CGO_ENABLED=0"},
		"a time that is none":  {[]string{script}, "yesterday", "seconds since 1970"},
		"a tag that is none":   {[]string{"-tag", "A:B", static}, "", "repository can only contain"},
		"a push to no address": {[]string{"-push", "A:B", static}, "", "A:B"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"-output", filepath.Join(t.TempDir(), "image.tar")}, test.args...)
			require.ErrorContains(t, run(t.Context(), args, test.epoch, io.Discard), test.says)
		})
	}
}
