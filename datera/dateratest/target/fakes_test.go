package target

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

// fakeTree is configfs as far as the kernel's rules matter: folders come with their attributes, an object that
// something links to or that holds something cannot be removed, and an enabled group is needed for nothing.
type fakeTree struct {
	folders map[string]bool
	links   map[string]string
	values  map[string]string
	log     []string // what changed
	refuse  string   // an operation that fails
}

func newFakeTree() *fakeTree {
	return &fakeTree{folders: map[string]bool{"core": true, "iscsi": true}, links: map[string]string{}, values: map[string]string{}}
}

func (f *fakeTree) note(format string, args ...any) error {
	entry := fmt.Sprintf(format, args...)
	if f.refuse != "" && strings.HasPrefix(entry, f.refuse) {
		return fmt.Errorf("%s: %w", entry, os.ErrPermission)
	}
	f.log = append(f.log, entry)
	return nil
}

// inherent folders come and go with their parent.
func inherent(p string) bool {
	return slices.Contains([]string{"lun", "np", "acls", "attrib", "auth", "wwn"}, path.Base(p))
}

func (f *fakeTree) Mkdir(p string) error {
	if f.folders[p] {
		return nil
	}
	if dir := path.Dir(p); !f.folders[dir] && !(inherent(dir) && f.folders[path.Dir(dir)]) {
		return fmt.Errorf("mkdir %s: %w", p, os.ErrNotExist)
	}
	if err := f.note("mkdir %s", p); err != nil {
		return err
	}
	f.folders[p] = true
	if strings.HasPrefix(path.Base(p), "tpgt_") {
		f.values[p+"/attrib/authentication"], f.values[p+"/enable"] = "1", "0"
	}
	return nil
}

func (f *fakeTree) Remove(p string) error {
	if f.links[p] != "" {
		delete(f.links, p)
		return f.note("rm %s", p)
	}
	if !f.folders[p] {
		return nil
	}
	for other := range f.folders {
		if strings.HasPrefix(other, p+"/") {
			return fmt.Errorf("rmdir %s: %s is in it", p, other)
		}
	}
	for link, to := range f.links {
		if to == p || strings.HasPrefix(link, p+"/") {
			return fmt.Errorf("rmdir %s: %s links to it", p, link)
		}
	}
	for name := range f.values {
		if strings.HasPrefix(name, p+"/") {
			delete(f.values, name)
		}
	}
	delete(f.folders, p)
	return f.note("rmdir %s", p)
}

func (f *fakeTree) Link(object, p string) error {
	if f.links[p] != "" {
		return nil
	}
	if !f.folders[object] || !f.folders[path.Dir(p)] {
		return fmt.Errorf("link %s to %s: %w", p, object, os.ErrNotExist)
	}
	if err := f.note("link %s", p); err != nil {
		return err
	}
	f.links[p] = object
	return nil
}

func (f *fakeTree) Links(p string) []string {
	var names []string
	for link := range f.links {
		if path.Dir(link) == p {
			names = append(names, path.Base(link))
		}
	}
	slices.Sort(names)
	return names
}

func (f *fakeTree) Folders(p string) []string {
	var names []string
	for folder := range f.folders {
		if path.Dir(folder) == p {
			names = append(names, path.Base(folder))
		}
	}
	slices.Sort(names)
	return names
}

func (f *fakeTree) Read(p string) string { return f.values[p] }

func (f *fakeTree) Write(p, value string) error {
	dir := path.Dir(p)
	if !f.folders[dir] && !(inherent(dir) && f.folders[path.Dir(dir)]) {
		return fmt.Errorf("write %s: %w", p, os.ErrNotExist)
	}
	if err := f.note("write %s=%s", p, value); err != nil {
		return err
	}
	if value == "NULL" {
		value = ""
	}
	f.values[p] = value
	return nil
}

func (f *fakeTree) Linked(p string) string {
	if f.links[p] == "" {
		return ""
	}
	return path.Base(f.links[p])
}

// fakeLoops are loop devices of files whose sizes the test says.
type fakeLoops struct {
	files map[string]string // by device
	sizes map[string]int64
	fail  error
}

func (f *fakeLoops) Attach(file string) (string, error) {
	device := fmt.Sprintf("/dev/loop%d", len(f.files))
	f.files[device], f.sizes[device] = file, 1<<30
	return device, f.fail
}

func (f *fakeLoops) Detach(device string) error { delete(f.files, device); return nil }
func (f *fakeLoops) Fit(device string) error    { f.sizes[device] = 2 << 30; return nil }
func (f *fakeLoops) Size(device string) int64   { return f.sizes[device] }
func (f *fakeLoops) Of(dir string) (all []string) {
	for device, file := range f.files {
		if strings.HasPrefix(file, dir+"/") {
			all = append(all, device)
		}
	}
	return all
}
