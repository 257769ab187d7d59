package graph

import (
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// MarshalOptions says how a graph is written.
type MarshalOptions struct {
	// DataDir is the folder that weights may be left in: one whose source lies inside it is
	// written as external data, with a location relative to it. Others are written inline.
	// Empty writes all inline.
	DataDir string
}

// irVersion is the file format's version that we write; it belongs to opset 18 and above.
const irVersion = 8

// Marshal writes the graph as an ONNX file. The bytes depend on nothing but the graph.
func (g *Graph) Marshal(o MarshalOptions) ([]byte, error) {
	w := &writer{dataDir: o.DataDir}
	body := w.graph(g)
	if w.err != nil {
		return nil, w.err
	}
	return append(appendBytes(g.prelude(), 7, body), g.opsets()...), nil
}

// prelude is what stands before the graph: the format's version and the producer.
func (g *Graph) prelude() []byte {
	out := appendVarint(nil, 1, uint64(max(g.IRVersion, irVersion)))
	return appendBytes(out, 2, []byte("foretoken"))
}

// opsets are the versions of the operator sets.
func (g *Graph) opsets() []byte {
	var out []byte
	for _, domain := range slices.Sorted(maps.Keys(g.Opset)) {
		var set []byte
		set = appendBytes(set, 1, []byte(domain))
		set = appendVarint(set, 2, uint64(g.Opset[domain]))
		out = appendBytes(out, 8, set)
	}
	return out
}

type writer struct {
	dataDir string
	err     error
	// stream leaves weights that lie in files, other than in dataDir, to be written behind
	// the graph's other parts: later lists them.
	stream bool
	later  []*Value
	nodes  map[string]bool // names of nodes that are written
	shared map[*Value]bool // constants that several graphs read: they are written once, in the outermost
}

func (w *writer) graph(g *Graph) []byte {
	var out []byte
	written := map[*Value]bool{}
	constant := func(vs []*Value) {
		for _, v := range vs {
			if v != nil && v.Const != nil && !written[v] && !w.shared[v] {
				written[v] = true
				if w.streams(v.Const) {
					if !slices.Contains(w.later, v) {
						w.later = append(w.later, v)
					}
				} else {
					out = appendBytes(out, 5, w.tensor(v.Name, v.Const))
				}
			}
		}
	}
	if w.shared == nil {
		shared := g.sharedConstants()
		constant(shared)
		w.shared = map[*Value]bool{}
		for _, v := range shared {
			w.shared[v] = true
		}
	}
	for _, n := range g.Nodes {
		constant(n.Inputs) // those that one inner graph alone reads are written inside it
		out = appendBytes(out, 1, w.node(n))
	}
	constant(g.Outputs)
	name := g.Name
	if name == "" {
		name = "graph"
	}
	out = appendBytes(out, 2, []byte(name))
	for _, v := range g.Inputs {
		out = appendBytes(out, 11, info(v, true))
	}
	for _, v := range g.Outputs {
		out = appendBytes(out, 12, info(v, false))
	}
	return out
}

func (w *writer) node(n *Node) []byte {
	var out []byte
	for _, v := range n.Inputs {
		out = appendBytes(out, 1, []byte(nameOf(v)))
	}
	for _, v := range n.Outputs {
		out = appendBytes(out, 2, []byte(nameOf(v)))
	}
	out = appendBytes(out, 3, []byte(w.onlyOnce(n.Name)))
	out = appendBytes(out, 4, []byte(n.Op))
	for _, name := range slices.Sorted(maps.Keys(n.Attrs)) {
		out = appendBytes(out, 5, w.attr(name, n.Attrs[name].Value))
	}
	return appendBytes(out, 7, []byte(n.Domain))
}

// onlyOnce is a node's name, none where another node bears it: runtimes want names to be unique, and
// the nodes of two branches or of two towers that come into one graph may share them.
func (w *writer) onlyOnce(name string) string {
	if w.nodes == nil {
		w.nodes = map[string]bool{}
	}
	if w.nodes[name] {
		return ""
	}
	w.nodes[name] = true
	return name
}

func nameOf(v *Value) string {
	if v == nil {
		return ""
	}
	return v.Name
}

// attr writes an AttributeProto; the last field is the kind.
func (w *writer) attr(name string, value any) []byte {
	out := appendBytes(nil, 1, []byte(name))
	switch v := value.(type) {
	case float32:
		out = appendVarint(appendFloat(out, 2, v), 20, 1)
	case int64:
		out = appendVarint(appendVarint(out, 3, uint64(v)), 20, 2)
	case string:
		out = appendVarint(appendBytes(out, 4, []byte(v)), 20, 3)
	case *Tensor:
		out = appendVarint(appendBytes(out, 5, w.tensor("", v)), 20, 4)
	case *Graph:
		out = appendVarint(appendBytes(out, 6, w.graph(v)), 20, 5)
	case []float32:
		for _, f := range v {
			out = appendFloat(out, 7, f)
		}
		out = appendVarint(out, 20, 6)
	case []int64:
		for _, i := range v {
			out = appendVarint(out, 8, uint64(i))
		}
		out = appendVarint(out, 20, 7)
	case []string:
		for _, s := range v {
			out = appendBytes(out, 9, []byte(s))
		}
		out = appendVarint(out, 20, 8)
	default:
		w.err = fmt.Errorf("attribute %q holds a %T", name, value)
	}
	return out
}

// tensorHeader is a TensorProto without its elements.
func tensorHeader(name string, t *Tensor) []byte {
	var out []byte
	for _, d := range t.Dims {
		out = appendVarint(out, 1, uint64(d))
	}
	out = appendVarint(out, 2, uint64(t.Type))
	return appendBytes(out, 8, []byte(name))
}

// streams says whether the weight's elements are left for later.
func (w *writer) streams(t *Tensor) bool {
	_, external := w.location(t)
	return w.stream && !external && t.data == nil && t.Source != nil
}

func (w *writer) tensor(name string, t *Tensor) []byte {
	out := tensorHeader(name, t)
	if location, ok := w.location(t); ok {
		out = appendPair(out, 13, "location", location)
		out = appendPair(out, 13, "offset", fmt.Sprint(t.Source.Offset))
		out = appendPair(out, 13, "length", fmt.Sprint(t.Source.Length))
		return appendVarint(out, 14, 1)
	}
	data, err := t.Bytes()
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("weight %q: %w", name, err)
	}
	return appendBytes(out, 9, data)
}

