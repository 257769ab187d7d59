package graph

import "math"

// resizeKernel evaluates Resize one axis after the other: each output element is a weighted sum of
// a few input elements along the axis. All modes are such products.
func resizeKernel(c *computation) []Array {
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
		if out != in || scale != 1 || c.crops() {
			a = a.resample(axis, c.taps(in, out, scale, c.region(i, len(axes))), float64(c.n.Float("extrapolation_value", 0)))
		}
	}
	return []Array{a}
}

// fitted changes the sizes so that all axes grow by one factor, where the node wants that.
func (c *computation) fitted(sizes, axes []int) []int {
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

// crops says whether the node cuts a region out of its input.
func (c *computation) crops() bool {
	return c.n.Str("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
}

// region is the part of an axis, from 0 to 1, that is cut out: starts come first, then ends.
func (c *computation) region(i, axes int) [2]float64 {
	if !c.crops() {
		return [2]float64{0, 1}
	}
	return [2]float64{c.in[1].Data[i], c.in[1].Data[axes+i]}
}

// taps lists the shares for each output position along an axis; none where it lies outside.
func (c *computation) taps(in, out int, scale float64, region [2]float64) [][]tap {
	list := make([][]tap, out)
	for i := range list {
		x := c.coordinate(float64(i), in, out, scale, region)
		if c.crops() && (x < 0 || x > float64(in-1)) {
			continue
		}
		for _, t := range c.around(x, scale) {
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
func (c *computation) coordinate(i float64, in, out int, scale float64, region [2]float64) float64 {
	switch mode := c.n.Str("coordinate_transformation_mode", "half_pixel"); mode {
	case "tf_crop_and_resize":
		start, length := region[0]*float64(in-1), (region[1]-region[0])*float64(in-1)
		if out == 1 {
			return start + length/2
		}
		return start + i*length/float64(out-1)
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
		panic(unfit("coordinate mode %s is not interpreted", mode))
	}
}

// around lists the elements next to x with their weights, which fall off with the distance: up to 1 or 2
// elements, or where an antialiased axis shrinks, so many elements of the output.
func (c *computation) around(x, scale float64) []tap {
	low := math.Floor(x)
	i, t := int(low), x-low
	unit := 1.0
	if c.n.Int("antialias", 0) != 0 {
		unit = math.Min(1, scale)
	}
	a := float64(c.n.Float("cubic_coeff_a", -0.75))
	switch c.n.Str("mode", "nearest") {
	case "linear":
		return tapsWithin(i, t, unit, 1, func(d float64) float64 { return 1 - d })
	case "cubic":
		return tapsWithin(i, t, unit, 2, func(d float64) float64 {
			if d <= 1 {
				return ((a+2)*d-(a+3))*d*d + 1
			}
			return ((a*d-5*a)*d+8*a)*d - 4*a
		})
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

// tapsWithin weighs the elements around i+t whose distance, times unit, is at most reach.
func tapsWithin(i int, t, unit, reach float64, weight func(distance float64) float64) (taps []tap) {
	for k := int(math.Ceil(t - reach/unit)); float64(k) <= t+reach/unit; k++ {
		if d := math.Abs(float64(k)-t) * unit; d < reach {
			taps = append(taps, tap{i + k, weight(d)})
		}
	}
	return taps
}

// resample sums up the taps along an axis, and puts outside where there are none.
func (a Array) resample(axis int, taps [][]tap, outside float64) Array {
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
		if taps[row%len(taps)] == nil {
			out.Data[i] = outside
		}
		for _, t := range taps[row%len(taps)] {
			out.Data[i] += t.weight * a.Data[(start+t.from)*inner+i%inner]
		}
	}
	return out
}
