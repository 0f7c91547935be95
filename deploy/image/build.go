package main

import (
	"archive/tar"
	"bytes"
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const (
	title        = "datera-flexvolume"
	licence      = "Apache-2.0"
	binDir       = "usr/bin"
	billPath     = "usr/share/sbom/" + title + ".cdx.json"
	unprivileged = "65532:65532" // nobody in particular; what needs root says so in its manifest
)

// contents is what goes into an image.
type contents struct {
	executables []string // paths; the first is the entry point
	version     string
	revision    string
	created     time.Time
}

// executable is a Go program with what its linker wrote into it.
type executable struct {
	name    string
	content []byte
	info    *buildinfo.BuildInfo
}

// build makes the image, and its bill of materials in CycloneDX's JSON.
func build(c contents) (v1.Image, []byte, error) {
	var programs []executable
	for _, path := range c.executables {
		program, err := readExecutable(path)
		if err != nil {
			return nil, nil, err
		}
		programs = append(programs, program)
	}
	bill, err := billOfMaterials(c, programs)
	if err != nil {
		return nil, nil, err
	}
	var layers []mutate.Addendum
	add := func(path string, content []byte, mode int64) error {
		layer, err := layerOf(path, content, mode, c.created)
		if err != nil {
			return fmt.Errorf("layer of %s: %w", path, err)
		}
		layers = append(layers, mutate.Addendum{Layer: layer, History: v1.History{CreatedBy: "/" + path, Created: v1.Time{Time: c.created}}})
		return nil
	}
	for _, program := range programs {
		if err := add(binDir+"/"+program.name, program.content, 0o755); err != nil {
			return nil, nil, err
		}
	}
	if err := add(billPath, bill, 0o644); err != nil {
		return nil, nil, err
	}
	image, err := mutate.Append(empty.Image, layers...)
	if err != nil {
		return nil, nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", setting(programs[0].info, "GOARCH"), v1.Time{Time: c.created}
	config.Config = v1.Config{
		Entrypoint: []string{"/" + binDir + "/" + programs[0].name},
		Env:        []string{"PATH=/" + binDir},
		User:       unprivileged,
		WorkingDir: "/",
		Labels: map[string]string{
			"org.opencontainers.image.title":       title,
			"org.opencontainers.image.description": "FlexVolume driver datera/iscsi: installer, driver and provisioner",
			"org.opencontainers.image.version":     c.version,
			"org.opencontainers.image.revision":    c.revision,
			"org.opencontainers.image.created":     c.created.Format(time.RFC3339),
			"org.opencontainers.image.licenses":    licence,
		},
	}
	image, err = mutate.ConfigFile(image, config)
	return image, bill, err
}

// readExecutable refuses what would not run without anything beside it.
func readExecutable(path string) (executable, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return executable{}, err
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return executable{}, fmt.Errorf("%s is no Go executable: %w", path, err)
	}
	if setting(info, "CGO_ENABLED") != "0" || setting(info, "GOOS") != "linux" {
		return executable{}, fmt.Errorf("%s is not a static executable for Linux: build it with CGO_ENABLED=0 GOOS=linux", path)
	}
	return executable{name: filepath.Base(path), content: content, info: info}, nil
}

func setting(info *buildinfo.BuildInfo, key string) string {
	for _, setting := range info.Settings {
		if setting.Key == key {
			return setting.Value
		}
	}
	return ""
}

// layerOf is a layer with one file of root's.
func layerOf(path string, content []byte, mode int64, modified time.Time) (v1.Layer, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	header := &tar.Header{Typeflag: tar.TypeReg, Name: path, Size: int64(len(content)), Mode: mode, ModTime: modified, Format: tar.FormatPAX}
	if err := w.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil }, tarball.WithCompressedCaching)
}
