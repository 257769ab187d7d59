package pickle

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// The operations that are known, by the names of Python's pickletools.
const (
	opProto          = 0x80
	opFrame          = 0x95
	opStop           = '.'
	opMark           = '('
	opNone           = 'N'
	opTrue           = 0x88
	opFalse          = 0x89
	opInt1           = 'K'
	opInt2           = 'M'
	opInt4           = 'J'
	opLong1          = 0x8a
	opFloat          = 'G'
	opUnicode        = 'X'
	opUnicodeShort   = 0x8c
	opEmptyList      = ']'
	opAppend         = 'a'
	opAppends        = 'e'
	opEmptyTuple     = ')'
	opTuple          = 't'
	opTuple1         = 0x85
	opTuple2         = 0x86
	opTuple3         = 0x87
	opEmptyDict      = '}'
	opSetItem        = 's'
	opSetItems       = 'u'
	opPut1           = 'q'
	opPut4           = 'r'
	opMemoize        = 0x94
	opGet1           = 'h'
	opGet4           = 'j'
	opGlobal         = 'c'
	opGlobalStack    = 0x93
	opReduce         = 'R'
	opNew            = 0x81
	opBuild          = 'b'
	opPersistentID   = 'Q'
	highestProtocol  = 5
	longestWholeLong = 8 // bytes
)

// refusedNames names operations that other pickles have, so that a refusal says more than a number.
var refusedNames = map[byte]string{
	'0': "POP", '1': "POP_MARK", '2': "DUP", 'i': "INST", 'o': "OBJ", 0x82: "EXT1", 0x83: "EXT2", 0x84: "EXT4", 0x92: "NEWOBJ_EX",
	'P': "PERSID", 'I': "INT", 'L': "LONG", 'F': "FLOAT", 'S': "STRING", 'T': "BINSTRING", 'U': "SHORT_BINSTRING", 'V': "UNICODE",
	'B': "BINBYTES", 'C': "SHORT_BINBYTES", 0x8b: "LONG4", 0x8d: "BINUNICODE8", 0x8e: "BINBYTES8", 0x8f: "EMPTY_SET", 0x90: "ADDITEMS",
	0x91: "FROZENSET", 0x96: "BYTEARRAY8", 'g': "GET", 'p': "PUT", 'd': "DICT", 'l': "LIST",
}

// global is a name of Python's that is known.
type global string

// The names that are known, besides storages.
const (
	orderedDict      global = "collections.OrderedDict"
	rebuildTensor    global = "torch._utils._rebuild_tensor"
	rebuildTensor2   global = "torch._utils._rebuild_tensor_v2"
	rebuildParameter global = "torch._utils._rebuild_parameter"
	// What early textual inversion wrote: a module, whose state has an empty set.
	parameterDict global = "torch.nn.modules.container.ParameterDict"
	emptySet      global = "__builtin__.set"
)

// storage is what tensors take their elements from; data is read after the program.
type storage struct {
	key   string
	dtype graph.DataType
	size  int64 // elements
	data  []byte
}

// view is a tensor that waits for its storage's data.
type view struct {
	tensor  *graph.Tensor
	storage *storage
	offset  int64
	dims    []int64
	strides []int64
}

// mark is what opMark puts on the stack.
type mark struct{}

// bigNumber is a whole number of more than 64 bits, by its bytes.
type bigNumber string

// machine reads one pickle. It makes values only out of what is in the file, an operation at a
// time, and holds at most one for each byte that it reads.
type machine struct {
	in    []byte
	at    int
	stack []any
	memo  map[uint32]any

	storages map[string]*storage
	views    []view
	left     int64 // bytes that tensors may still take
}

// newMachine reads a program that lies in a file of so many bytes.
func newMachine(program []byte, file int) *machine {
	return &machine{in: program, storages: map[string]*storage{}, left: maxShare*int64(file) + freeShare}
}

// fault is what stops the machine; it is a panic within the package alone.
type fault struct{ error }

func stop(kind errs.Kind, format string, args ...any) {
	panic(fault{errs.New(kind, format, args...)})
}

