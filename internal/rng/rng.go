// Package rng derives every random number of a run from its seed and what it is for,
// so that the order in which work is done never changes a result.
package rng

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// New returns the generator for one purpose: the same seed and parts give the same
// numbers on every machine. Parts are what makes the use distinct, for example
// ("augment", epoch, sample). Each part must print distinctly under %v.
func New(seed uint64, purpose string, parts ...any) *rand.Rand {
	h := sha256.New()
	fmt.Fprintf(h, "%d\x00%s", seed, purpose)
	for _, p := range parts {
		fmt.Fprintf(h, "\x00%v", p)
	}
	sum := h.Sum(nil)
	return rand.New(rand.NewPCG(binary.LittleEndian.Uint64(sum), binary.LittleEndian.Uint64(sum[8:])))
}
