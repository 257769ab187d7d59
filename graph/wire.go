package graph

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// field is one field of a protocol-buffers message as it lies on the wire. Offset is
// where Bytes starts in the buffer that the outermost message was read from.
type field struct {
	Num    protowire.Number
	Type   protowire.Type
	Varint uint64 // also the bits of fixed32 and fixed64
	Bytes  []byte
	Offset int64
}

// fields calls visit for each field of the message b, which starts at offset base.
func fields(b []byte, base int64, visit func(f field) error) error {
	for pos := 0; pos < len(b); {
		num, typ, n := protowire.ConsumeTag(b[pos:])
		if n < 0 {
			return fmt.Errorf("byte %d: %w", base+int64(pos), protowire.ParseError(n))
		}
		pos += n
		f := field{Num: num, Type: typ, Offset: base + int64(pos)}
		switch typ {
		case protowire.VarintType:
			f.Varint, n = protowire.ConsumeVarint(b[pos:])
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(b[pos:])
			f.Varint = uint64(v)
		case protowire.Fixed64Type:
			f.Varint, n = protowire.ConsumeFixed64(b[pos:])
		case protowire.BytesType:
			f.Bytes, n = protowire.ConsumeBytes(b[pos:])
			f.Offset += int64(n - len(f.Bytes))
		default:
			n = protowire.ConsumeFieldValue(num, typ, b[pos:])
		}
		if n < 0 {
			return fmt.Errorf("byte %d: %w", f.Offset, protowire.ParseError(n))
		}
		pos += n
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}

// varints reads a repeated integer field, packed or not.
func (f field) varints(out []int64) ([]int64, error) {
	if f.Type != protowire.BytesType {
		return append(out, int64(f.Varint)), nil
	}
	for b := f.Bytes; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		out, b = append(out, int64(v)), b[n:]
	}
	return out, nil
}

// floats reads a repeated float field, packed or not.
func (f field) floats(out []float32) ([]float32, error) {
	if f.Type != protowire.BytesType {
		return append(out, math.Float32frombits(uint32(f.Varint))), nil
	}
	for b := f.Bytes; len(b) > 0; {
		v, n := protowire.ConsumeFixed32(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		out, b = append(out, math.Float32frombits(v)), b[n:]
	}
	return out, nil
}

// doubles reads a repeated double field, packed or not.
func (f field) doubles(out []float64) ([]float64, error) {
	if f.Type != protowire.BytesType {
		return append(out, math.Float64frombits(f.Varint)), nil
	}
	for b := f.Bytes; len(b) > 0; {
		v, n := protowire.ConsumeFixed64(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		out, b = append(out, math.Float64frombits(v)), b[n:]
	}
	return out, nil
}