// run reads from the current place to the operation that ends the pickle, and returns its value.
func (m *machine) run() (value any, err error) {
	defer func() {
		if p := recover(); p != nil {
			f, ours := p.(fault)
			if !ours {
				panic(p)
			}
			err = errs.New(errs.Of(f.error), "pickle, byte %d: %w", m.at, f.error)
		}
	}()
	m.stack, m.memo = nil, map[uint32]any{}
	start := m.at
	for {
		if m.at-start > maxProgram {
			stop(errs.TooLarge, "more than %d bytes without tensors", maxProgram)
		}
		op := m.bytes(1)[0]
		if op == opStop {
			break
		}
		m.step(op)
	}
	value = m.pop()
	if len(m.stack) > 0 {
		stop(errs.Invalid, "%d values are left over", len(m.stack))
	}
	if !isPlain(value) {
		stop(errs.Invalid, "it holds no value")
	}
	return value, nil
}

// isPlain says whether a value may be seen outside, or in a container.
func isPlain(v any) bool {
	switch v.(type) {
	case nil, bool, int64, float64, string, *List, Tuple, *Dict, *graph.Tensor, bigNumber:
		return true
	}
	return false
}

func (m *machine) step(op byte) {
	switch op {
	case opProto:
		if v := m.bytes(1)[0]; v > highestProtocol {
			stop(errs.Unsupported, "protocol %d, known up to %d", v, highestProtocol)
		}
	case opFrame:
		m.bytes(8)
	case opMark:
		m.push(mark{})
	case opNone:
		m.push(nil)
	case opTrue, opFalse:
		m.push(op == opTrue)
	case opInt1:
		m.push(int64(m.bytes(1)[0]))
	case opInt2:
		m.push(int64(binary.LittleEndian.Uint16(m.bytes(2))))
	case opInt4:
		m.push(int64(int32(m.uint32())))
	case opLong1:
		m.push(long(m.bytes(int(m.bytes(1)[0]))))
	case opFloat:
		m.push(math.Float64frombits(binary.BigEndian.Uint64(m.bytes(8))))
	case opUnicode:
		m.push(m.text(int64(m.uint32())))
	case opUnicodeShort:
		m.push(m.text(int64(m.bytes(1)[0])))
	case opPut1:
		m.memo[uint32(m.bytes(1)[0])] = m.top()
	case opPut4:
		m.memo[m.uint32()] = m.top()
	case opMemoize:
		m.memo[uint32(len(m.memo))] = m.top()
	case opGet1:
		m.get(uint32(m.bytes(1)[0]))
	case opGet4:
		m.get(m.uint32())
	default:
		m.build(op)
	}
}

// build has the operations that make containers and call what is known.
func (m *machine) build(op byte) {
	switch op {
	case opEmptyList:
		m.push(&List{})
	case opEmptyDict:
		m.push(NewDict())
	case opEmptyTuple:
		m.push(Tuple{})
	case opTuple1, opTuple2, opTuple3:
		m.push(Tuple(m.take(int(op-opTuple1) + 1)))
	case opTuple:
		m.push(Tuple(m.sinceMark()))
	case opAppend:
		m.append(m.take(1))
	case opAppends:
		m.append(m.sinceMark())
	case opSetItem:
		m.set(m.take(2))
	case opSetItems:
		m.set(m.sinceMark())
	case opGlobal:
		module := m.line()
		m.push(known(module, m.line()))
	case opGlobalStack:
		names := m.take(2)
		module, ok1 := names[0].(string)
		name, ok2 := names[1].(string)
		if !ok1 || !ok2 {
			stop(errs.Invalid, "a function's name that is no text")
		}
		m.push(known(module, name))
	case opReduce, opNew:
		m.call(op)
	case opBuild:
		m.setState()
	case opPersistentID:
		m.push(m.storageOf(m.pop()))
	default:
		stop(errs.Invalid, "operation 0x%02x %s, which files of tensors have no need of: refused", op, refusedNames[op])
	}
}

// bytes takes the next n bytes of the file.
func (m *machine) bytes(n int) []byte {
	if n > len(m.in)-m.at {
		stop(errs.Invalid, "it ends where %d more bytes are due", n)
	}
	m.at += n
	return m.in[m.at-n : m.at]
}

func (m *machine) uint32() uint32 { return binary.LittleEndian.Uint32(m.bytes(4)) }

