package cluster

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
)

// busyboxPrograms are the names under which the image has busybox.
var busyboxPrograms = []string{"sh", "cat", "chown", "date", "dd", "df", "echo", "id", "ls", "mkdir", "mount", "rm", "sha256sum", "sleep", "stat", "sync", "touch", "true"}

// imageArchive is a container image of one layer, busybox and the files of a folder, in the format of `docker save`. Its
// program sleeps.
func imageArchive(names []string, busybox []byte, folder string) ([]byte, error) {
	var layer bytes.Buffer
	files := tar.NewWriter(&layer)
	for _, dir := range []string{"bin/", "data/", "dev/", "etc/", "proc/", "sys/", "tmp/"} {
		if err := files.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	if err := addFile(files, "bin/busybox", busybox, 0o755); err != nil {
		return nil, err
	}
	for _, program := range busyboxPrograms {
		if err := files.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + program, Linkname: "busybox"}); err != nil {
			return nil, err
		}
	}
	if folder != "" {
		if err := files.AddFS(os.DirFS(folder)); err != nil {
			return nil, err
		}
	}
	if err := files.Close(); err != nil {
		return nil, err
	}

	type object = map[string]any
	config, err := json.Marshal(object{
		"architecture": "amd64", "os": "linux",
		"config": object{"Entrypoint": []string{"/bin/sleep", "1000000000"}, "Env": []string{"PATH=/usr/bin:/bin"}},
		"rootfs": object{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes()))}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal([]object{{"Config": "config.json", "RepoTags": names, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	parts := tar.NewWriter(&archive)
	for _, part := range []struct {
		name    string
		content []byte
	}{{"manifest.json", manifest}, {"config.json", config}, {"layer.tar", layer.Bytes()}} {
		if err := addFile(parts, part.name, part.content, 0o644); err != nil {
			return nil, err
		}
	}
	return archive.Bytes(), parts.Close()
}

func addFile(archive *tar.Writer, name string, content []byte, mode int64) error {
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}
