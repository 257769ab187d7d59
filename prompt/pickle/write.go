package pickle

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// Write writes a value as torch.save does, so that torch.load reads it, with weights_only too.
// Tensors are of floats, whole numbers or truth values that torch has. Equal values give equal
// bytes.
func Write(w io.Writer, value any) error {
	p := &pickler{}
	p.out.Write([]byte{opProto, 2})
	if err := p.value(value); err != nil {
		return err
	}
	p.out.WriteByte(opStop)
	z := zip.NewWriter(w)
	entries := []struct {
		name string
		data []byte
	}{{"data.pkl", p.out.Bytes()}, {"byteorder", []byte("little")}}
	for i, data := range p.storages {
		entries = append(entries, struct {
			name string
			data []byte
		}{fmt.Sprintf("data/%d", i), data})
	}
	entries = append(entries, struct {
		name string
		data []byte
	}{"version", []byte("3\n")})
	for _, e := range entries {
		f, err := z.CreateHeader(&zip.FileHeader{Name: "archive/" + e.name, Method: zip.Store})
		if err == nil {
			_, err = f.Write(e.data)
		}
		if err != nil {
			return fmt.Errorf("writing a pickle: %w", err)
		}
	}
	return z.Close()
}

type pickler struct {
	out      bytes.Buffer
	storages [][]byte
}

func (p *pickler) value(v any) error {
	switch v := v.(type) {
	case nil:
		p.out.WriteByte(opNone)
	case bool:
		p.out.WriteByte(map[bool]byte{true: opTrue, false: opFalse}[v])
	case int64:
		p.whole(v)
	case float64:
		p.out.WriteByte(opFloat)
		p.out.Write(binary.BigEndian.AppendUint64(nil, math.Float64bits(v)))
	case string:
		p.text(v)
	case *List:
		p.out.Write([]byte{opEmptyList, opMark})
		if err := p.values(v.Items...); err != nil {
			return err
		}
		p.out.WriteByte(opAppends)
	case Tuple:
		p.out.WriteByte(opMark)
		if err := p.values(v...); err != nil {
			return err
		}
		p.out.WriteByte(opTuple)
	case *Dict:
		p.out.Write([]byte{opEmptyDict, opMark})
		for _, key := range v.keys {
			if err := p.values(key, v.values[key]); err != nil {
				return err
			}
		}
		p.out.WriteByte(opSetItems)
	case *graph.Tensor:
		return p.tensor(v)
	default:
		return errs.New(errs.Invalid, "a %T can't be written as a pickle", v)
	}
	return nil
}

func (p *pickler) values(values ...any) error {
	for _, v := range values {
		if err := p.value(v); err != nil {
			return err
		}
	}
	return nil
}

// whole writes a number in four bytes where it fits.
func (p *pickler) whole(v int64) {
	if v == int64(int32(v)) {
		p.out.WriteByte(opInt4)
		p.out.Write(binary.LittleEndian.AppendUint32(nil, uint32(v)))
		return
	}
	p.out.Write([]byte{opLong1, longestWholeLong})
	p.out.Write(binary.LittleEndian.AppendUint64(nil, uint64(v)))
}

func (p *pickler) text(s string) {
	p.out.WriteByte(opUnicode)
	p.out.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(s))))
	p.out.WriteString(s)
}

func (p *pickler) global(g global) {
	name := string(g)
	dot := bytes.LastIndexByte([]byte(name), '.')
	p.out.WriteByte(opGlobal)
	p.out.WriteString(name[:dot] + "\n" + name[dot+1:] + "\n")
}

// tensor writes a call of _rebuild_tensor_v2(storage, 0, extents, strides, False, OrderedDict()).
func (p *pickler) tensor(t *graph.Tensor) error {
	name := ""
	for n, dtype := range storageTypes {
		if dtype == t.Type {
			name = n
		}
	}
	if name == "" {
		return errs.New(errs.Invalid, "a tensor of %s can't be written: torch has no such storage", t.Type)
	}
	data, err := t.Bytes()
	if err != nil {
		return err
	}
	p.global(rebuildTensor2)
	p.out.Write([]byte{opMark, opMark})
	p.text("storage")
	p.global(global("torch." + name))
	p.text(fmt.Sprint(len(p.storages)))
	p.text("cpu")
	p.whole(t.Len())
	p.out.Write([]byte{opTuple, opPersistentID})
	p.whole(0)
	strides := make(Tuple, len(t.Dims))
	dims := make(Tuple, len(t.Dims))
	step := int64(1)
	for i := len(t.Dims) - 1; i >= 0; i-- {
		dims[i], strides[i] = t.Dims[i], step
		step *= t.Dims[i]
	}
	if err := p.values(dims, strides, false); err != nil {
		return err
	}
	p.global(orderedDict)
	p.out.Write([]byte{opEmptyTuple, opReduce, opTuple, opReduce})
	p.storages = append(p.storages, data)
	return nil
}