func (m *machine) text(n int64) string {
	if n > int64(len(m.in)-m.at) {
		stop(errs.Invalid, "a text of %d bytes where %d are left", n, len(m.in)-m.at)
	}
	b := m.bytes(int(n))
	if !utf8.Valid(b) {
		stop(errs.Invalid, "a text that is not UTF-8")
	}
	return string(b)
}

// line takes a name up to the end of its line.
func (m *machine) line() string {
	rest := m.in[m.at:min(len(m.in), m.at+1000)]
	for i, c := range rest {
		if c == '\n' {
			m.at += i + 1
			return string(rest[:i])
		}
	}
	stop(errs.Invalid, "a name without an end")
	return ""
}

// long is a whole number, least byte first, in two's complement.
func long(b []byte) any {
	if len(b) > longestWholeLong {
		return bigNumber(b)
	}
	var v uint64
	for i, c := range b {
		v |= uint64(c) << (8 * i)
	}
	if n := len(b); n > 0 && n < 8 && b[n-1]&0x80 != 0 {
		v |= ^uint64(0) << (8 * n)
	}
	return int64(v)
}

func (m *machine) push(v any) { m.stack = append(m.stack, v) }

func (m *machine) top() any {
	if len(m.stack) == 0 {
		stop(errs.Invalid, "a value is missing")
	}
	return m.stack[len(m.stack)-1]
}

func (m *machine) pop() any {
	v := m.top()
	m.stack = m.stack[:len(m.stack)-1]
	return v
}

// take pops n values, in the order in which they were pushed.
func (m *machine) take(n int) []any {
	if n > len(m.stack) {
		stop(errs.Invalid, "%d values are missing", n-len(m.stack))
	}
	at := len(m.stack) - n
	values := append([]any(nil), m.stack[at:]...)
	m.stack = m.stack[:at]
	return values
}

// sinceMark pops the values behind the last mark, and the mark.
func (m *machine) sinceMark() []any {
	for i := len(m.stack) - 1; i >= 0; i-- {
		if m.stack[i] == any(mark{}) {
			values := m.take(len(m.stack) - 1 - i)
			m.pop()
			return values
		}
	}
	stop(errs.Invalid, "a mark is missing")
	return nil
}

func (m *machine) get(i uint32) {
	v, ok := m.memo[i]
	if !ok {
		stop(errs.Invalid, "value %d is asked for before it is kept", i)
	}
	m.push(v)
}

func (m *machine) append(values []any) {
	l, ok := m.top().(*List)
	if !ok {
		stop(errs.Invalid, "values for a list that is none")
	}
	for _, v := range values {
		checkPlain(v)
	}
	l.Items = append(l.Items, values...)
}

func checkPlain(v any) {
	if !isPlain(v) {
		stop(errs.Invalid, "a function, storage or mark as a value")
	}
}

func (m *machine) set(pairs []any) {
	var d *Dict
	switch t := m.top().(type) {
	case *Dict:
		d = t
	default:
		stop(errs.Invalid, "values for a dictionary that is none")
	}
	if len(pairs)%2 != 0 {
		stop(errs.Invalid, "a key without a value")
	}
	for i := 0; i < len(pairs); i += 2 {
		checkPlain(pairs[i+1])
		switch pairs[i].(type) {
		case string, int64:
			d.Set(pairs[i], pairs[i+1])
		default:
			stop(errs.Invalid, "a key that is neither text nor number")
		}
	}
}

// known finds a name among those that make tensors. A file that asks for another one may do
// anything where it is run.
func known(module, name string) any {
	switch full := global(module + "." + name); full {
	case orderedDict, rebuildTensor, rebuildTensor2, rebuildParameter, parameterDict, emptySet:
		return full
	}
	if dtype, ok := storageTypes[name]; ok && module == "torch" {
		return dtype
	}
	stop(errs.Invalid, "the file asks for %.100q, which makes no tensor and could run any code where it is loaded: refused. Ask for it as safetensors", strings.ToValidUTF8(module+"."+name, "?"))
	return nil
}

