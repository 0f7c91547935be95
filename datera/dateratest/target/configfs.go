package target

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// tree is the part of configfs that LIO is driven by. Paths are relative to /sys/kernel/config/target.
// In configfs making a folder makes an object, with its attributes as files, and removing it unmakes it.
type tree interface {
	Mkdir(path string) error        // one that is there is no error
	Remove(path string) error       // a folder or a link; one that is not there is no error
	Link(object, path string) error // one that is there is no error
	Links(path string) []string     // names of the links in a folder
	Folders(path string) []string   // names of the folders in a folder
	Read(path string) string        // an attribute without white space around it, "" if it is not there
	Write(path, value string) error // an attribute
	Linked(path string) (to string) // last element of what a link leads to, "" if there is no such link
}

// configFS is the kernel's tree.
type configFS struct{ root string }

func (c configFS) at(path string) string { return filepath.Join(c.root, path) }

func (c configFS) Mkdir(path string) error {
	if err := os.Mkdir(c.at(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (c configFS) Remove(path string) error {
	if err := os.Remove(c.at(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (c configFS) Link(object, path string) error {
	if err := os.Symlink(c.at(object), c.at(path)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (c configFS) names(path string, kind fs.FileMode) []string {
	entries, _ := os.ReadDir(c.at(path)) // what is not there has no entries
	var names []string
	for _, e := range entries {
		if e.Type() == kind {
			names = append(names, e.Name())
		}
	}
	return names
}

func (c configFS) Links(path string) []string   { return c.names(path, fs.ModeSymlink) }
func (c configFS) Folders(path string) []string { return c.names(path, fs.ModeDir) }

func (c configFS) Read(path string) string {
	text, _ := os.ReadFile(c.at(path)) // what is not there is empty
	return strings.TrimSpace(string(text))
}

// Write must neither create nor truncate: an attribute takes one write.
func (c configFS) Write(path, value string) error {
	f, err := os.OpenFile(c.at(path), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

func (c configFS) Linked(path string) string {
	to, err := os.Readlink(c.at(path))
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}

const (
	configRoot    = "/sys/kernel/config"
	configfsMagic = 0x62656570 // linux/magic.h
)

// loadLIO loads the kernel's target and mounts configfs, as far as that has not been done.
func loadLIO(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("the kernel's iSCSI target needs root: run as root or choose another target")
	}
	// A failure matters only when what the modules make is not there: they may be built in.
	_, loading := run(ctx, "/", nil, "modprobe", "-a", "target_core_mod", "target_core_iblock", "iscsi_target_mod", "loop")
	var about unix.Statfs_t
	if err := unix.Statfs(configRoot, &about); err == nil && about.Type != configfsMagic {
		if err := unix.Mount("none", configRoot, "configfs", 0, ""); err != nil {
			return fmt.Errorf("mount configfs on %s: %w", configRoot, err)
		}
	}
	if err := os.Mkdir(filepath.Join(configRoot, "target/iscsi"), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("the kernel's iSCSI target is not there: %w; it needs the modules target_core_mod, target_core_iblock, "+
			"iscsi_target_mod and loop (%w); choose another target on kernels without them", err, loading)
	}
	return nil
}
