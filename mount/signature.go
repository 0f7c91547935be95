package mount

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
)

// signature is a fixed mark at a fixed offset.
type signature struct {
	name   string // as blkid calls it
	offset int64
	mark   string
}

// headSignatures are the marks that other owners of a block device leave near its beginning.
var headSignatures = []signature{
	{"crypto_LUKS", 0, "LUKS\xba\xbe"},
	{"crypto_LUKS", 16 * kib, "SKUL\xba\xbe"}, // second header of LUKS2 with the default size of the first
	{"LVM2_member", 0x000, "LABELONE"},
	{"LVM2_member", 0x200, "LABELONE"},
	{"LVM2_member", 0x400, "LABELONE"},
	{"LVM2_member", 0x600, "LABELONE"},
	{"linux_raid_member", 0, "\xfc\x4e\x2b\xa9"},
	{"linux_raid_member", 4 * kib, "\xfc\x4e\x2b\xa9"},
	{"btrfs", 64*kib + 64, "_BHRfS_M"},
	{"swap", 4*kib - 10, "SWAPSPACE2"},
	{"swap", 64*kib - 10, "SWAPSPACE2"},
	{"ceph_bluestore", 0, "bluestore block device"},
	{"f2fs", kib, "\x10\x20\xf5\xf2"},
	{"ntfs", 3, "NTFS    "},
	{"exfat", 3, "EXFAT   "},
	{"vfat", 54, "FAT1"},
	{"vfat", 82, "FAT32   "},
	{"VMFS_volume_member", mib, "\x0d\xd0\x01\xc0"},
	{"gpt", 512, "EFI PART"},
	{"gpt", 4 * kib, "EFI PART"},
}

// recognise names what the beginning and the end of a device hold; false when there is nothing that it knows.
func recognise(head, tail []byte, size int64) (finding, bool) {
	for _, s := range headSignatures {
		if has(head, s.offset, s.mark) {
			return named(s.name, s.offset), true
		}
	}
	if offset, found := findZFS(head, tail, size); found {
		return named("zfs_member", offset), true
	}
	if name, offset, found := findAtEnd(tail, size); found {
		return named(name, offset), true
	}
	if hasPartitions(head) {
		return named("dos", 510), true
	}
	return finding{}, false
}

func named(name string, offset int64) finding {
	return finding{offset: offset, filesystem: name, what: name + " signature"}
}

func has(data []byte, offset int64, mark string) bool {
	return offset >= 0 && offset+int64(len(mark)) <= int64(len(data)) && string(data[offset:offset+int64(len(mark))]) == mark
}

// findAtEnd looks for what has its only or its spare header at the end: GPT, and md RAID of the formats 0.90 and 1.0
// (kernel, Documentation/admin-guide/md.rst; mdadm, super0.c and super1.c).
func findAtEnd(tail []byte, size int64) (string, int64, bool) {
	start := size - int64(len(tail))
	for _, s := range []signature{
		{"gpt", size - 512, "EFI PART"},
		{"gpt", size - 4*kib, "EFI PART"},
		{"linux_raid_member", (size/512 - 16) &^ 7 * 512, "\xfc\x4e\x2b\xa9"},
		{"linux_raid_member", size&^(64*kib-1) - 64*kib, "\xfc\x4e\x2b\xa9"},
	} {
		if has(tail, s.offset-start, s.mark) {
			return s.name, s.offset, true
		}
	}
	return "", 0, false
}

// findZFS looks for an uberblock in the four labels of a vdev, two at each end (ZFS on-disk specification, chapter 1).
func findZFS(head, tail []byte, size int64) (int64, bool) {
	const label, ring = 256 * kib, 128 * kib
	const magic = 0x00bab10c
	end := size / label * label
	start := size - int64(len(tail))
	labels := []struct {
		data []byte
		at   int64 // of the label, in data
		base int64 // of data, on the device
	}{{head, 0, 0}, {head, label, 0}, {tail, end - 2*label - start, start}, {tail, end - label - start, start}}
	for _, l := range labels {
		for at := l.at + ring; at < l.at+label; at += kib {
			if at < 0 || at+8 > int64(len(l.data)) {
				continue
			}
			mark := l.data[at : at+8]
			if binary.LittleEndian.Uint64(mark) == magic || binary.BigEndian.Uint64(mark) == magic {
				return l.base + at, true
			}
		}
	}
	return 0, false
}

// hasPartitions recognises a master boot record that has at least one partition.
func hasPartitions(head []byte) bool {
	if !has(head, 510, "\x55\xaa") {
		return false
	}
	for entry := 446; entry < 510; entry += 16 {
		active, kind, sectors := head[entry], head[entry+4], binary.LittleEndian.Uint32(head[entry+12:])
		if (active == 0 || active == 0x80) && kind != 0 && sectors != 0 {
			return true
		}
	}
	return false
}

// spare looks for a spare superblock of xfs, ext2/3/4 or btrfs in a page that was read at an offset.
func spare(page []byte, offset int64) (finding, bool) {
	for at := 0; at+512 <= len(page); at += 512 { // groups start at whole blocks, which may be as small as a sector
		if super, found := parseXFS(page[at:]); found && super.defect == "" {
			f := super.finding()
			f.offset = offset + int64(at)
			return f, true
		}
	}
	for _, at := range []int{0, extSuperOffset} { // with blocks of 1 KiB groups start behind block 0
		if at >= len(page) {
			break
		}
		if super, found := parseExt(page[at:]); found && super.defect == "" {
			f := super.finding()
			f.offset = offset + int64(at)
			return f, true
		}
	}
	if has(page, 64, "_BHRfS_M") {
		return named("btrfs", offset+64), true
	}
	return finding{}, false
}

// nonZero finds the first byte that is not zero.
func nonZero(data []byte, offset int64) (finding, bool) {
	for chunk := range slices.Chunk(data, len(zeros)) {
		if !bytes.Equal(chunk, zeros[:len(chunk)]) {
			first := slices.IndexFunc(chunk, func(b byte) bool { return b != 0 })
			return finding{offset: offset + int64(first), what: fmt.Sprintf("non-zero bytes (0x%02x)", chunk[first])}, true
		}
		offset += int64(len(chunk))
	}
	return finding{}, false
}

var zeros [pageSize]byte