// call does what a known function does with its arguments.
func (m *machine) call(op byte) {
	values := m.take(2)
	args, ok := values[1].(Tuple)
	f, callable := values[0].(global)
	if !ok || !callable {
		stop(errs.Invalid, "a call of what is no function")
	}
	switch {
	case f == orderedDict && op == opReduce && len(args) == 0, f == parameterDict && len(args) == 0:
		m.push(NewDict())
	case f == emptySet && op == opReduce && len(args) == 1 && isEmptyList(args[0]):
		m.push(nil)
	case f == rebuildParameter && op == opReduce && len(args) >= 1 && isTensor(args[0]):
		m.push(args[0])
	case (f == rebuildTensor && len(args) == 4 || f == rebuildTensor2 && len(args) >= 6) && op == opReduce:
		m.push(m.tensor(args))
	default:
		stop(errs.Invalid, "%s is called with %d arguments that it does not take", f, len(args))
	}
}

func isEmptyList(v any) bool {
	l, ok := v.(*List)
	return ok && len(l.Items) == 0
}

func isTensor(v any) bool {
	_, ok := v.(*graph.Tensor)
	return ok
}

// setState takes an object's state: of a ParameterDict its parameters, of other dictionaries
// attributes that mean nothing here.
func (m *machine) setState() {
	state := m.pop()
	d, ok := m.top().(*Dict)
	attributes, isDict := state.(*Dict)
	if !ok || !isDict {
		stop(errs.Invalid, "state for what takes none")
	}
	if parameters, ok := attributes.Get("_parameters").(*Dict); ok {
		for _, key := range parameters.Keys() {
			d.Set(key, parameters.Get(key))
		}
	}
}

// storageOf notes a storage: ("storage", type, key, location, elements), in old files with a sixth
// that is None.
func (m *machine) storageOf(id any) *storage {
	t, ok := id.(Tuple)
	if !ok || len(t) < 5 || len(t) > 6 || t[0] != "storage" || len(t) == 6 && t[5] != nil {
		stop(errs.Invalid, "a reference that is no storage")
	}
	dtype, ok1 := t[1].(graph.DataType)
	key, ok2 := t[2].(string)
	size, ok3 := t[4].(int64)
	if !ok1 || !ok2 || !ok3 || size < 0 || size > maxFile {
		stop(errs.Invalid, "a storage of unknown type, name or size")
	}
	if s := m.storages[key]; s != nil {
		if s.dtype != dtype || s.size != size {
			stop(errs.Invalid, "storage %.40q is described twice, and not alike", key)
		}
		return s
	}
	s := &storage{key: key, dtype: dtype, size: size}
	m.storages[key] = s
	return s
}

// tensor notes a view of a storage: (storage, offset, extents, strides, ...), the last three in
// elements.
func (m *machine) tensor(args Tuple) *graph.Tensor {
	s, ok1 := args[0].(*storage)
	offset, ok2 := args[1].(int64)
	dims, ok3 := whole(args[2])
	strides, ok4 := whole(args[3])
	if !ok1 || !ok2 || !ok3 || !ok4 || offset < 0 || offset > maxFile || len(dims) != len(strides) || len(dims) > maxRank {
		stop(errs.Invalid, "a tensor without a storage, offset, extents or strides")
	}
	last, size, empty := offset, int64(s.dtype.Size()), slices.Contains(dims, 0)
	for i, d := range dims {
		if empty {
			break
		}
		if d > m.left/size || d > 1 && strides[i] > maxFile/(d-1) {
			stop(errs.TooLarge, "a tensor of extents %v and strides %v: more than %d times the file's size", dims, strides, maxShare)
		}
		size *= d
		last += (d - 1) * strides[i]
	}
	if !empty && last >= s.size {
		stop(errs.Invalid, "a tensor of extents %v and strides %v from %d reaches beyond its storage of %d", dims, strides, offset, s.size)
	}
	if !empty {
		m.left -= size
	}
	t := &graph.Tensor{}
	m.views = append(m.views, view{t, s, offset, dims, strides})
	return t
}

func whole(v any) ([]int64, bool) {
	t, ok := v.(Tuple)
	if !ok || len(t) > maxRank {
		return nil, false
	}
	list := make([]int64, len(t))
	for i := range t {
		n, ok := t[i].(int64)
		if !ok || n < 0 {
			return nil, false
		}
		list[i] = n
	}
	return list, true
}
