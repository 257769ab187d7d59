package rng

import "testing"

func TestTheSamePurposeGivesTheSameNumbers(t *testing.T) {
	a, b := New(7, "shuffle", 3, "cat.png"), New(7, "shuffle", 3, "cat.png")
	for range 100 {
		if x, y := a.Uint64(), b.Uint64(); x != y {
			t.Fatalf("%d != %d", x, y)
		}
	}
}

func TestSeedPurposeAndPartsAllMatter(t *testing.T) {
	seen := map[uint64]string{}
	for name, r := range map[string]uint64{
		"base":    New(7, "shuffle", 3).Uint64(),
		"seed":    New(8, "shuffle", 3).Uint64(),
		"purpose": New(7, "augment", 3).Uint64(),
		"part":    New(7, "shuffle", 4).Uint64(),
		"split":   New(7, "shuffle", "3", "").Uint64(),
	} {
		if other, dup := seen[r]; dup {
			t.Errorf("%s and %s share a stream", name, other)
		}
		seen[r] = name
	}
}
