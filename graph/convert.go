package graph

import (
	"fmt"
	"maps"
	"slices"

	"github.com/foretoken/foretoken/internal/errs"
)

// The opsets that are read, and the one whose operator forms the rest of the package
// deals with. Files of newer opsets keep theirs.
const (
	minOpset       = 9
	canonicalOpset = 18
	maxOpset       = 28
)

// canonicalize rewrites operators of older opsets in the forms of opset 18, and those that
// stand for several others as these. A function's nodes may be of another opset than the model's.
func canonicalize(g *Graph, versions map[*Node]int64) (err error) {
	defer recoverBail(&err)
	from, ok := g.Opset[""]
	if !ok {
		from = canonicalOpset
	}
	if from < minOpset || from > maxOpset {
		return errs.New(errs.Unsupported, "opset %d; %d to %d are read", from, minOpset, maxOpset)
	}
	if err := convert(g, from, versions); err != nil {
		return err
	}
	if err := g.checkSignatures(); err != nil {
		return err
	}
	g.Opset[""] = max(from, canonicalOpset)
	for n, version := range versions {
		if n.Op == "GroupNormalization" && (version < 21) != (from < 21) {
			return errs.New(errs.Unsupported, "node %q (%s): a function has it in the form of opset %d, the model is of opset %d", n.Name, n.Op, version, from)
		}
		g.Opset[""] = max(g.Opset[""], version)
	}
	g.dropIdentities()
	g.sliceSequences()
	if err := decompose(g); err != nil {
		return err
	}
	used := map[string]bool{"": true}
	for _, n := range g.Nodes {
		used[n.Domain] = true
	}
	maps.DeleteFunc(g.Opset, func(domain string, _ int64) bool { return !used[domain] })
	return nil
}

// sliceSequences cuts the parts that are picked out of a tensor split into a sequence out of the tensor itself, as torch 2.5 and 2.6
// write torch.split and unbind.
func (g *Graph) sliceSequences() {
	for _, n := range slices.Clone(g.Nodes) {
		if n.Op != "SequenceAt" || n.Domain != "" || n.Inputs[0].Def == nil || n.Inputs[0].Def.Op != "SplitToSequence" || n.Inputs[0].Def.Input(1) == nil {
			continue
		}
		split := n.Inputs[0].Def
		start, end, ok := partOf(split.Inputs[1].Const, n.Inputs[1].Const)
		if !ok {
			continue
		}
		x, axis := split.Inputs[0], split.Int("axis", 0)
		if len(split.Inputs[1].Const.Dims) == 0 && end == start+1 && split.Int("keepdims", 1) == 0 { // torch.unbind, as ONNX Runtime reads it
			n.Op, n.Attrs = "Gather", map[string]Attr{"axis": {axis}}
			n.Inputs = []*Value{x, g.constant("const", NewTensor([]int64{start}))}
			continue
		}
		one := func(i int64) *Value { return g.constant("const", NewTensor([]int64{i}, 1)) }
		n.Op, n.Attrs = "Slice", map[string]Attr{}
		n.Inputs = []*Value{x, one(start), one(end), one(axis)}
	}
	g.Prune()
}

// partOf is where the part of the given number begins and ends, of parts of one size or of a list of sizes.
func partOf(sizes, number *Tensor) (start, end int64, ok bool) {
	if sizes == nil || number == nil || number.Len() != 1 {
		return 0, 0, false
	}
	each, err1 := integersOf(sizes)
	at, err2 := integersOf(number)
	if err1 != nil || err2 != nil || at[0] < 0 {
		return 0, 0, false
	}
	i := at[0]
	if len(sizes.Dims) == 0 { // the last may be smaller, as a Slice's is
		return i * each[0], (i + 1) * each[0], each[0] > 0
	}
	if i >= int64(len(each)) {
		return 0, 0, false
	}
	for _, size := range each[:i] {
		start += size
	}
	return start, start + each[i], true
}

// convert brings the graph's nodes, and those of the graphs within them, up to opset 18.
func convert(g *Graph, model int64, versions map[*Node]int64) error {
	nodes := g.Nodes
	g.Nodes = make([]*Node, 0, len(nodes))
	for _, n := range nodes {
		g.Nodes = append(g.Nodes, n)
		for _, sub := range n.graphs() {
			sub.fresh = g.fresh // one count for all, as inner names must not hide outer ones
			if err := convert(sub, model, versions); err != nil {
				return err
			}
			g.fresh = sub.fresh
		}
		from, ok := versions[n]
		if !ok {
			from = model
		}
		c := conversions[n.Op]
		if n.Domain != "" || c == nil {
			continue
		}
		if err := c(g, n, from); err != nil {
			return fmt.Errorf("node %q (%s of opset %d): %w", n.Name, n.Op, from, err)
		}
	}
	return nil
}

