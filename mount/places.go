package mount

import (
	"maps"
	"slices"
)

// place is a piece of a device that is read to find out whether the device is blank.
type place struct{ offset, length int64 }

// edgeSize is how much is read at the device's beginning and at its end. There most file systems, volume managers
// and partition tables have their headers, and at the end their spare ones (GPT, md, ZFS).
const edgeSize = 2 << 20

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
	tib = int64(1) << 40
)

// places returns, in ascending order, what of a device is read: both edges whole, and one page wherever
// xfs, ext2/3/4 or btrfs keep a spare superblock. Their number grows with the logarithm of the size up to 1 TiB and is
// limited beyond, so it takes some hundred reads to look at any device.
func places(size, minimumIO int64) []place {
	if size <= 2*edgeSize {
		return []place{{0, size}}
	}
	tail := (size - edgeSize) / pageSize * pageSize
	pages := map[int64]bool{}
	add := func(offset int64) {
		page := offset / pageSize * pageSize
		if page >= edgeSize && page < tail {
			pages[page] = true
		}
	}
	xfsPlaces(size, minimumIO, add)
	grownPlaces(size, add)
	extPlaces(size, add)
	for _, offset := range []int64{64 * mib, 256 * gib, 1024 * tib} { // btrfs (on-disk format, superblock mirrors)
		add(offset)
	}

	all := []place{{0, edgeSize}}
	for _, page := range slices.Sorted(maps.Keys(pages)) {
		all = append(all, place{page, pageSize})
	}
	return append(all, place{tail, size - tail})
}

// xfsPlaces adds the starts of the allocation groups of a file system that mkfs.xfs made at the device's present size.
// mkfs.xfs divides it by 4, or by up to 32 when it knows of a stripe, and then fits the groups to the stripe unit: down or
// up to a multiple, less one unit if all groups would begin on the same disk (xfsprogs, calc_default_ag_geometry and
// align_ag_geometry). No group is larger than 1 TiB less a block.
func xfsPlaces(size, minimumIO int64, add func(int64)) {
	units := []int64{minimumIO}
	for unit := 8 * kib; unit <= mib; unit *= 2 { // a stripe may also be given to mkfs by hand
		units = append(units, unit)
	}
	for _, share := range []int64{4, 2, 8, 16, 32} {
		for _, block := range []int64{512, kib, 2 * kib, 4 * kib, 64 * kib} {
			blocks := size / block
			xfsGroups(size, min((blocks+share-1)/share*block, tib-block), add)
		}
		for _, unit := range units {
			if unit < 4*kib {
				continue
			}
			down := min(size/share, tib-4*kib) / unit * unit
			for _, group := range []int64{down - unit, down, down + unit} {
				add(group)
				add(2 * group)
			}
		}
	}
}

// xfsGroups adds the first groups, the middle one (it has the journal) and the last.
func xfsGroups(size, group int64, add func(int64)) {
	if group <= 0 {
		return
	}
	count := size / group
	for _, n := range []int64{1, 2, 3, count / 2, count - 1, count} {
		if n > 0 && n*group < size {
			add(n * group)
		}
	}
}

// grownPlaces adds the starts of allocation groups of an xfs that was made when the device was smaller. Its first size
// is not known, but people choose round ones: a quarter of so many GiB, of tens, of hundreds; from 4 TiB on, groups of 1 TiB.
func grownPlaces(size int64, add func(int64)) {
	for _, grid := range []struct{ step, end int64 }{
		{256 * mib, 32 * gib},
		{2560 * mib, 256 * gib},
		{25 * gib, tib},
		{tib, 128 * tib},
		{tib - 4*kib, 128 * tib},
	} {
		for offset := grid.step; offset <= min(grid.end, size-1); offset += grid.step {
			add(offset)
		}
	}
}

// extPlaces adds the block groups with a spare superblock: group 1 and the powers of 3, 5 and 7 (sparse_super), and
// the last one (sparse_super2). A group has eight times as many blocks as a block has bytes.
func extPlaces(size int64, add func(int64)) {
	for _, block := range []int64{kib, 2 * kib, 4 * kib, 64 * kib} {
		group := 8 * block * block
		for _, base := range []int64{3, 5, 7} {
			for n := int64(1); n <= size/group; n *= base {
				add(n * group)
			}
		}
		add((size - 1) / group * group)
	}
}
