package graph

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/foretoken/foretoken/internal/errs"
)

// Limits on what a model file may hold; far above what exporters write.
const (
	maxNodes   = 1 << 17
	maxTensors = 1 << 18 // initializers and attributes that are tensors
	maxAttrs   = 1 << 20
	maxRank    = 64
	maxDepth   = 16 // graphs within attributes within graphs
	// inlineLimit is the size in bytes above which a weight is left in its file.
	inlineLimit = 1 << 10
)

// Load reads the model at path. Weights stay in the file, or in the external-data files
// beside it, until they are asked for; external data must lie inside the model's folder.
// The graph comes back in canonical form: operator forms of opset 18, constants as
// values, checked. Errors are of kind [errs.Invalid] or [errs.Unsupported].
func Load(path string) (*Graph, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	model, unmap, err := MapFile(abs)
	if err != nil {
		return nil, errs.New(errs.NotFound, "model: %w", err)
	}
	defer unmap()
	g, err := (&loader{file: abs, dir: filepath.Dir(abs)}).loadMapped(model)
	if err != nil {
		return nil, errs.New(errs.Or(err, errs.Invalid), "model %s: %w", path, err)
	}
	return g, nil
}

// Parse reads a model from memory; external data is looked for in dir ("" allows none).
// The graph's small weights may share memory with model.
func Parse(model []byte, dir string) (*Graph, error) {
	if dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, err
		}
		dir = abs
	}
	g, err := (&loader{dir: dir}).load(model)
	if err != nil {
		return nil, errs.New(errs.Or(err, errs.Invalid), "model: %w", err)
	}
	return g, nil
}

// loadMapped is load of a mapped file. Where somebody cuts the file short meanwhile, reading it
// faults, which is an error here and not the end of the process.
func (l *loader) loadMapped(model []byte) (g *Graph, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch p := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }:
			g, err = nil, errs.New(errs.Invalid, "the file changed while it was read")
		default:
			panic(p)
		}
	}()
	return l.load(model)
}

// loader holds what is known while one model is read.
type loader struct {
	file  string // the model file; "" when it only lies in memory
	dir   string
	depth int
	// counts of what has been read so far, held against the limits
	nodes, tensors, attrs int

	functions map[string]*function // the model's local functions by key
	calls     int                  // functions inlined so far
	inlined   int                  // bytes of their bodies
	most      int                  // of these
	call      *call                // the one being inlined; nil outside
	// versions are the opsets of nodes that functions written for another than the model's have.
	versions map[*Node]int64
}

