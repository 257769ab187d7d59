package graph

import "math"

// OutputFactor finds the constant that a product is multiplied by on its way to the named
// output: the logit scale of a graph that holds both towers. exp of a constant counts.
func OutputFactor(g *Graph, output string) (float32, bool) {
	v := g.Output(output)
	for depth := 0; v != nil && v.Def != nil && depth < 8; depth++ {
		switch n := v.Def; n.Op {
		case "Transpose", "Identity", "Cast", "Add":
			v = n.Input(0)
		case "Mul":
			for _, x := range n.Inputs {
				if f, ok := factor(x, 0); ok {
					return f, true
				}
			}
			return 0, false
		default:
			return 0, false
		}
	}
	return 0, false
}

// factor reads a one-element constant, or exp of one.
func factor(v *Value, depth int) (float32, bool) {
	if v == nil || depth > 8 {
		return 0, false
	}
	if d := v.Def; d != nil && (d.Op == "Exp" || d.Op == "Cast" || d.Op == "Identity") {
		f, ok := factor(d.Input(0), depth+1)
		if ok && d.Op == "Exp" {
			f = float32(math.Exp(float64(f)))
		}
		return f, ok
	}
	if v.Const == nil || v.Const.Len() != 1 {
		return 0, false
	}
	f, err := Float32s(v.Const)
	return firstOr(f), err == nil
}
