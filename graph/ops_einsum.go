package graph

import (
	"slices"
	"strings"
)

var _ = register(map[string]row{
	"Einsum": {einsumShape, gradEinsum},
})

// equation reads an Einsum's labels: a string of one letter an axis for each operand, and the
// output's. Ellipses are not read.
func equation(n *Node) (operands []string, out string) {
	text := strings.ReplaceAll(n.Str("equation", ""), " ", "")
	left, right, explicit := strings.Cut(text, "->")
	operands = strings.Split(left, ",")
	if strings.Contains(text, ".") || len(operands) != len(n.Inputs) {
		fail(n, "equation %q for %d operands", text, len(n.Inputs))
	}
	for i, labels := range operands {
		if len(labels) != len(n.Inputs[i].Shape) {
			fail(n, "equation %q for an operand of %s", text, n.Inputs[i].Shape)
		}
	}
	if explicit {
		return operands, right
	}
	// Without an arrow the output has the labels that occur once, in alphabetical order.
	all := []byte(strings.Join(operands, ""))
	slices.Sort(all)
	for _, l := range all {
		if strings.Count(string(all), string(l)) == 1 {
			out += string(l)
		}
	}
	return operands, out
}

func einsumShape(c *ctx) {
	operands, out := equation(c.n)
	extents := map[byte]Dim{}
	for i, labels := range operands {
		for j := range labels {
			d := c.shape(i)[j]
			if have, ok := extents[labels[j]]; ok && !have.Is(1) {
				d = c.either(have, d, c.shape(i))
			}
			extents[labels[j]] = d
		}
	}
	s := Shape{}
	for j := range out {
		d, ok := extents[out[j]]
		if !ok {
			c.fail("label %q of its output is no operand's", out[j])
		}
		s = append(s, d)
	}
	c.out(0, c.n.Inputs[0].Type, s)
}

// gradEinsum: the gradient of one operand is the product of the others with the output's
// gradient, summed to that operand's labels.
func gradEinsum(b *backward, n *Node) {
	operands, out := equation(n)
	for i, labels := range operands {
		if !b.wants(n, i) {
			continue
		}
		left, inputs := []string{out}, []*Value{b.dy(n)}
		for j, other := range operands {
			if j != i {
				left, inputs = append(left, other), append(inputs, n.Inputs[j])
			}
		}
		known := strings.Join(left, "")
		for j := range labels {
			if !strings.Contains(known, labels[j:j+1]) || strings.Count(labels, labels[j:j+1]) > 1 {
				fail(n, "label %q is only in operand %q, or twice", labels[j:j+1], labels)
			}
		}
		b.give(n, i, b.Op("Einsum", Attrs{"equation": strings.Join(left, ",") + "->" + labels}, inputs...))
	}
}