func (l *loader) load(model []byte) (*Graph, error) {
	g := &Graph{Opset: map[string]int64{}, Dir: l.dir, Metadata: map[string]string{}}
	l.functions, l.versions, l.most = map[string]*function{}, map[*Node]int64{}, mostInlined(len(model))
	var body *field
	err := fields(model, 0, func(f field) error {
		switch f.Num {
		case 1:
			g.IRVersion = int64(f.Varint)
		case 2:
			g.Producer = strings.TrimSpace(string(f.Bytes) + " " + g.Producer)
		case 3:
			g.Producer = strings.TrimSpace(g.Producer + " " + string(f.Bytes))
		case 7:
			body = &f
		case 8:
			return l.opset(g, f)
		case 14:
			k, v, err := stringPair(f)
			g.Metadata[k] = v
			return err
		case 25:
			return l.readFunction(f)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if body == nil {
		return nil, fmt.Errorf("no graph in it: not an ONNX model")
	}
	if err := l.graph(g, *body, nil); err != nil {
		return nil, err
	}
	g.countFresh()
	g.nameConstants()
	g.Exported = exported(g)
	if err := canonicalize(g, l.versions); err != nil {
		return nil, err
	}
	return g, g.Check()
}

func (l *loader) opset(g *Graph, f field) error {
	domain, version, err := opsetID(f)
	g.Opset[domain] = version
	return err
}

func opsetID(f field) (domain string, version int64, err error) {
	err = fields(f.Bytes, f.Offset, func(f field) error {
		switch f.Num {
		case 1:
			domain = string(f.Bytes)
		case 2:
			version = int64(f.Varint)
		}
		return nil
	})
	return cleanDomain(domain), version, err
}

// scope resolves the names of a graph and of the graphs around it.
type scope struct {
	own    map[string]*Value
	absent map[string]bool // a function's inputs that its caller leaves out
	outer  *scope
	prefix string // of the names that values get, within a function's body
}

// find returns the value of that name, nil where it is one that a caller leaves out.
func (s *scope) find(name string) (v *Value, ok bool) {
	for ; s != nil; s = s.outer {
		if v := s.own[name]; v != nil {
			return v, true
		}
		if s.absent[name] {
			return nil, true
		}
	}
	return nil, false
}

// graph reads a GraphProto into g. outer resolves names of the enclosing graph.
func (l *loader) graph(g *Graph, body field, outer *scope) error {
	if l.depth++; l.depth > maxDepth {
		return fmt.Errorf("graphs are nested deeper than %d", maxDepth)
	}
	defer func() { l.depth-- }()
	values := &scope{own: map[string]*Value{}, outer: outer}
	if outer != nil {
		values.prefix = outer.prefix
	}
	var nodes, inputs, outputs []field
	err := fields(body.Bytes, body.Offset, func(f field) error {
		switch f.Num {
		case 1:
			nodes = append(nodes, f)
		case 2:
			g.Name = string(f.Bytes)
		case 5:
			t, name, err := l.tensor(f)
			if err != nil {
				return fmt.Errorf("initializer %q: %w", name, err)
			}
			values.own[name] = &Value{Name: values.prefix + name, Type: t.Type, Shape: known(t.Dims), Const: t}
		case 11:
			inputs = append(inputs, f)
		case 12:
			outputs = append(outputs, f)
		case 15:
			return fmt.Errorf("sparse initializers are not supported")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if l.nodes += len(nodes); l.nodes > maxNodes {
		return errs.New(errs.TooLarge, "more than %d nodes", maxNodes)
	}
	if err := readInputs(g, inputs, values); err != nil {
		return err
	}
	if nodes, err = inOrder(nodes); err != nil {
		return err
	}
	for _, f := range nodes {
		if err := l.node(g, f, values); err != nil {
			return err
		}
	}
	return readOutputs(g, outputs, values)
}

// readInputs adds the graph's inputs; an input that is also an initializer (IR version
// 3 and below list them twice) is the constant.
func readInputs(g *Graph, inputs []field, values *scope) error {
	for _, f := range inputs {
		v, err := valueInfo(f)
		if err != nil {
			return fmt.Errorf("input %q: %w", v.Name, err)
		}
		if old := values.own[v.Name]; old != nil && old.Const != nil {
			continue
		}
		values.own[v.Name] = v
		v.Name = values.prefix + v.Name
		g.Inputs = append(g.Inputs, v)
	}
	return nil
}

// readOutputs resolves the graph's outputs. Their declared types are kept where
// nothing better is known; declared shapes are not trusted.
func readOutputs(g *Graph, outputs []field, values *scope) error {
	for _, f := range outputs {
		declared, err := valueInfo(f)
		if err != nil {
			return fmt.Errorf("output %q: %w", declared.Name, err)
		}
		v, _ := values.find(declared.Name)
		if v == nil {
			return fmt.Errorf("output %q is defined nowhere", declared.Name)
		}
		if v.Type == Undefined {
			v.Type = declared.Type
		}
		g.Outputs = append(g.Outputs, v)
	}
	return nil
}

func (l *loader) node(g *Graph, f field, values *scope) error {
	n := &Node{Attrs: map[string]Attr{}}
	var outputs []string
	var attrs []field
	var unknown, overload string
	err := fields(f.Bytes, f.Offset, func(f field) error {
		switch f.Num {
		case 1:
			in, ok := values.find(string(f.Bytes))
			if !ok && len(f.Bytes) > 0 {
				unknown = string(f.Bytes)
			}
			n.Inputs = append(n.Inputs, in)
		case 2:
			outputs = append(outputs, string(f.Bytes))
		case 3:
			if len(f.Bytes) > 0 {
				n.Name = values.prefix + string(f.Bytes)
			}
		case 4:
			n.Op = string(f.Bytes)
		case 5:
			attrs = append(attrs, f)
		case 7:
			n.Domain = cleanDomain(string(f.Bytes))
		case 8:
			overload = string(f.Bytes)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if unknown != "" {
		return fmt.Errorf("node %q (%s): input %q is defined nowhere before it", n.Name, n.Op, unknown)
	}
	if l.attrs += len(attrs); l.attrs > maxAttrs {
		return errs.New(errs.TooLarge, "more than %d attributes", maxAttrs)
	}
	for _, a := range attrs {
		if err := l.attr(g, n, a, values); err != nil {
			return fmt.Errorf("node %q (%s): %w", n.Name, n.Op, err)
		}
	}
	if f := l.functions[functionKey(n.Domain, n.Op, overload)]; f != nil {
		return l.inline(g, n, f, outputs, values)
	}
	if l.call != nil && l.call.version != g.Opset[""] {
		l.versions[n] = l.call.version
	}
	return define(g, n, outputs, values)
}

// define enters the node's outputs; a Constant becomes a constant value.
func define(g *Graph, n *Node, outputs []string, values *scope) error {
	if n.Op == "Constant" && n.Domain == "" {
		t, err := constantTensor(n)
		if err != nil || len(outputs) != 1 {
			return fmt.Errorf("constant %q: %w", n.Name, err)
		}
		values.own[outputs[0]] = &Value{Name: values.prefix + outputs[0], Type: t.Type, Shape: known(t.Dims), Const: t}
		return nil
	}
	for _, name := range outputs {
		if name == "" {
			n.Outputs = append(n.Outputs, nil)
			continue
		}
		if old := values.own[name]; old != nil && (old.Def != nil || old.Const == nil) {
			return fmt.Errorf("node %q (%s): output %q is defined twice", n.Name, n.Op, name)
		}
		v := &Value{Name: values.prefix + name, Def: n}
		values.own[name] = v
		n.Outputs = append(n.Outputs, v)
	}
	g.Nodes = append(g.Nodes, n)
	return nil
}

func constantTensor(n *Node) (*Tensor, error) {
	for name, a := range n.Attrs {
		switch v := a.Value.(type) {
		case *Tensor:
			return v, nil
		case int64:
			return NewTensor([]int64{v}), nil
		case []int64:
			return NewTensor(v, int64(len(v))), nil
		case float32:
			return NewTensor([]float32{v}), nil
		case []float32:
			return NewTensor(v, int64(len(v))), nil
		default:
			return nil, fmt.Errorf("attribute %q holds no numbers", name)
		}
	}
	return nil, fmt.Errorf("it has no value")
}

func (l *loader) attr(g *Graph, n *Node, f field, values *scope) error {
	var name, refers string
	var a any
	var ints []int64
	var floats []float32
	var strs []string
	var kind uint64
	err := fields(f.Bytes, f.Offset, func(f field) (err error) {
		switch f.Num {
		case 1:
			name = string(f.Bytes)
		case 2:
			a = float32frombits(f.Varint)
		case 3:
			a = int64(f.Varint)
		case 4:
			a = string(f.Bytes)
		case 5:
			var t *Tensor
			t, _, err = l.tensor(f)
			a = t
		case 6:
			sub := &Graph{Opset: g.Opset, Dir: l.dir}
			err = l.graph(sub, f, values)
			a = sub
		case 7:
			floats, err = f.floats(floats)
		case 8:
			ints, err = f.varints(ints)
		case 9:
			strs = append(strs, string(f.Bytes))
		case 20:
			kind = f.Varint
		case 21:
			refers = string(f.Bytes)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("attribute %q: %w", name, err)
	}
	if refers != "" {
		given, ok := l.call.attr(refers)
		if _, inner := given.Value.(*Graph); inner {
			return errs.New(errs.Unsupported, "attribute %q is a graph that the function's caller gives", name)
		}
		if ok {
			n.Attrs[name] = given
		}
		return nil
	}
	n.Attrs[name] = Attr{attrValue(kind, a, ints, floats, strs)}
	return nil
}

// attrValue picks the attribute's value by its declared kind: empty lists and zeros
// leave no trace on the wire.
func attrValue(kind uint64, a any, ints []int64, floats []float32, strs []string) any {
	switch {
	case kind == 7 || ints != nil:
		return ints
	case kind == 6 || floats != nil:
		return floats
	case kind == 8 || strs != nil:
		return strs
	case a != nil:
		return a
	case kind == 1:
		return float32(0)
	case kind == 2:
		return int64(0)
	}
	return ""
}

// valueInfo reads a ValueInfoProto. Names of axes are kept as symbols.
func valueInfo(f field) (*Value, error) {
	v := &Value{}
	err := fields(f.Bytes, f.Offset, func(f field) error {
		switch f.Num {
		case 1:
			v.Name = string(f.Bytes)
		case 2:
			return fields(f.Bytes, f.Offset, func(f field) error {
				if f.Num != 1 {
					return fmt.Errorf("it is no tensor")
				}
				return tensorType(f, v)
			})
		}
		return nil
	})
	return v, err
}

func tensorType(f field, v *Value) error {
	return fields(f.Bytes, f.Offset, func(f field) error {
		switch f.Num {
		case 1:
			v.Type = DataType(f.Varint)
		case 2:
			v.Shape = Shape{}
			return fields(f.Bytes, f.Offset, func(f field) error {
				if f.Num == 1 {
					d, err := dimension(f, v.Name, len(v.Shape))
					if v.Shape = append(v.Shape, d); len(v.Shape) > maxRank {
						return fmt.Errorf("it has more than %d axes", maxRank)
					}
					return err
				}
				return nil
			})
		}
		return nil
	})
}

func dimension(f field, value string, axis int) (Dim, error) {
	d := Sym(value + "." + strconv.Itoa(axis))
	err := fields(f.Bytes, f.Offset, func(f field) error {
		switch f.Num {
		case 1:
			if int64(f.Varint) < 0 {
				return nil // some exporters write -1 for a free axis
			}
			d = Known(int64(f.Varint))
		case 2:
			name := string(f.Bytes)
			if _, err := strconv.Atoi(name); err == nil {
				name = "_" + name // torch 2.6 calls a free axis by the extent that it was exported with
			}
			if name != "" {
				d = opaque(name)
			}
		}
		return nil
	})
	return d, err
}

// tensor reads a TensorProto. Large raw data stays in the file.
func (l *loader) tensor(f field) (*Tensor, string, error) {
	t := &Tensor{Dims: []int64{}}
	if l.tensors++; l.tensors > maxTensors {
		return nil, "", errs.New(errs.TooLarge, "more than %d tensors", maxTensors)
	}
	var name string
	var raw *field
	var location map[string]string
	var external bool
	var typed typedData
	err := fields(f.Bytes, f.Offset, func(f field) (err error) {
		switch f.Num {
		case 1:
			t.Dims, err = f.varints(t.Dims)
		case 2:
			t.Type = DataType(f.Varint)
		case 8:
			name = string(f.Bytes)
		case 9:
			raw = &f
		case 13:
			var k, v string
			if location == nil {
				location = map[string]string{}
			}
			k, v, err = stringPair(f)
			location[k] = v
		case 14:
			external = f.Varint == 1
		default:
			err = typed.read(f)
		}
		return err
	})
	if err != nil {
		return nil, name, err
	}
	size, err := byteSize(t)
	if err != nil {
		return nil, name, err
	}
	switch {
	case external:
		err = l.external(t, location, size)
	case raw != nil:
		err = l.raw(t, *raw, size)
	default:
		err = typed.fill(t, size)
	}
	return t, name, err
}

// byteSize is the tensor's size in bytes, an error when its dims are no dims.
func byteSize(t *Tensor) (int64, error) {
	n := int64(max(1, t.Type.Size()))
	if len(t.Dims) > maxRank {
		return 0, fmt.Errorf("%d axes, at most %d are read", len(t.Dims), maxRank)
	}
	if t.Type.Bytes(1) == 0 && t.Type != String {
		return 0, errs.New(errs.Unsupported, "elements of type %s", t.Type)
	}
	for _, d := range t.Dims {
		if d < 0 {
			return 0, fmt.Errorf("dims %v", t.Dims)
		}
		if d > 0 && n > (1<<50)/d {
			return 0, fmt.Errorf("dims %v are too large", t.Dims)
		}
		n *= d
	}
	return t.Type.Bytes(Count(t.Dims)), nil
}

func (l *loader) raw(t *Tensor, raw field, size int64) error {
	if int64(len(raw.Bytes)) != size {
		return fmt.Errorf("%s%v needs %d bytes, its raw data has %d", t.Type, t.Dims, size, len(raw.Bytes))
	}
	if l.file != "" && size > inlineLimit {
		t.Source = &Source{Path: l.file, Offset: raw.Offset, Length: size}
		return nil
	}
	t.data = append([]byte{}, raw.Bytes...)
	return nil
}

// external resolves external data; its file must lie inside the model's folder, links followed.
func (l *loader) external(t *Tensor, at map[string]string, size int64) error {
	location := at["location"]
	if l.dir == "" || location == "" || !filepath.IsLocal(filepath.FromSlash(location)) {
		return fmt.Errorf("external data %q does not lie inside the model's folder", location)
	}
	path, err := filepath.EvalSymlinks(filepath.Join(l.dir, filepath.FromSlash(location)))
	if err != nil {
		return fmt.Errorf("external data %q: %w", location, err)
	}
	root, err := filepath.EvalSymlinks(l.dir)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(root, path); err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("external data %q leads out of the model's folder", location)
	}
	offset, length, err := byteRange(at, size)
	if err != nil {
		return fmt.Errorf("external data %q: %w", location, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("external data %q is no regular file", location)
	}
	if offset > info.Size()-length {
		return fmt.Errorf("external data %q has %d bytes, bytes %d to %d are wanted", location, info.Size(), offset, offset+length)
	}
	t.Source = &Source{Path: path, Offset: offset, Length: length}
	if length <= inlineLimit {
		t.data, err = t.Bytes()
		t.Source = nil
	}
	return err
}

func byteRange(at map[string]string, size int64) (offset, length int64, err error) {
	length = size
	if s := at["offset"]; s != "" {
		if offset, err = strconv.ParseInt(s, 10, 64); err != nil || offset < 0 {
			return 0, 0, fmt.Errorf("offset %q", s)
		}
	}
	if s := at["length"]; s != "" {
		if length, err = strconv.ParseInt(s, 10, 64); err != nil || length != size {
			return 0, 0, fmt.Errorf("length %q where the dims need %d", s, size)
		}
	}
	return offset, length, nil
}

func stringPair(f field) (key, value string, err error) {
	err = fields(f.Bytes, f.Offset, func(f field) error {
		switch f.Num {
		case 1:
			key = string(f.Bytes)
		case 2:
			value = string(f.Bytes)
		}
		return nil
	})
	return key, value, err
}

// cleanDomain writes the default operator set's domain in its one short form.
func cleanDomain(d string) string {
	if d == "ai.onnx" {
		return ""
	}
	return d
}