// conversions bring a node of an older opset up to opset 18.
var conversions = map[string]func(g *Graph, n *Node, from int64) error{
	"Squeeze":            attrsToInputs(13, "axes"),
	"Unsqueeze":          attrsToInputs(13, "axes"),
	"ReduceSum":          attrsToInputs(13, "axes"),
	"ReduceMean":         attrsToInputs(18, "axes"),
	"ReduceMax":          attrsToInputs(18, "axes"),
	"ReduceMin":          attrsToInputs(18, "axes"),
	"ReduceProd":         attrsToInputs(18, "axes"),
	"ReduceL1":           attrsToInputs(18, "axes"),
	"ReduceL2":           attrsToInputs(18, "axes"),
	"ReduceSumSquare":    attrsToInputs(18, "axes"),
	"ReduceLogSum":       attrsToInputs(18, "axes"),
	"ReduceLogSumExp":    attrsToInputs(18, "axes"),
	"Slice":              attrsToInputs(10, "starts", "ends", "axes"),
	"TopK":               attrsToInputs(10, "k"),
	"Hardmax":            flattenedSoftmax,
	"Pad":                padToInputs,
	"Clip":               clipToInputs,
	"Split":              splitToInputs,
	"Softmax":            flattenedSoftmax,
	"LogSoftmax":         flattenedSoftmax,
	"Dropout":            dropToIdentity,
	"Upsample":           upsampleToResize,
	"Resize":             scalesToResize,
	"Scatter":            scatterToElements,
	"BatchNormalization": dropStatistics,
}

// attrsToInputs turns integer attributes into inputs, as opset before made them.
func attrsToInputs(before int64, attrs ...string) func(*Graph, *Node, int64) error {
	return func(g *Graph, n *Node, from int64) error {
		if from >= before {
			return nil
		}
		for _, name := range attrs {
			n.Inputs = append(n.Inputs, g.intsAttr(n, name))
		}
		return nil
	}
}

// intsAttr removes an integer attribute and returns it as a constant, nil when unset.
func (g *Graph) intsAttr(n *Node, name string) *Value {
	a, ok := n.Attrs[name]
	delete(n.Attrs, name)
	if !ok {
		return nil
	}
	switch v := a.Value.(type) {
	case int64:
		return g.constant(name, NewTensor([]int64{v}, 1))
	case []int64:
		return g.constant(name, NewTensor(v, int64(len(v))))
	}
	return nil
}

func padToInputs(g *Graph, n *Node, from int64) error {
	if from >= 11 {
		return nil
	}
	n.Inputs = append(n.Inputs, g.intsAttr(n, "pads"), g.constant("pad", NewTensor([]float32{n.Float("value", 0)})))
	delete(n.Attrs, "value")
	return nil
}

func clipToInputs(g *Graph, n *Node, from int64) error {
	if from >= 11 {
		return nil
	}
	for _, name := range []string{"min", "max"} {
		var limit *Value
		if _, ok := n.Attrs[name]; ok {
			limit = g.constant(name, NewTensor([]float32{n.Float(name, 0)}))
		}
		delete(n.Attrs, name)
		n.Inputs = append(n.Inputs, limit)
	}
	return nil
}

// splitToInputs also writes out the even split that opset 18 wants counted.
func splitToInputs(g *Graph, n *Node, from int64) error {
	if from < 13 {
		if split := g.intsAttr(n, "split"); split != nil {
			n.Inputs = append(n.Inputs, split)
		}
	}
	if from < 18 && n.Input(1) == nil {
		n.Attrs["num_outputs"] = Attr{int64(len(n.Outputs))}
	}
	return nil
}

// flattenedSoftmax: before opset 13 the axes from axis on were one. Along the last axis
// that is the same; elsewhere the axes are flattened around it.
func flattenedSoftmax(g *Graph, n *Node, from int64) error {
	if from >= 13 {
		return nil
	}
	axis := n.Int("axis", 1)
	rank := int64(len(n.Inputs[0].Shape))
	if axis == -1 || n.Inputs[0].Shape != nil && axis == rank-1 {
		n.Attrs["axis"] = Attr{int64(-1)}
		return nil
	}
	// The operand's rank is mostly unknown here; flattening serves every rank.
	x, y := n.Inputs[0], n.Outputs[0]
	shape := g.insertBefore(n, "Shape", nil, x)
	flat := g.insertBefore(n, "Flatten", map[string]Attr{"axis": {axis}}, x)
	n.Inputs[0] = flat
	n.Attrs["axis"] = Attr{int64(-1)}
	inner := &Value{Name: g.freshName("flat"), Def: n}
	n.Outputs[0] = inner
	restore := &Node{Op: "Reshape", Inputs: []*Value{inner, shape}, Outputs: []*Value{y}, Attrs: map[string]Attr{}}
	y.Def = restore
	g.Nodes = slices.Insert(g.Nodes, g.index(n)+1, restore)
	return nil
}

