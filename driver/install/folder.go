package install

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"datera-flexvolume/driver"
)

const (
	// binaryName is how kubelet finds driver datera/iscsi in its folder.
	binaryName = "iscsi"
	// The dot-files beside the executable.
	configName     = ".datera-config"
	authorityName  = ".datera-ca.pem"
	initiatorsName = ".datera-initiators" // the IQNs under which this host was registered
	leavingName    = ".iscsi.leaving"     // the executable while Uninstall is under way

	stagedMark = ".new-"
)

// changes is what is done to the driver's folder. Each is whole or not done at all, whenever the process dies.
type changes interface {
	MakeDir(path string) error
	// Stage writes a file to the disk under the name of a dot-file beside path, and returns that name.
	Stage(path string, content io.Reader, mode fs.FileMode) (staged string, err error)
	Rename(from, to string) error
	Link(from, to string) error
	Remove(path string) error
}

// folder is the driver's folder on the host, as this process sees it.
type folder struct {
	path string
	changes
}

func (i *Installer) folder() folder {
	if i.changes == nil {
		i.changes = realChanges{}
	}
	return folder{filepath.Join(i.onHost(i.PluginDir), driver.FolderName), i.changes}
}

// named is how the host names a file of the driver's folder, for people.
func (i *Installer) named(name string) string {
	return filepath.Join(i.PluginDir, driver.FolderName, name)
}

func (f folder) file(name string) string { return filepath.Join(f.path, name) }

// put makes a file have this content, for root alone to read. It does nothing when that is so already.
func (f folder) put(name string, content []byte) (changed bool, err error) {
	const mode = 0o600
	present, err := os.ReadFile(f.file(name))
	if err == nil && bytes.Equal(present, content) && f.hasMode(name, mode) {
		return false, nil
	}
	staged, err := f.Stage(f.file(name), bytes.NewReader(content), mode)
	if err != nil {
		return false, err
	}
	return true, f.Rename(staged, f.file(name))
}

func (f folder) hasMode(name string, mode fs.FileMode) bool {
	info, err := os.Lstat(f.file(name))
	return err == nil && info.Mode() == mode // of a regular file: type and permissions
}

// leftovers are the files that an installation which was cut off has staged. A name selects those of one file.
func (f folder) leftovers(name string) []string {
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return nil
	}
	var paths []string
	for _, entry := range entries {
		if of, _, staged := strings.Cut(entry.Name(), stagedMark); staged && (name == "" || of == stagedPrefix(name)) {
			paths = append(paths, f.file(entry.Name()))
		}
	}
	return paths
}

func stagedPrefix(name string) string { return "." + strings.TrimPrefix(name, ".") }

func (f folder) removeAll(paths ...string) error {
	for _, path := range paths {
		if err := f.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// realChanges are made on the disk.
type realChanges struct{}

func (realChanges) MakeDir(path string) error { return explain(os.MkdirAll(path, 0o755)) }

func (realChanges) Stage(path string, content io.Reader, mode fs.FileMode) (string, error) {
	file, err := os.CreateTemp(filepath.Dir(path), stagedPrefix(filepath.Base(path))+stagedMark+"*")
	if err != nil {
		return "", explain(err)
	}
	_, err = io.Copy(file, content)
	if err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close()); err != nil {
		return "", explain(errors.Join(err, os.Remove(file.Name())))
	}
	return file.Name(), nil
}

func (realChanges) Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return explain(err)
	}
	return syncDir(filepath.Dir(to))
}

func (realChanges) Link(from, to string) error { return explain(os.Link(from, to)) }

func (realChanges) Remove(path string) error {
	if err := os.Remove(path); err != nil {
		return explain(err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// explain adds what to do about a host whose plug-in folder cannot be written.
func explain(err error) error {
	if errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("%w: start kubelet with --volume-plugin-dir on a folder that can be written, and name the same to --plugin-dir", err)
	}
	return err
}

// digestOf is the SHA-256 of a file.
func digestOf(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
