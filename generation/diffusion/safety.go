package diffusion

import (
	"context"
	"image"
	"image/color"
	"image/draw"
	"os"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/vision"
)

// safetyChecker tells which pictures a bundle's own checker finds unsafe. A bundle without one has a
// checker that finds none.
type safetyChecker struct {
	*network
	features *vision.Preprocessor
	verdict  string
}

func (s *safetyChecker) close() {
	if s.network != nil {
		s.network.close()
	}
}

func (p *Pipeline) openSafety() (*safetyChecker, error) {
	if !has(p.Bundle, "safety_checker/model.onnx") {
		return &safetyChecker{}, nil
	}
	config, err := os.ReadFile(p.Bundle.Path("feature_extractor/preprocessor_config.json"))
	if err != nil {
		return nil, errs.New(errs.Invalid, "bundle %s: its safety checker needs a feature extractor: %w", p.Bundle.Name, err)
	}
	features, err := vision.NewPreprocessor(config)
	if err != nil {
		return nil, errs.New(errs.Of(err), "bundle %s: feature_extractor: %w", p.Bundle.Name, err)
	}
	g, err := p.load("safety_checker")
	if err != nil {
		return nil, err
	}
	s := &safetyChecker{features: features}
	for _, v := range g.Outputs {
		if v.Type == graph.Bool {
			s.verdict = v.Name
		}
	}
	if s.verdict == "" || g.Input("clip_input") == nil {
		return nil, errs.New(errs.Unsupported, "bundle %s: safety_checker/model.onnx lacks the input clip_input or an output of type bool", p.Bundle.Name)
	}
	if g, err = g.Only(s.verdict); err != nil {
		return nil, err
	}
	g.PruneInputs()
	if s.network, err = p.openNetwork(g); err != nil {
		return nil, err
	}
	return s, nil
}

// unsafe says whether a picture is. What the checker does to the picture itself is left to black.
func (s *safetyChecker) unsafe(ctx context.Context, img image.Image) (bool, error) {
	if s.network == nil {
		return false, nil
	}
	feeds := map[string]*graph.Tensor{"clip_input": s.features.Pixels(s.features.Apply(img))}
	if s.graph.Input("images") != nil { // the verdict may depend on its extents
		b := img.Bounds()
		feeds["images"] = graph.NewTensor(make([]float32, 3*b.Dx()*b.Dy()), 1, int64(b.Dy()), int64(b.Dx()), 3)
	}
	got, err := s.session.Run(ctx, feeds)
	if err != nil {
		return false, err
	}
	found, err := graph.Values[bool](got[s.verdict])
	return err == nil && len(found) > 0 && found[0], err
}

// blacken paints over a picture, as diffusers does where its checker finds it unsafe.
func blacken(img *image.NRGBA) {
	draw.Draw(img, img.Bounds(), image.NewUniform(color.Black), image.Point{}, draw.Src)
}
