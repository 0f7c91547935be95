package mount

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPlaces(t *testing.T) {
	for _, c := range []struct {
		name string
		size int64
		unit int64
		want []int64
	}{
		{"xfs, four groups", 20 * gib, 0, []int64{5 * gib, 10 * gib, 15 * gib}},
		{"xfs, sixteen groups of a striped device", 100 * gib, 64 * kib, []int64{100 * gib / 16, 100*gib/16 - 64*kib}},
		{"xfs, groups of nearly 1 TiB", 100 * tib, 0, []int64{tib - 4*kib, 2 * (tib - 4*kib), 99 * (tib - 4*kib)}},
		{"xfs, made at 5 GiB and grown", 1000 * gib, 0, []int64{1280 * mib, 2560 * mib}},
		{"xfs, made at 500 GiB and grown", 900 * gib, 0, []int64{125 * gib, 250 * gib}},
		{"ext4", 200 * gib, 0, []int64{128 * mib, 3 * 128 * mib, 5 * 128 * mib, 7 * 128 * mib, 49 * 128 * mib, 729 * 128 * mib}},
		{"ext4, blocks of 1 KiB", 300 * mib, 0, []int64{8 * mib, 24 * mib, 72 * mib, 200 * mib}},
		{"ext4, last group", 10*gib + 8*kib, 0, []int64{10 * gib}},
		{"btrfs", 300 * gib, 0, []int64{64 * mib, 256 * gib}},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := places(c.size, c.unit)
			for _, offset := range c.want {
				read := slices.ContainsFunc(all, func(p place) bool { return p.offset <= offset && offset < p.offset+p.length })
				require.True(t, read, "nothing is read at %d", offset)
			}
		})
	}
}

func FuzzPlaces(f *testing.F) {
	for _, size := range []int64{1, 512, 4096, 8 * mib, 8*mib + 512, 300 * mib, gib, 100 * gib, 4 * tib, 100 * tib, 1 << 60} {
		f.Add(size, int64(0))
		f.Add(size, int64(64*kib))
	}
	f.Fuzz(func(t *testing.T, size, unit int64) {
		if size <= 0 || size > 1<<61 || unit < 0 || unit > 1<<32-1 {
			return
		}
		all := places(size, unit)
		if len(all) > 900 {
			t.Fatalf("%d reads for %d bytes", len(all), size)
		}
		end := int64(0)
		for i, p := range all {
			if p.offset < end || p.length <= 0 || p.offset%pageSize != 0 || i == 0 && p.offset != 0 {
				t.Fatalf("place %d is %+v after %d", i, p, end)
			}
			end = p.offset + p.length
		}
		if end != size {
			t.Fatalf("the last place ends at %d of %d", end, size)
		}
	})
}
