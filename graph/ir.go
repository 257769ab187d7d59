package graph

// Graph is one ONNX graph in static single assignment form: each Value is defined
// once, by a node, as a graph input, or as a constant. Nodes stand in topological order.
type Graph struct {
	Name    string
	Opset   map[string]int64 // operator-set version by domain; "" is ai.onnx
	Inputs  []*Value
	Outputs []*Value
	Nodes   []*Node

	// Producer is the exporter's name and version as the file states it.
	Producer string
	// Dir is the folder that external data is relative to.
	Dir string
	// IRVersion is the file format's version.
	IRVersion int64
	// Metadata is the model's metadata_props.
	Metadata map[string]string
	// Exported is what the file held; nil for a graph that was built.
	Exported *Exported

	fresh int // counter behind names that do not exist yet
}

// Value is a tensor-valued edge.
type Value struct {
	Name  string
	Type  DataType
	Shape Shape   // nil when the rank is unknown
	Def   *Node   // the node that defines it; nil for inputs and constants
	Const *Tensor // set for initializers and constants
}

// IsConst says whether the value is the same in every run.
func (v *Value) IsConst() bool { return v != nil && v.Const != nil }

// Node applies one operator.
type Node struct {
	Op      string
	Domain  string // "" is ai.onnx
	Name    string
	Inputs  []*Value // nil where an optional input is left out
	Outputs []*Value // nil where an optional output is left out
	Attrs   map[string]Attr

	piece *piece // what it is of a node that was written out; nil for others
}

// Input returns input i, nil when it is left out or the node has fewer.
func (n *Node) Input(i int) *Value {
	if i < 0 || i >= len(n.Inputs) {
		return nil
	}
	return n.Inputs[i]
}

// Output returns output i, nil when it is left out or the node has fewer.
func (n *Node) Output(i int) *Value {
	if i < 0 || i >= len(n.Outputs) {
		return nil
	}
	return n.Outputs[i]
}

// Attr is an attribute: exactly one of an int64, float32, string, []int64, []float32,
// []string, *Tensor or *Graph.
type Attr struct{ Value any }

// Int returns the attribute's integer, def when the node does not have it.
func (n *Node) Int(name string, def int64) int64 {
	if v, ok := n.Attrs[name].Value.(int64); ok {
		return v
	}
	return def
}

// Float returns the attribute's float, def when the node does not have it.
func (n *Node) Float(name string, def float32) float32 {
	if v, ok := n.Attrs[name].Value.(float32); ok {
		return v
	}
	return def
}

// Str returns the attribute's string, def when the node does not have it.
func (n *Node) Str(name, def string) string {
	if v, ok := n.Attrs[name].Value.(string); ok {
		return v
	}
	return def
}

// Ints returns the attribute's integers, nil when the node does not have them.
func (n *Node) Ints(name string) []int64 {
	v, _ := n.Attrs[name].Value.([]int64)
	return v
}

// Shape is a list of dims.
type Shape []Dim
