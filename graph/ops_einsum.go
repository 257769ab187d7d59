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

// einsumKernel sums the product of the operands over every label that the output lacks.
func einsumKernel(c *computation) []Array {
	left, out, explicit := strings.Cut(strings.ReplaceAll(c.n.Str("equation", ""), " ", ""), "->")
	if !explicit {
		out = implied(left)
	}
	operands := strings.Split(left, ",")
	out = c.spellOut(operands, out)
	labels := out
	extent := map[byte]int{}
	for i, o := range operands {
		for j := range o {
			extent[o[j]] = max(extent[o[j]], c.in[i].Dims[j])
			if !strings.Contains(labels, o[j:j+1]) {
				labels += o[j : j+1]
			}
		}
	}
	dims := make([]int, len(labels))
	for i := range labels {
		dims[i] = extent[labels[i]]
	}
	result := zeros(c.in[0].Type, dims[:len(out)]...)
	step := make([][]int, len(operands))
	for i, o := range operands {
		step[i] = labelStrides(labels, o, c.in[i].Dims)
	}
	to := labelStrides(labels, out, result.Dims)
	eachIndex(dims, func(at []int) {
		product := 1.0
		for i := range operands {
			product *= c.in[i].Data[dot(at, step[i])]
		}
		result.Data[dot(at, to)] += product
	})
	return one(result)
}

// spellOut writes the ellipses of operands and output as digits, counted from the right as axes are
// broadcast.
func (c *computation) spellOut(operands []string, out string) string {
	const digits = "9876543210"
	longest := ""
	for i, o := range operands {
		if strings.Contains(o, "...") {
			axes := digits[len(digits)-(len(c.in[i].Dims)-len(o)+len("...")):]
			operands[i] = strings.Replace(o, "...", axes, 1)
			if len(axes) > len(longest) {
				longest = axes
			}
		}
	}
	return strings.Replace(out, "...", longest, 1)
}

// implied are an ellipsis and the labels that occur once, in alphabetical order.
func implied(left string) (out string) {
	if strings.Contains(left, "...") {
		out = "..."
	}
	for l := 'A'; l <= 'z'; l++ {
		if strings.Count(left, string(l)) == 1 {
			out += string(l)
		}
	}
	return out
}

// labelStrides is how far a step along each label moves in a tensor with the labels own.
func labelStrides(labels, own string, dims []int) []int {
	s := strides(dims)
	out := make([]int, len(labels))
	for j := range own {
		if dims[j] != 1 {
			out[strings.IndexByte(labels, own[j])] += s[j]
		}
	}
	return out
}

func dot(a, b []int) int {
	sum := 0
	for i, x := range a {
		sum += x * b[i]
	}
	return sum
}
