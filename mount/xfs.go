package mount

import (
	"encoding/binary"
	"hash/crc32"
)

// xfsSuper is what is used of an xfs superblock (struct xfs_dsb, big-endian; kernel, fs/xfs/libxfs/xfs_format.h).
type xfsSuper struct {
	blockSize  int64 // bytes
	blocks     uint64
	unfinished bool   // mkfs.xfs sets this first and clears it last, but never in the spare superblocks
	defect     string // why the superblock cannot be used; "" = it can
}

const (
	xfsMagic      = "XFSB"
	xfsCRCOffset  = 224
	xfsCRCVersion = 5
)

// parseXFS reads an xfs superblock; false when there is none. It stands at the start of each allocation group.
func parseXFS(data []byte) (xfsSuper, bool) {
	if len(data) < 512 || string(data[:4]) != xfsMagic {
		return xfsSuper{}, false
	}
	be := binary.BigEndian
	sectorSize := int(be.Uint16(data[102:]))
	super := xfsSuper{
		blockSize:  int64(be.Uint32(data[4:])),
		blocks:     be.Uint64(data[8:]),
		unfinished: data[126] != 0,
	}
	groupBlocks, groups := be.Uint32(data[84:]), be.Uint32(data[88:])
	switch {
	case !powerOfTwo(super.blockSize, 512, 65536), !powerOfTwo(int64(sectorSize), 512, 32768), sectorSize > len(data):
		super.defect = "impossible block or sector size"
	case groups == 0 || groupBlocks == 0 || super.blocks > uint64(groups)*uint64(groupBlocks) ||
		super.blocks <= uint64(groups-1)*uint64(groupBlocks):
		super.defect = "its sizes contradict each other"
	case be.Uint16(data[100:])&0xf == xfsCRCVersion && !xfsCRCFits(data[:sectorSize]):
		super.defect = "wrong checksum"
	}
	return super, true
}

func xfsCRCFits(sector []byte) bool {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, sector[:xfsCRCOffset])
	sum = crc32.Update(sum, table, make([]byte, 4)) // the field itself counts as zero
	sum = crc32.Update(sum, table, sector[xfsCRCOffset+4:])
	return sum == binary.LittleEndian.Uint32(sector[xfsCRCOffset:])
}

func (s xfsSuper) finding() finding {
	return finding{filesystem: "xfs", what: "xfs superblock", bytes: sizeInBytes(s.blocks, s.blockSize), defect: s.defect}
}
