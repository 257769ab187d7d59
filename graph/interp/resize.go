package interp

import "math"

// resize evaluates Resize one axis after the other: each output element is a weighted sum of
// a few input elements along the axis. Without antialiasing, all modes are such products.
func resize(c *call) []Array {
	if c.n.Int("antialias", 0) != 0 {
		panic("antialiased resizing is not interpreted")
	}
	a := c.in[0]
	axes := c.attrInts("axes")
	if axes == nil {
		for i := range a.Dims {
			axes = append(axes, i)
		}
	}
	axes = inRange(axes, len(a.Dims))
	sizes := c.fitted(c.ints(3, nil), axes)
	for i, axis := range axes {
		in := a.Dims[axis]
		var out int
		var scale float64
		if len(sizes) > 0 {
			out = sizes[i]
			scale = float64(out) / float64(in)
		} else {
			scale = c.in[2].Data[i]
			out = int(math.Floor(float64(in) * scale))
		}
		if out != in || scale != 1 {
			a = a.resample(axis, c.taps(in, out, scale))
		}
	}
	return []Array{a}
}

// fitted changes the sizes so that all axes grow by one factor, where the node wants that.
func (c *call) fitted(sizes, axes []int) []int {
	policy := c.n.Str("keep_aspect_ratio_policy", "stretch")
	if policy == "stretch" || len(sizes) == 0 {
		return sizes
	}
	pick, scale := math.Min, math.Inf(1)
	if policy == "not_smaller" {
		pick, scale = math.Max, 0
	}
	for i, axis := range axes {
		scale = pick(scale, float64(sizes[i])/float64(c.in[0].Dims[axis]))
	}
	out := make([]int, len(sizes))
	for i, axis := range axes {
		out[i] = int(math.Round(scale * float64(c.in[0].Dims[axis])))
	}
	return out
}

// tap is one input element's share in an output element.
type tap struct {
	from   int
	weight float64
}

// taps lists the shares for each output position along an axis.
func (c *call) taps(in, out int, scale float64) [][]tap {
	list := make([][]tap, out)
	for i := range list {
		x := c.coordinate(float64(i), in, out, scale)
		for _, t := range c.around(x) {
			if outside := t.from < 0 || t.from >= in; outside && c.n.Int("exclude_outside", 0) != 0 {
				continue
			}
			t.from = max(0, min(in-1, t.from))
			list[i] = append(list[i], t)
		}
		normalize(list[i])
	}
	return list
}

// normalize makes the shares add up to one, as they do unless some lie outside.
func normalize(taps []tap) {
	sum := 0.0
	for _, t := range taps {
		sum += t.weight
	}
	for i := range taps {
		taps[i].weight /= sum
	}
}

// coordinate is where output position i lies on the input axis.
func (c *call) coordinate(i float64, in, out int, scale float64) float64 {
	switch mode := c.n.Str("coordinate_transformation_mode", "half_pixel"); mode {
	case "asymmetric":
		return i / scale
	case "align_corners":
		if out == 1 {
			return 0
		}
		return i * float64(in-1) / float64(out-1)
	case "pytorch_half_pixel":
		if out == 1 {
			return 0
		}
		return (i+0.5)/scale - 0.5
	case "half_pixel":
		return (i+0.5)/scale - 0.5
	case "half_pixel_symmetric":
		adjustment := float64(out) / (scale * float64(in))
		return float64(in)/2*(1-adjustment) + (i+0.5)/scale - 0.5
	default:
		panic("coordinate mode " + mode + " is not interpreted")
	}
}

// around lists the elements next to x with their weights.
func (c *call) around(x float64) []tap {
	low := math.Floor(x)
	i, t := int(low), x-low
	switch c.n.Str("mode", "nearest") {
	case "linear":
		return []tap{{i, 1 - t}, {i + 1, t}}
	case "cubic":
		a := float64(c.n.Float("cubic_coeff_a", -0.75))
		near := func(t float64) float64 { return ((a+2)*t-(a+3))*t*t + 1 }
		far := func(t float64) float64 { return ((a*t-5*a)*t+8*a)*t - 4*a }
		return []tap{{i - 1, far(1 + t)}, {i, near(t)}, {i + 1, near(1 - t)}, {i + 2, far(2 - t)}}
	}
	switch c.n.Str("nearest_mode", "round_prefer_floor") {
	case "floor":
		return []tap{{i, 1}}
	case "ceil":
		return []tap{{int(math.Ceil(x)), 1}}
	case "round_prefer_ceil":
		return []tap{{int(math.Floor(x + 0.5)), 1}}
	}
	return []tap{{int(math.Ceil(x - 0.5)), 1}}
}

// resample sums up the taps along an axis.
func (a Array) resample(axis int, taps [][]tap) Array {
	dims := append([]int{}, a.Dims...)
	dims[axis] = len(taps)
	out := zeros(a.Type, dims...)
	inner := 1
	for _, d := range a.Dims[axis+1:] {
		inner *= d
	}
	for i := range out.Data {
		row := i / inner
		start := row / len(taps) * a.Dims[axis]
		for _, t := range taps[row%len(taps)] {
			out.Data[i] += t.weight * a.Data[(start+t.from)*inner+i%inner]
		}
	}
	return out
}
