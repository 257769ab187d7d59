package graph

import "strings"

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
