package mount

import "fmt"

// finding is one thing recognised on a device.
type finding struct {
	offset     int64
	filesystem string // "" for bytes that no known signature explains
	what       string
	bytes      int64  // size of the file system by its own word; 0 is unknown
	defect     string // why it cannot be used
}

func (f finding) String() string {
	text := fmt.Sprintf("%s at offset %d", f.what, f.offset)
	if f.bytes > 0 {
		text += fmt.Sprintf(" (a file system of %d bytes)", f.bytes)
	}
	if f.defect != "" {
		text += ", unusable: " + f.defect
	}
	return text
}

func powerOfTwo(n, least, most int64) bool { return n >= least && n <= most && n&(n-1) == 0 }

// sizeInBytes is 0 when the product is beyond anything that can be true.
func sizeInBytes(blocks uint64, blockSize int64) int64 {
	if blockSize <= 0 || blocks > uint64(1)<<62/uint64(blockSize) {
		return 0
	}
	return int64(blocks) * blockSize
}
