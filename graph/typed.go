package graph

import (
	"encoding/binary"
	"fmt"
	"math"
)

// typedData collects a TensorProto's typed fields, the older way of storing elements.
type typedData struct {
	floats  []float32
	ints    []int64 // int32_data, int64_data and uint64_data
	doubles []float64
}

func (d *typedData) read(f field) (err error) {
	switch f.Num {
	case 4:
		d.floats, err = f.floats(d.floats)
	case 5, 7, 11:
		d.ints, err = f.varints(d.ints)
	case 10:
		d.doubles, err = f.doubles(d.doubles)
	}
	return err
}

// fill writes the typed elements as the tensor's little-endian bytes.
func (d *typedData) fill(t *Tensor, size int64) error {
	if t.Type == String {
		return nil // strings take no part in any encoder's arithmetic
	}
	n := len(d.floats) + len(d.ints) + len(d.doubles)
	each := max(1, t.Type.Size()) // elements of 4 bits stand in pairs
	if int64(n)*int64(each) != size {
		return fmt.Errorf("%s%v holds %d elements", t.Type, t.Dims, n)
	}
	b := make([]byte, 0, size)
	switch t.Type {
	case Float:
		for _, v := range d.floats {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	case Double:
		for _, v := range d.doubles {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}
	default:
		for _, v := range d.ints {
			var word [8]byte
			binary.LittleEndian.PutUint64(word[:], uint64(v))
			b = append(b, word[:each]...)
		}
	}
	if int64(len(b)) != size {
		return fmt.Errorf("%s%v is stored in a field of another type", t.Type, t.Dims)
	}
	t.data = b
	return nil
}

func float32frombits(v uint64) float32 { return math.Float32frombits(uint32(v)) }
