package graph_test

import (
	"archive/zip"
	"io"
	"runtime"
	"slices"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/graph/internal/opcase"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/process"
	"github.com/foretoken/foretoken/internal/rng"
)

// FuzzParse reads hostile bytes as a model and, where that succeeds, does all with it that is done
// before a model runs. Nothing may panic, take long, or need memory out of proportion; what was
// read can be written and read again.
func FuzzParse(f *testing.F) {
	for _, cases := range [][]opcase.Case{opcase.All, opcase.Fused} {
		for _, c := range cases {
			g, _, err := c.Graph(graph.Float, rng.New(1, "fuzz"))
			if err != nil {
				f.Fatal(err)
			}
			model, err := g.Marshal(graph.MarshalOptions{})
			if err != nil {
				f.Fatal(err)
			}
			f.Add(model)
		}
	}
	for _, build := range []func() (*graph.Graph, error){tinyImageTower, tinyTextTower} {
		g, err := build()
		if err != nil {
			f.Fatal(err)
		}
		model, err := g.Marshal(graph.MarshalOptions{})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(model)
	}
	square := local("my", "Square", "a b", "out", 17, calls("", "Mul", "a,b", "out"))
	slope := local("my", "Slope", "a", "out", 18, calls("my", "Square", "a,a", "s"), calls("", "LeakyRelu", "s", "out", refers("alpha", "by", 1))).inner(11, floatAttr("by", 0.25))
	f.Add(withFunctions("out", []message{calls("my", "Slope", "x", "h", floatAttr("by", 2)), calls("my", "Square", "h,y", "out")}, slope, square))
	f.Add(withFunctions("out", []message{calls("my", "F", "x", "out")}, local("my", "F", "a", "out", 18, calls("my", "F", "a", "out"))))
	f.Add(merged())
	f.Add(external("location", "../../etc/passwd", "offset", "0", "length", "4096"))
	exported(f)
	f.Fuzz(func(t *testing.T, model []byte) {
		if len(model) > 1<<16 {
			return
		}
		const most = 256 << 20
		start, before := process.Time(), allocated()
		handle(t, model)
		if took := process.Time() - start; took > hang/4 {
			t.Errorf("%d bytes took %s", len(model), took)
		}
		if bytes := allocated() - before; bytes > most {
			t.Errorf("%d bytes needed %d MiB of memory", len(model), bytes>>20)
		}
	})
}

// exported adds a real model at an old, a middle and a new opset.
func exported(f *testing.F) {
	archive, err := zip.OpenReader("testdata/opsets.zip")
	if err != nil {
		f.Fatal(err)
	}
	defer archive.Close()
	for _, name := range []string{"older-09.onnx", "older-14.onnx", "newer-23.onnx"} {
		r, err := archive.Open(name)
		if err != nil {
			f.Fatal(err)
		}
		model, err := io.ReadAll(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(model)
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// handle does all that is done with a model before it runs. Errors are fine, if of a kind.
func handle(t *testing.T, model []byte) {
	g, err := graph.Parse(model, "")
	if err != nil {
		if k := errs.Of(err); k == errs.Internal {
			t.Errorf("an error without a kind: %v", err)
		}
		return
	}
	written, err := g.Marshal(graph.MarshalOptions{})
	if err != nil {
		t.Errorf("what was read can't be written: %v", err)
	}
	if _, err := graph.Parse(written, ""); err != nil && errs.Of(err) != errs.TooLarge {
		t.Errorf("what was written can't be read: %v", err)
	}
	_ = g.String()
	folded(t, g.Clone())
	fused(t, g.Clone())
	ignore(g.Infer())
	if len(g.Inputs) > 0 && len(g.Outputs) > 0 {
		c := g.Clone()
		_, err := graph.Gradient(c, c.Outputs[:1], nil, c.Inputs[:1])
		ignore(err)
	}
	for _, y := range g.Outputs[:min(2, len(g.Outputs))] {
		towers(g, y.Name)
		graph.OutputFactor(g, y.Name)
	}
}

// folded pins conditions and folds; what comes out is a graph that can be written and read again.
func folded(t *testing.T, g *graph.Graph) {
	for _, v := range g.Inputs {
		if n, ok := v.Shape.Count().Int(); v.Type == graph.Bool && ok && n == 1 && v.Shape != nil {
			ignore(g.Pin(v.Name, graph.NewTensor([]bool{true}, slices.Repeat([]int64{1}, len(v.Shape))...)))
			break
		}
	}
	if g.Fold() != nil {
		return
	}
	if err := g.Check(); err != nil {
		t.Errorf("a folded graph: %v", err)
	}
	written, err := g.Marshal(graph.MarshalOptions{})
	if err != nil {
		t.Errorf("what was folded can't be written: %v", err)
	}
	if _, err := graph.Parse(written, ""); err != nil && errs.Of(err) != errs.TooLarge {
		t.Errorf("what was folded can't be read: %v", err)
	}
}

// fused puts back all that was written out.
func fused(t *testing.T, g *graph.Graph) {
	if g.Fuse(true, func(*graph.Node) bool { return true }) == 0 {
		return
	}
	if err := g.Check(); err != nil {
		t.Errorf("a graph with nodes put back: %v", err)
	}
	if _, err := g.Marshal(graph.MarshalOptions{}); err != nil {
		t.Errorf("what was put back can't be written: %v", err)
	}
}

func towers(g *graph.Graph, output string) {
	if t, err := graph.FindImageTower(g, output); err == nil {
		_, err1 := t.WithPrompts(graph.ImagePromptOptions{Tokens: 2, Depth: len(t.Blocks)})
		_, err2 := t.WithPrompts(graph.ImagePromptOptions{Tokens: 3, Depth: 1, PerRow: true, FromTokens: true})
		_, err3 := t.Upstream()
		ignore(err1, err2, err3)
	}
	if t, err := graph.FindTextTower(g, output); err == nil {
		_, err1 := t.WithContext(graph.ContextOptions{Tokens: 2, Start: 1, Depth: len(t.Blocks)})
		_, err2 := t.Embeddings([]int64{0, 1})
		ignore(err1, err2)
	}
}

// ignore says that a hostile graph may be refused here.
func ignore(...error) {}
