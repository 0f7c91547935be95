package mount

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseXFS(t *testing.T) {
	_, page := captured(t, "xfs")
	super, found := parseXFS(page)
	require.True(t, found)
	require.Equal(t, xfsSuper{blockSize: 4096, blocks: 76800}, super)
	for _, c := range []struct {
		name   string
		offset int
		value  byte
		defect string
	}{
		{"block size", 7, 1, "impossible block or sector size"},
		{"sector size", 102, 0xff, "impossible block or sector size"},
		{"no groups", 91, 0, "its sizes contradict each other"},
		{"too many blocks", 8, 1, "its sizes contradict each other"},
		{"one bit of the uuid", 33, 0, "wrong checksum"},
		{"the checksum", xfsCRCOffset, page[xfsCRCOffset] + 1, "wrong checksum"},
	} {
		t.Run(c.name, func(t *testing.T) {
			damaged := append([]byte(nil), page...)
			damaged[c.offset] = c.value
			super, found := parseXFS(damaged)
			require.True(t, found)
			require.Equal(t, c.defect, super.defect)
		})
	}
	page[126] = 1
	content, found := (&blockDevice{size: 300 << 20}).primary(page)
	require.True(t, found)
	require.True(t, content.Damaged)
	require.Contains(t, content.Detail, "mkfs.xfs did not come to its end")
	_, found = parseXFS(page[:511])
	require.False(t, found)
}

func TestParseExt(t *testing.T) {
	for _, version := range []string{"ext2", "ext3", "ext4"} {
		_, page := captured(t, version)
		super, found := parseExt(page[extSuperOffset:])
		require.True(t, found)
		require.Equal(t, version, super.version)
		require.Empty(t, super.defect)
		require.EqualValues(t, 64<<20, sizeInBytes(super.blocks, super.blockSize))
	}
	_, page := captured(t, "ext4")
	for _, c := range []struct {
		name   string
		offset int
		value  byte
		defect string
	}{
		{"block size", 0x18, 7, "impossible block size"},
		{"blocks per group", 0x21, 0, "its sizes contradict each other"},
		{"inodes per group", 0x29, 0, "it has no inodes"},
		{"one bit of the uuid", 0x68, page[extSuperOffset+0x68] ^ 1, "wrong checksum"},
	} {
		t.Run(c.name, func(t *testing.T) {
			damaged := append([]byte(nil), page[extSuperOffset:]...)
			damaged[c.offset] = c.value
			if c.name != "one bit of the uuid" { // several bytes
				for i := range 3 {
					if c.offset%4 == 1 {
						damaged[c.offset-1+i] = 0
					}
				}
			}
			super, found := parseExt(damaged)
			require.True(t, found)
			require.Equal(t, c.defect, super.defect)
		})
	}
}

func TestSizeInBytes(t *testing.T) {
	require.EqualValues(t, 8192, sizeInBytes(2, 4096))
	require.Zero(t, sizeInBytes(1<<63, 4096), "impossible sizes do not overflow")
	require.Zero(t, sizeInBytes(5, 0))
}

func FuzzSuperblocks(f *testing.F) {
	for _, name := range []string{"xfs", "ext2", "ext3", "ext4", "jbd"} {
		_, page := captured(f, name)
		f.Add(page)
		f.Add(page[extSuperOffset:])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if super, found := parseXFS(data); found && super.defect == "" && super.finding().filesystem != "xfs" {
			t.Fatal("not named")
		}
		if super, found := parseExt(data); found && super.defect == "" && super.blockSize < 1024 {
			t.Fatal("no block size")
		}
		(&blockDevice{size: 1 << 30}).primary(data)
	})
}