// unflattenSoftmax undoes that where the axis has turned out to be the last. The graph's shapes are known.
func (g *Graph) unflattenSoftmax() {
	readers := map[*Value][]*Node{}
	for _, n := range g.Nodes {
		for _, v := range n.Inputs {
			readers[v] = append(readers[v], n)
		}
	}
	for _, n := range g.Nodes {
		if n.Op != "Softmax" && n.Op != "LogSoftmax" && n.Op != "Hardmax" {
			continue
		}
		flat, after := n.Inputs[0].Def, readers[n.Outputs[0]]
		if flat == nil || flat.Op != "Flatten" || len(after) != 1 || after[0].Op != "Reshape" {
			continue
		}
		x, restore := flat.Inputs[0], after[0]
		if shape := restore.Inputs[1].Def; x.Shape != nil && axisOf(flat, "axis", 1) == len(x.Shape)-1 && shape != nil && shape.Op == "Shape" && shape.Inputs[0] == x && len(shape.Attrs) == 0 {
			n.Inputs[0], n.Outputs[0] = x, restore.Outputs[0]
			n.Outputs[0].Def, restore.Outputs[0] = n, &Value{Name: g.freshName("flat"), Def: restore}
		}
	}
	g.Prune()
}

// dropToIdentity: in inference Dropout passes its input on, and its mask is true.
func dropToIdentity(g *Graph, n *Node, _ int64) error {
	if training := n.Input(2); training != nil && !training.isFalse() {
		return errs.New(errs.Unsupported, "it drops at random: export the model in evaluation mode")
	}
	if mask := n.Output(1); mask != nil {
		m := newNode("ConstantOfShape", map[string]Attr{"value": {NewTensor([]bool{true}, 1)}}, []*Value{g.insertBefore(n, "Shape", nil, n.Inputs[0])})
		m.Outputs, mask.Def = []*Value{mask}, m
		g.Nodes = slices.Insert(g.Nodes, g.index(n), m)
	}
	n.Op, n.Inputs, n.Outputs, n.Attrs = "Identity", n.Inputs[:1], n.Outputs[:1], map[string]Attr{}
	return nil
}

// upsampleToResize: Upsample was Resize with its first coordinate rule.
func upsampleToResize(g *Graph, n *Node, from int64) error {
	n.Op = "Resize"
	return scalesToResize(g, n, min(from, 10))
}

// scalesToResize: opset 10's inputs were the tensor and its scales.
func scalesToResize(_ *Graph, n *Node, from int64) error {
	if from >= 11 {
		return nil
	}
	if len(n.Inputs) != 2 {
		return fmt.Errorf("%d inputs, not a tensor and its scales", len(n.Inputs))
	}
	n.Inputs = []*Value{n.Inputs[0], nil, n.Inputs[1]}
	n.Attrs["coordinate_transformation_mode"] = Attr{"asymmetric"}
	n.Attrs["nearest_mode"] = Attr{"floor"}
	return nil
}

// scatterToElements: opset 11 gave Scatter its present name.
func scatterToElements(_ *Graph, n *Node, _ int64) error {
	n.Op = "ScatterElements"
	return nil
}

// isFalse says whether v is the constant false.
func (v *Value) isFalse() bool {
	if v.Const == nil {
		return false
	}
	b, err := Values[bool](v.Const)
	return err == nil && !slices.Contains(b, true)
}

// dropStatistics: before opset 14 the running statistics were optional outputs.
func dropStatistics(_ *Graph, n *Node, from int64) error {
	if from < 14 {
		n.Outputs = n.Outputs[:1]
		delete(n.Attrs, "spatial")
	}
	return nil
}

// constant makes a constant value under a fresh name.
func (g *Graph) constant(name string, t *Tensor) *Value {
	return &Value{Name: g.freshName(name), Type: t.Type, Shape: known(t.Dims), Const: t}
}

// insertBefore adds a node with one output right before n.
func (g *Graph) insertBefore(n *Node, op string, attrs map[string]Attr, inputs ...*Value) *Value {
	m := newNode(op, attrs, inputs)
	out := &Value{Name: g.freshName(op), Def: m}
	m.Outputs = []*Value{out}
	g.Nodes = slices.Insert(g.Nodes, g.index(n), m)
	return out
}

// index is the node's place, looked for from the end, where nodes are mostly added.
func (g *Graph) index(n *Node) int {
	i := len(g.Nodes) - 1
	for i >= 0 && g.Nodes[i] != n {
		i--
	}
	return i
}

func newNode(op string, attrs map[string]Attr, inputs []*Value) *Node {
	if attrs == nil {
		attrs = map[string]Attr{}
	}
	return &Node{Op: op, Inputs: inputs, Attrs: attrs}
}
