package graph

import (
	"maps"
	"slices"
)

// ScaleGradient makes the operator's rule give its gradients times by, until the function that
// it returns is called: a rule with an error in it, for checks that have to find it.
func ScaleGradient(op string, by float64) (restore func()) {
	good := table[op]
	bad := good
	bad.grad = func(b *backward, n *Node) {
		before := maps.Clone(b.grads)
		good.grad(b, n)
		for v, now := range b.grads {
			switch was := before[v]; {
			case was == now:
			case was == nil:
				b.grads[v] = b.Mul(now, b.Scalar(by, now))
			default:
				b.grads[v] = b.Add(was, b.Mul(b.Sub(now, was), b.Scalar(by, now)))
			}
		}
	}
	table[op] = bad
	return func() { table[op] = good }
}

// WithPrefixOf is [DecoderTower.WithPrefix] for tests, which may ask for no tokens.
func (t *DecoderTower) WithPrefixOf(o PrefixOptions) (*Graph, error) { return t.withPrefix(o) }

// WithKeyValuesOf is [DecoderTower.WithKeyValues] for tests, which may ask for no tokens.
func (t *DecoderTower) WithKeyValuesOf(o PrefixOptions) (*Graph, error) { return t.withKeyValues(o) }

// At is the extent where symbols have the given sizes; false where it holds others.
func (d Dim) At(sizes map[string]int64) (int64, bool) {
	for symbol, n := range sizes {
		d = d.substitute(symbol, Known(n))
	}
	return d.Int()
}

// IsWrittenOut says whether the operator has a decomposition.
func IsWrittenOut(op string) bool { return decompositions[op] != nil }

// WrittenOut lists the operators that have a decomposition.
func WrittenOut() []string { return slices.Sorted(maps.Keys(decompositions)) }

// Converted lists the operators that had other forms in older opsets.
func Converted() []string { return slices.Sorted(maps.Keys(conversions)) }
