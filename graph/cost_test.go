package graph_test

import (
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

func TestCostIsWhatTheShapesSay(t *testing.T) {
	input := func(b *graph.Builder, dims ...int64) *graph.Value {
		s := make(graph.Shape, len(dims))
		for i, d := range dims {
			s[i] = graph.Known(d)
		}
		return b.Input("x", graph.Float, s)
	}
	weight := func(b *graph.Builder, dims ...int64) *graph.Value {
		return b.Const(graph.NewTensor(make([]float32, graph.Count(dims)), dims...))
	}
	tests := map[string]struct {
		build func(b *graph.Builder) *graph.Value
		want  graph.Cost
	}{
		"a product": {
			func(b *graph.Builder) *graph.Value { return b.MatMul(input(b, 2, 3, 5), weight(b, 5, 7)) },
			graph.Cost{Products: 2 * 2 * 3 * 5 * 7, Nodes: 1, Constants: 4 * 35, Kept: 4 * 35, Peak: 4 * 42},
		},
		"a product by a transposed weight, which is transposed once": {
			func(b *graph.Builder) *graph.Value {
				return b.MatMul(input(b, 2, 5), b.Transpose(weight(b, 7, 5), 1, 0))
			},
			graph.Cost{Products: 2 * 2 * 5 * 7, Nodes: 1, Constants: 4 * 35, Kept: 4 * 35, Peak: 4 * 14},
		},
		"a product of a transposed operand and an addition": {
			func(b *graph.Builder) *graph.Value {
				return b.Op("Gemm", graph.Attrs{"transA": int64(1)}, input(b, 5, 2), weight(b, 5, 7), weight(b, 7))
			},
			graph.Cost{Products: 2 * 2 * 5 * 7, Nodes: 1, Constants: 4 * 42, Kept: 4 * 42, Peak: 4 * 14},
		},
		"a convolution in two groups": {
			func(b *graph.Builder) *graph.Value {
				return b.Op("Conv", graph.Attrs{"group": int64(2)}, input(b, 1, 4, 5, 5), weight(b, 6, 2, 3, 3))
			},
			graph.Cost{Products: 2 * (6 * 3 * 3) * (2 * 3 * 3), Nodes: 1, Constants: 4 * 108, Kept: 4 * 108, Peak: 4 * 54},
		},
		"a sum over labels": {
			func(b *graph.Builder) *graph.Value {
				return b.Op("Einsum", graph.Attrs{"equation": "bij,jk->bik"}, input(b, 2, 3, 5), weight(b, 5, 7))
			},
			graph.Cost{Products: 2 * 2 * 3 * 5 * 7, Nodes: 1, Constants: 4 * 35, Kept: 4 * 35, Peak: 4 * 42},
		},
		"another shape costs nothing": {
			func(b *graph.Builder) *graph.Value {
				return b.Op("Exp", nil, b.Op("Flatten", nil, b.Op("Exp", nil, input(b, 2, 3, 4))))
			},
			graph.Cost{Moved: 4 * 4 * 24, Nodes: 2, Peak: 2 * 4 * 24},
		},
		"memory is given back behind the last reader": {
			func(b *graph.Builder) *graph.Value {
				x := b.Op("Neg", nil, input(b, 100))
				small := b.Sum(x, true, 0)
				y := b.Add(b.Add(small, small), small)
				return y
			},
			// 100 elements and their sum; the sum and twice it and three times it are fewer.
			graph.Cost{Moved: 4*(200+101+3+3) + 8, Nodes: 4, Constants: 8, Kept: 8, Peak: 4 * 101},
		},
		"of a table only rows are read": {
			func(b *graph.Builder) *graph.Value {
				ids := b.Input("ids", graph.Int64, graph.Shape{graph.Known(3)})
				return b.Op("Gather", nil, weight(b, 1000, 4), ids)
			},
			graph.Cost{Moved: 3*8 + 4*12, Nodes: 1, Tables: 4 * 4000, Peak: 4 * 12},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := graph.New()
			if err := g.Build(func(b *graph.Builder) { g.Outputs = []*graph.Value{tt.build(b)} }); err != nil {
				t.Fatal(err)
			}
			got, err := g.Cost()
			if err != nil || got != tt.want {
				t.Errorf("%+v, %v\nwant %+v", got, err, tt.want)
			}
		})
	}
}

func TestTheCostOfAnOpenExtentIsAnError(t *testing.T) {
	g, err := tinyImageTower()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Cost(); errs.Of(err) != errs.Unsupported || !strings.Contains(err.Error(), "batch") {
		t.Errorf("%v, which should name the extent", err)
	}
}
