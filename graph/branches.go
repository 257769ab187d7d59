package graph

import (
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// Pin makes an input a constant, the same in every run: a merged decoder's use_cache_branch, or
// an attention mask that hides nothing. t must have the input's element type, its rank and its
// fixed extents; errors are of kind [errs.Invalid]. [Graph.Fold] then works out what follows,
// above all which branch of an If is taken, and [Graph.PruneInputs] drops the inputs that only
// the other branch read.
func (g *Graph) Pin(name string, t *Tensor) error {
	v := g.Input(name)
	if v == nil {
		return errs.New(errs.Invalid, "the graph has no input %q to pin (it has %s)", name, names(g.Inputs))
	}
	if v.Type != Undefined && v.Type != t.Type {
		return errs.New(errs.Invalid, "input %q holds %s, it can't be pinned to %s", name, v.Type, t.Type)
	}
	if v.Shape != nil && !v.Shape.admits(t.Dims) {
		return errs.New(errs.Invalid, "input %q has shape %s, it can't be pinned to a tensor of %v", name, v.Shape, t.Dims)
	}
	v.Type, v.Shape, v.Const = t.Type, known(t.Dims), t
	g.Inputs = slices.DeleteFunc(g.Inputs, func(x *Value) bool { return x == v })
	return nil
}

// admits says whether a tensor of these dims can have the shape.
func (s Shape) admits(dims []int64) bool {
	return slices.EqualFunc(s, dims, func(d Dim, n int64) bool {
		have, fixed := d.Int()
		return !fixed || have == n
	})
}

// splicer puts the nodes of branches that are always taken in the place of their If.
type splicer struct {
	*inference
	bearers map[string]int // how many values bear a name
	spliced bool
}

// foldBranches replaces each If whose condition is the same in every run by the branch that is
// taken, and says whether there was one. Conditions may follow from shapes, also from those that
// another If's outputs get by being replaced.
func (g *Graph) foldBranches() bool {
	if !slices.ContainsFunc(g.Nodes, isIf) {
		return false
	}
	s := &splicer{inference: newInference(g), bearers: g.bearers()}
	nodes := g.Nodes
	g.Nodes = make([]*Node, 0, len(nodes))
	for _, n := range nodes {
		s.add(n)
	}
	return s.spliced
}

func isIf(n *Node) bool { return n.Op == "If" && n.Domain == "" }

func (s *splicer) add(n *Node) {
	taken := s.taken(n)
	if taken == nil {
		s.g.Nodes = append(s.g.Nodes, n)
		s.node(n)
		return
	}
	if len(taken.Outputs) != len(n.Outputs) {
		fail(n, "it has %d outputs, the branch that is taken %d", len(n.Outputs), len(taken.Outputs))
	}
	s.spliced = true
	s.distinguish(taken)
	for _, m := range taken.Nodes {
		s.add(m)
	}
	for i, y := range n.Outputs {
		if y != nil {
			result := newNode("Identity", nil, []*Value{taken.Outputs[i]})
			result.Outputs, y.Def = []*Value{y}, result
			s.add(result)
		}
	}
}

// taken is the branch of an If that every run takes, nil where that depends on the run.
func (s *splicer) taken(n *Node) *Graph {
	if !isIf(n) {
		return nil
	}
	condition, ok := s.ints(n.Input(0))
	if !ok || len(condition) != 1 {
		return nil
	}
	branch := "then_branch"
	if yes, ok := condition[0].Int(); !ok {
		return nil
	} else if yes == 0 {
		branch = "else_branch"
	}
	sub, _ := n.Attrs[branch].Value.(*Graph)
	return sub
}

// distinguish gives new names to the branch's values whose name another value bears as well:
// two branches may use one name, a graph may not.
func (s *splicer) distinguish(branch *Graph) {
	for _, n := range branch.Nodes {
		s.rename(n.Inputs)
		s.rename(n.Outputs)
	}
	s.rename(branch.Outputs)
}

func (s *splicer) rename(vs []*Value) {
	for _, v := range vs {
		if v != nil && s.bearers[v.Name] > 1 && !slices.Contains(s.g.Inputs, v) && !slices.Contains(s.g.Outputs, v) {
			s.bearers[v.Name]--
			v.Name = s.g.freshName(v.Name)
		}
	}
}

// nameConstants gives constants of one name, which branches may hold, names of their own: so each can be
// written where a graph around them finds it.
func (g *Graph) nameConstants() {
	if !slices.ContainsFunc(g.Nodes, func(n *Node) bool { return len(n.graphs()) > 0 }) {
		return
	}
	bearers := g.bearers()
	for v := range g.Constants() {
		if bearers[v.Name] > 1 && !slices.Contains(g.Outputs, v) {
			bearers[v.Name]--
			v.Name = g.freshName(v.Name)
		}
	}
}

// sharedConstants are those that more than one graph reads, in the order in which they are come upon.
// What a graph within gives as its output has to lie in it.
func (g *Graph) sharedConstants() []*Value {
	first, shared := map[*Value]*Graph{}, []*Value(nil)
	twice, given := map[*Value]bool{}, map[*Value]bool{}
	var visit func(g *Graph)
	visit = func(g *Graph) {
		see := func(vs []*Value) {
			for _, v := range vs {
				switch {
				case v == nil || v.Const == nil || twice[v]:
				case first[v] == nil:
					first[v] = g
				case first[v] != g:
					twice[v], shared = true, append(shared, v)
				}
			}
		}
		for _, n := range g.Nodes {
			see(n.Inputs)
			for _, sub := range n.graphs() {
				visit(sub)
				for _, v := range sub.Outputs {
					given[v] = true
				}
			}
		}
		see(g.Outputs)
	}
	visit(g)
	return slices.DeleteFunc(shared, func(v *Value) bool { return given[v] })
}

// bearers counts the values that bear each name, in the graph and in those within it.
func (g *Graph) bearers() map[string]int {
	count, seen := map[string]int{}, map[*Value]bool{}
	var visit func(g *Graph)
	visit = func(g *Graph) {
		see := func(vs []*Value) {
			for _, v := range vs {
				if v != nil && !seen[v] {
					seen[v] = true
					count[v.Name]++
				}
			}
		}
		see(g.Inputs)
		for _, n := range g.Nodes {
			see(n.Inputs)
			see(n.Outputs)
			for _, sub := range n.graphs() {
				visit(sub)
			}
		}
		see(g.Outputs)
	}
	visit(g)
	return count
}

// graphs are the graphs within the node, in the order of their attributes' names.
func (n *Node) graphs() []*Graph {
	var names []string
	for name, a := range n.Attrs {
		if _, ok := a.Value.(*Graph); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	out := make([]*Graph, len(names))
	for i, name := range names {
		out[i] = n.Attrs[name].Value.(*Graph)
	}
	return out
}

// dropIdentities lets nodes read what an Identity copies, here and in the graphs within. What an
// output is a copy of gets the output's name; a copy of an input, of a constant, of another
// output or of a value around the graph stays. It returns what each value that is no more stands for.
func (g *Graph) dropIdentities() (original map[*Value]*Value) {
	original = map[*Value]*Value{}
	g.collectIdentities(original)
	if len(original) > 0 {
		g.readOriginals(original)
	}
	return original
}

func isIdentity(n *Node) bool {
	return n.Op == "Identity" && n.Domain == "" && len(n.Inputs) == 1 && len(n.Outputs) == 1 && n.Inputs[0] != nil && n.Outputs[0] != nil
}

// collectIdentities takes the graphs' Identity nodes out and enters what each output stands for.
func (g *Graph) collectIdentities(original map[*Value]*Value) {
	output, here := map[*Value]bool{}, map[*Node]bool{}
	for _, v := range g.Outputs {
		output[v] = true
	}
	kept := make([]*Node, 0, len(g.Nodes))
	for _, n := range g.Nodes {
		for _, sub := range n.graphs() {
			sub.collectIdentities(original)
		}
		if !isIdentity(n) {
			kept, here[n] = append(kept, n), true
			continue
		}
		x, y := resolve(original, n.Inputs[0]), n.Outputs[0]
		switch {
		case !output[y]:
			original[y] = x
		case here[x.Def] && !output[x]:
			original[x] = y
			replaceIn(x.Def.Outputs, x, y)
			y.Def = x.Def
			if x.Type != Undefined { // else what the file declares of the output holds
				y.Type, y.Shape = x.Type, x.Shape
			}
		default:
			kept, here[n] = append(kept, n), true
		}
	}
	g.Nodes = kept
}

func resolve(original map[*Value]*Value, v *Value) *Value {
	for v != nil && original[v] != nil {
		v = original[v]
	}
	return v
}

func (g *Graph) readOriginals(original map[*Value]*Value) {
	for _, n := range g.Nodes {
		for i, v := range n.Inputs {
			n.Inputs[i] = resolve(original, v)
		}
		for _, sub := range n.graphs() {
			sub.readOriginals(original)
		}
	}
}