// location is the weight's file relative to the data folder, when it lies inside.
func (w *writer) location(t *Tensor) (string, bool) {
	if t.data != nil || t.Source == nil || w.dataDir == "" {
		return "", false
	}
	rel, err := filepath.Rel(w.dataDir, t.Source.Path)
	return filepath.ToSlash(rel), err == nil && filepath.IsLocal(rel)
}

// info writes a ValueInfoProto. Of an output's shape it states the rank; the extents are
// left to the runtime.
func info(v *Value, extents bool) []byte {
	tensor := appendVarint(nil, 1, uint64(v.Type))
	if v.Shape != nil {
		var shape []byte
		for _, d := range v.Shape {
			var dim []byte
			if n, ok := d.Int(); ok && extents {
				dim = appendVarint(dim, 1, uint64(n))
			} else if extents {
				dim = appendBytes(dim, 2, []byte(d.String()))
			}
			shape = appendBytes(shape, 1, dim)
		}
		tensor = appendBytes(tensor, 2, shape)
	}
	out := appendBytes(nil, 1, []byte(v.Name))
	return appendBytes(out, 2, appendBytes(nil, 1, tensor))
}

func appendVarint(b []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

func appendBytes(b []byte, num protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
}

func appendFloat(b []byte, num protowire.Number, v float32) []byte {
	return protowire.AppendFixed32(protowire.AppendTag(b, num, protowire.Fixed32Type), math.Float32bits(v))
}

func appendPair(b []byte, num protowire.Number, key, value string) []byte {
	return appendBytes(b, num, appendBytes(appendBytes(nil, 1, []byte(key)), 2, []byte(value)))
}
