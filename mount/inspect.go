package mount

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Content is what a device holds.
type Content struct {
	Blank      bool   // every place that was read is zero, and every read succeeded in full
	Filesystem string // what was recognised, by the name that blkid has for it: "xfs", "ext4", "LVM2_member", "gpt", …; "" = nothing
	Damaged    bool   // Filesystem was recognised, but its primary superblock is destroyed, unfinished or wrong: a mount would fail
	Detail     string // what was found and where, for people
	Bytes      int64  // size of the device
}

// readers is how many reads are under way at once: enough to hide the latency of a network, too few to crowd it.
const readers = 16

// Inspect reads what a device holds. A sound xfs or ext4 is known after one read of 4 KiB. For anything else the device's
// edges and all places where xfs, ext2/3/4 and btrfs keep spare superblocks are read, past the page cache. An error means
// that the content is unknown. Inspect starts no program and writes nothing.
func (m *Mounter) Inspect(ctx context.Context, device string) (Content, error) {
	return m.inspect(ctx, device, false)
}

func (m *Mounter) inspect(ctx context.Context, device string, exclusive bool) (Content, error) {
	content, err := inContext(ctx, func() (Content, error) {
		if err := m.mustRun(device); err != nil {
			return Content{}, err
		}
		d, err := openDevice(device, exclusive)
		if err != nil {
			return Content{}, err
		}
		defer d.close()
		return d.content(ctx)
	})
	if err != nil {
		return Content{}, fmt.Errorf("inspect %s: %w (its content is unknown, so it is not formatted)", device, err)
	}
	return content, nil
}

// mustRun refuses a disk whose connection is down, and a multipath map without a path whose is not. A reader would be stuck until the kernel gives up, and a process with
// a stuck reader cannot exit.
func (m *Mounter) mustRun(device string) error {
	number, err := numberOf(device)
	if err != nil {
		return nil // not a block device, or none at all: opening it will tell
	}
	if state := m.diskState(number); state != "" && state != diskRunning {
		return fmt.Errorf("the disk is in state %q: its connection to the storage is down", state)
	}
	if states, mapped := m.pathStates(number); mapped && !slices.Contains(states, diskRunning) {
		return fmt.Errorf("no path of the multipath map runs (states: %q): its connection to the storage is down", states)
	}
	return nil
}

func (d *blockDevice) content(ctx context.Context) (Content, error) {
	page, err := d.read(alignedBuffer(pageSize), 0)
	if err != nil {
		return Content{}, err
	}
	if content, found := d.primary(page); found {
		return content, nil
	}
	all := places(d.size, d.minimumIO)
	head, err := d.read(alignedBuffer(all[0].length), 0)
	if err != nil {
		return Content{}, err
	}
	last := all[len(all)-1]
	tail, err := d.read(alignedBuffer(last.length), last.offset)
	if err != nil {
		return Content{}, err
	}
	if f, found := recognise(head, tail, d.size); found {
		return Content{Filesystem: f.filesystem, Detail: f.String(), Bytes: d.size}, nil
	}
	spares, err := d.readSpares(ctx, all)
	if err != nil {
		return Content{}, err
	}
	return d.judge(head, tail, last.offset, spares), nil
}

// primary judges the superblocks at the device's very beginning.
func (d *blockDevice) primary(page []byte) (Content, bool) {
	var found []finding
	if super, is := parseXFS(page); is {
		if super.unfinished {
			super.defect = "mkfs.xfs did not come to its end"
		}
		found = append(found, super.finding())
	}
	if len(page) > extSuperOffset {
		if super, is := parseExt(page[extSuperOffset:]); is {
			f := super.finding()
			f.offset = extSuperOffset
			found = append(found, f)
		}
	}
	switch len(found) {
	case 0:
		return Content{}, false
	case 1:
	default:
		return Content{Detail: fmt.Sprintf("two file systems: %s, and %s", found[0], found[1]), Bytes: d.size}, true
	}
	f := found[0]
	if f.defect == "" && f.bytes > d.size {
		f.defect = fmt.Sprintf("the device has only %d bytes", d.size)
	}
	return Content{Filesystem: f.filesystem, Damaged: f.defect != "", Detail: f.String(), Bytes: d.size}, true
}

// readSpares reads all places, several at once, and returns what is not zero in ascending order.
func (d *blockDevice) readSpares(ctx context.Context, all []place) ([]finding, error) {
	var (
		next  atomic.Int64
		mutex sync.Mutex
		found []finding
		first error
		group sync.WaitGroup
	)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for range min(readers, len(all)) {
		group.Go(func() {
			buf := alignedBuffer(pageSize)
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= int64(len(all)) {
					return
				}
				is := false
				f, err := guarded(func() (f finding, err error) {
					f, is, err = d.readSpare(buf, all[i])
					return f, err
				})
				mutex.Lock()
				if is {
					found = append(found, f)
				}
				if err != nil && first == nil {
					first = err
					stop()
				}
				mutex.Unlock()
			}
		})
	}
	group.Wait()
	if first == nil {
		first = context.Cause(ctx)
	}
	slices.SortFunc(found, func(a, b finding) int { return cmp.Compare(a.offset, b.offset) })
	return found, first
}

func (d *blockDevice) readSpare(buf []byte, at place) (finding, bool, error) {
	if at.length > pageSize { // an edge, which was read before
		return finding{}, false, nil
	}
	page, err := d.read(buf, at.offset)
	if err != nil {
		return finding{}, false, err
	}
	if f, found := spare(page, at.offset); found {
		return f, true, nil
	}
	f, found := nonZero(page, at.offset)
	return f, found, nil
}

// judge says what a device is whose beginning holds no file system and no signature.
func (d *blockDevice) judge(head, tail []byte, tailOffset int64, spares []finding) Content {
	content := Content{Bytes: d.size}
	for _, f := range spares {
		if f.filesystem != "" {
			content.Filesystem, content.Damaged = f.filesystem, true
			content.Detail = fmt.Sprintf("%s; the primary superblock at the beginning of the device is destroyed", f)
			return content
		}
	}
	found := spares
	if f, is := nonZero(tail, tailOffset); is {
		found = append(found, f)
	}
	if f, is := nonZero(head, 0); is {
		found = append([]finding{f}, found...)
	}
	if len(found) == 0 {
		content.Blank = true
		content.Detail = "all places that were read are zero"
		return content
	}
	content.Detail = found[0].String() + ", of no file system that is known here"
	return content
}
