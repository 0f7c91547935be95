package mount

import (
	"encoding/binary"
	"hash/crc32"
)

// extSuper is what is used of the superblock of ext2, ext3 and ext4 (little-endian; kernel,
// Documentation/filesystems/ext4/super.rst).
type extSuper struct {
	version   string // "ext2", "ext3", "ext4", or "jbd" for a journal on a device of its own
	blockSize int64  // bytes
	blocks    uint64
	group     int // the block group that this copy stands in; 0 is the primary
	defect    string
}

const (
	extSuperOffset = 1024 // from the start of the file system, whatever the block size
	extSuperSize   = 1024
	extMagic       = 0xef53

	extCompatJournal      = 0x4
	extIncompatJournalDev = 0x8
	extIncompat64Bit      = 0x80
	extROCompatChecksums  = 0x400
	// Features up to ext3; any other makes it ext4.
	ext3Incompat = 0x2 | 0x4 | 0x10
	ext3ROCompat = 0x1 | 0x2 | 0x4
)

// parseExt reads the superblock that data begins with; false when there is none.
func parseExt(data []byte) (extSuper, bool) {
	le := binary.LittleEndian
	if len(data) < extSuperSize || le.Uint16(data[0x38:]) != extMagic {
		return extSuper{}, false
	}
	compat, incompat, roCompat := le.Uint32(data[0x5c:]), le.Uint32(data[0x60:]), le.Uint32(data[0x64:])
	logBlockSize := le.Uint32(data[0x18:])
	super := extSuper{version: extVersion(compat, incompat, roCompat), group: int(le.Uint16(data[0x5a:])), blocks: uint64(le.Uint32(data[4:]))}
	if incompat&extIncompat64Bit != 0 {
		super.blocks |= uint64(le.Uint32(data[0x150:])) << 32
	}
	if logBlockSize > 6 {
		super.defect = "impossible block size"
		return super, true
	}
	super.blockSize = 1024 << logBlockSize
	switch {
	case super.blocks == 0 || le.Uint32(data[0x20:]) == 0:
		super.defect = "its sizes contradict each other"
	case le.Uint32(data[0x28:]) == 0 && super.version != "jbd":
		super.defect = "it has no inodes"
	case roCompat&extROCompatChecksums != 0 && !extChecksumFits(data[:extSuperSize]):
		super.defect = "wrong checksum"
	}
	return super, true
}

func extVersion(compat, incompat, roCompat uint32) string {
	switch {
	case incompat&extIncompatJournalDev != 0:
		return "jbd"
	case incompat&^ext3Incompat != 0 || roCompat&^ext3ROCompat != 0:
		return "ext4"
	case compat&extCompatJournal != 0:
		return "ext3"
	}
	return "ext2"
}

func extChecksumFits(super []byte) bool {
	const field = extSuperSize - 4
	sum := ^crc32.Checksum(super[:field], crc32.MakeTable(crc32.Castagnoli)) // stored without the final inversion
	return sum == binary.LittleEndian.Uint32(super[field:])
}

func (s extSuper) finding() finding {
	return finding{filesystem: s.version, what: s.version + " superblock", bytes: sizeInBytes(s.blocks, s.blockSize), defect: s.defect}
}
