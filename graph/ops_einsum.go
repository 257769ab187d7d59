package graph

import (
	"slices"
	"strings"
)

var _ = register(map[string]row{
	"Einsum": {einsumShape, gradEinsum, einsumKernel},
})

// equation reads an Einsum's labels: a string of one letter an axis for each operand, and the
// output's. An ellipsis is written out in letters that the equation does not use.
func equation(n *Node) (operands []string, out string) {
	text := strings.ReplaceAll(n.Str("equation", ""), " ", "")
	left, right, explicit := strings.Cut(text, "->")
	operands = strings.Split(left, ",")
	if len(operands) != len(n.Inputs) {
		fail(n, "equation %q for %d operands", text, len(n.Inputs))
	}
	more := "" // the letters of the longest ellipsis
	for i, labels := range operands {
		rank := len(n.Inputs[i].Shape)
		if before, after, dots := strings.Cut(labels, "..."); dots {
			letters := unused(n, text, rank-len(before)-len(after))
			operands[i] = before + letters + after
			if len(letters) > len(more) {
				more = letters
			}
		}
		if len(operands[i]) != rank {
			fail(n, "equation %q for an operand of %s", text, n.Inputs[i].Shape)
		}
	}
	if explicit {
		return operands, strings.Replace(right, "...", more, 1)
	}
	// Without an arrow the output has the ellipsis, then the labels that occur once, in alphabetical order.
	all := []byte(strings.ReplaceAll(left, "...", ""))
	slices.Sort(all)
	for _, l := range all {
		if strings.Count(string(all), string(l)) == 1 && l != ',' {
			out += string(l)
		}
	}
	return operands, more + out
}

// unused are count letters that the equation does not use. Fewer are the last of more, as an ellipsis is
// broadcast from the right.
func unused(n *Node, text string, count int) string {
	const letters = "zyxwvutsrqponmlkjihgfedcbaZYXWVUTSRQPONMLKJIHGFEDCBA"
	out := ""
	for _, l := range letters {
		if len(out) < count && !strings.ContainsRune(text, l) {
			out = string(l) + out
		}
	}
	if len(out) != max(0, count) {
		fail(n, "equation %q with %d axes for an ellipsis", text, count)
	}
	return out
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
// gradient, summed to that operand's labels. Over labels that none of these has, the operand was summed.
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
		known, kept := strings.Join(left, ""), ""
		var summed []int64
		for j := range labels {
			switch {
			case strings.Count(labels, labels[j:j+1]) > 1:
				fail(n, "label %q is twice in operand %q", labels[j:j+1], labels)
			case strings.Contains(known, labels[j:j+1]):
				kept += labels[j : j+1]
			default:
				summed = append(summed, int64(j))
			}
		}
		dx := b.Op("Einsum", Attrs{"equation": strings.Join(left, ",") + "->" + kept}, inputs...)
		if len(summed) > 0 {
			dx = b.Op("Expand", nil, b.Op("Unsqueeze", nil, dx, b.Ints(summed...)), b.Op("Shape", nil, n.Inputs[i]))
		}
		b.give(n, i, dx)
	}
}
