package inspect

import (
	"maps"

	"github.com/foretoken/foretoken/graph"
)

// addModel describes a file, once.
func (in *inspector) addModel(file string, g *graph.Graph) *Model {
	for i := range in.Models {
		if in.Models[i].File == file {
			return &in.Models[i]
		}
	}
	s := shaped(g)
	m := Model{
		File: file, Exporter: g.Producer, Opset: maps.Clone(g.Exported.Opset), Operators: g.Exported.Operators, Parameters: g.Exported.Parameters,
		Inputs: tensors(s.Inputs), Outputs: tensors(s.Outputs),
		Bytes: g.ResidentBytes(), Resident: g.ResidentBytes(graph.Float16, graph.BFloat16),
	}
	m.Opset["ai.onnx"] = m.Opset[""]
	delete(m.Opset, "")
	in.Models = append(in.Models, m)
	return &in.Models[len(in.Models)-1]
}

// describe fills in what all towers have in common.
func (t *Tower) describe(file string, g *graph.Graph, output, insert *graph.Value, blocks []*graph.Value) {
	t.File, t.Output, t.Insert, t.BlockInputs, t.Blocks, t.Nodes = file, tensor(output), tensor(insert), tensors(blocks), len(blocks), len(g.Nodes)
	for _, u := range g.Coverage(insert) {
		t.OnPath += u.OnPath
		t.Operators = append(t.Operators, Operator{u.Op, u.Nodes, u.OnPath, u.Gradient, u.First})
	}
}

// layout writes the axes of the blocks' inputs.
func layout(tokenAxis int) string {
	if tokenAxis == 0 {
		return "[N,B,D]"
	}
	return "[B,N,D]"
}

func (in *inspector) addImage(file string, g *graph.Graph, output string, hints graph.ImageHints) error {
	t, err := graph.FindImageTower(g, output, hints)
	if err != nil {
		return err
	}
	im := &Image{Tokens: t.Tokens, ClassTokens: t.ClassTokens, Pooling: string(t.Pooling), Batch: t.Batch}
	im.describe(file, t.Graph, t.Output, t.Insert, t.Blocks)
	im.TokenWidth, im.Heads, im.Layout = t.Width, t.Heads(), layout(t.TokenAxis)
	im.GridRows, im.GridColumns = t.Grid()
	im.Height, im.Width = extent(t.Pixels, 2), extent(t.Pixels, 3)
	in.Image = im
	im.Step, err = in.step(func(s *Step) (*graph.Graph, error) { return imageStep(t, s) })
	return err
}

func (in *inspector) addText(file string, g *graph.Graph, output string, hints graph.TextHints) error {
	t, err := graph.FindTextTower(g, output, hints)
	if err != nil {
		return err
	}
	start := in.contextStart
	if t.Start != nil {
		start = *t.Start
	}
	tx := &Text{Window: t.Window, Vocabulary: extent(t.Table, 0), Trims: t.Trims, Pooling: string(t.Pooling), Start: start}
	tx.describe(file, t.Graph, t.Output, t.Embedding, t.Blocks)
	tx.TokenWidth, tx.Heads, tx.Layout = t.Width, t.Heads(), layout(t.TokenAxis)
	if t.Fixed != nil {
		tx.Fixed = t.Fixed.Error()
	}
	in.Text = tx
	tx.Step, err = in.step(func(s *Step) (*graph.Graph, error) { return textStep(t, start, s) })
	return err
}

func (in *inspector) addDecoder(file string, g *graph.Graph, output string) error {
	t, err := graph.FindDecoder(g, output)
	if err != nil {
		return err
	}
	d := &Decoder{Window: t.Window, Vocabulary: extent(t.Table, 0), Causal: t.Causal}
	d.describe(file, t.Graph, t.Logits, t.Embedding, t.Blocks)
	d.TokenWidth = t.Width
	for _, l := range t.Layers {
		if l.Cross {
			d.Cross++
			continue
		}
		d.SelfLayers++
		d.Heads = max(d.Heads, l.Heads)
		d.Cache = d.Cache || l.PastKey != nil
	}
	if t.Encoder != nil {
		d.Encoder = t.Encoder.Name
	}
	in.Decoder = d
	d.Step, err = in.step(func(s *Step) (*graph.Graph, error) { return decoderStep(t, s) })
	return err
}

// extent is a fixed extent of a value, 0 where it depends on the run.
func extent(v *graph.Value, axis int) int {
	n, _ := v.Shape[axis].Int()
	return int(n)
}
