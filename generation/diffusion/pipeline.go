package diffusion

import (
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/generation/diffusion/schedule"
	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/ort"
)

// Pipeline is a text-to-image bundle. Sessions are made when first wanted, share their weights and are
// kept. It is safe for concurrent use.
type Pipeline struct {
	Bundle *bundle.Bundle
	Geometry
	// Texts are the text encoders: one, or SDXL's two.
	Texts []*TextEncoder
	// Schedule is the noise that the network was trained with.
	Schedule *schedule.Schedule

	index     index
	options   ort.Options
	scheduler []byte // scheduler_config.json
	unet      *lazy[*denoiser]
	decoder   *lazy[*network]
	encoder   *lazy[*imageEncoder]
	safety    *lazy[*safetyChecker]
	drawNoise noiseSource
	xl        bool
	inputs    unetInputs
}

// Open reads a bundle in diffusers' ONNX layout. Weights are not read before they are wanted. What can't
// be run is refused, kind errs.Unsupported.
func Open(b *bundle.Bundle, o ort.Options) (_ *Pipeline, err error) {
	p := &Pipeline{Bundle: b, options: o, drawNoise: drawNormal}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	if found, err := readJSON(b, &p.index, "model_index.json"); err != nil || !found {
		return nil, errs.New(errs.Or(err, errs.Invalid), "bundle %s: no model_index.json: it is no diffusers folder", b.Name)
	}
	if err := refuseIndex(b, p.index); err != nil {
		return nil, err
	}
	p.options.Deterministic = true
	if p.options.Weights == nil {
		if p.options.Weights, err = ort.NewWeights(); err != nil {
			return nil, err
		}
	}
	p.unet, p.decoder = newLazy(p.openUNet), newLazy(p.openDecoder)
	p.encoder, p.safety = newLazy(p.openEncoder), newLazy(p.openSafety)
	if err := p.readUNetInputs(); err != nil {
		return nil, err
	}
	if p.Geometry, err = readGeometry(b, p.xl); err != nil {
		return nil, err
	}
	p.Channels = p.inputs.latents
	if err := p.openTexts(); err != nil {
		return nil, err
	}
	return p, p.readSchedule()
}

func (p *Pipeline) openTexts() error {
	folders := []string{""}
	if p.xl {
		folders = append(folders, "_2")
	}
	for _, suffix := range folders {
		e, err := openText(p, suffix)
		if err != nil {
			return err
		}
		p.Texts = append(p.Texts, e)
	}
	width := 0
	for _, e := range p.Texts {
		width += e.Tower.Width
	}
	if p.inputs.textWidth > 0 && width != p.inputs.textWidth {
		return errs.New(errs.Invalid, "bundle %s: its text encoders give %d numbers a token, unet/model.onnx takes %d", p.Bundle.Name, width, p.inputs.textWidth)
	}
	return nil
}

func (p *Pipeline) readSchedule() (err error) {
	if p.scheduler, err = os.ReadFile(p.Bundle.Path("scheduler/scheduler_config.json")); err != nil {
		return errs.New(errs.Invalid, "bundle %s: %w", p.Bundle.Name, err)
	}
	c, err := schedule.Parse(p.scheduler, "ddim") // whose tables are those that networks are trained with
	if err != nil {
		return errs.New(errs.Of(err), "bundle %s: %w", p.Bundle.Name, err)
	}
	p.Schedule, err = schedule.New(c)
	return err
}

// sampling is the schedule that a request asks for. Diffusers' pipelines for Stable Diffusion change three
// fields of old configurations, and so do we.
func (p *Pipeline) sampling(r *Request) (*schedule.Schedule, error) {
	c, err := schedule.Parse(p.scheduler, r.Scheduler)
	if err != nil {
		return nil, errs.New(errs.Of(err), "bundle %s: %w", p.Bundle.Name, err)
	}
	if inpainting := r.Mask != nil; !p.xl {
		c.StepsOffset = 1
		c.ClipSample = c.ClipSample && inpainting
		c.SkipPRKSteps = c.SkipPRKSteps || inpainting
	}
	s, err := schedule.New(c)
	if err == nil {
		s.Eta = r.Eta
	}
	return s, err
}

// Sessions are the options of further sessions on the bundle: they share its weights.
func (p *Pipeline) Sessions() ort.Options { return p.options }

// UNet loads the graph of the network that takes the noise away. Its inputs: "sample"
// [B,C,h,w], "timestep", "encoder_hidden_states" [B,S,D], SDXL's "text_embeds" [B,D] and "time_ids"
// [B,6]; "timestep_cond" where guidance was distilled into it.
func (p *Pipeline) UNet() (*graph.Graph, error) { return p.load("unet") }

// load reads the graph in a folder of the bundle.
func (p *Pipeline) load(folder string) (*graph.Graph, error) {
	file := folder + "/model.onnx"
	if !has(p.Bundle, file) {
		return nil, errs.New(errs.Invalid, "bundle %s: %s is missing", p.Bundle.Name, file)
	}
	return graph.Load(p.Bundle.Path(file))
}

// Close frees the sessions when the runs under way have ended.
func (p *Pipeline) Close() {
	for _, e := range p.Texts {
		e.close()
	}
	if p.unet != nil {
		p.unet.close()
		p.decoder.close()
		p.encoder.close()
		p.safety.close()
	}
	if p.options.Weights != nil {
		p.options.Weights.Close()
	}
}

// network is a graph of the bundle with its session.
type network struct {
	graph   *graph.Graph
	session *ort.Session
}

func (n *network) close() { n.session.Close() }

// openNetwork makes a session that takes and gives floats, whatever the file computes in.
func (p *Pipeline) openNetwork(g *graph.Graph) (*network, error) {
	if err := p.widen(g); err != nil {
		return nil, err
	}
	s, err := ort.NewSession(g, p.options)
	if err != nil {
		return nil, err
	}
	return &network{g, s}, nil
}

// widen has half floats computed in floats on the CPU, which has few kernels for them; elsewhere the
// inputs alone become floats.
func (p *Pipeline) widen(g *graph.Graph) error {
	if p.options.Provider == ort.CPU {
		return g.Widen(graph.Float16)
	}
	return takeFloats(g)
}

// takeFloats casts floats to the half floats that a graph takes.
func takeFloats(g *graph.Graph) error {
	for i, v := range slices.Clone(g.Inputs) {
		if v.Type != graph.Float16 {
			continue
		}
		half := &graph.Value{Name: v.Name + "_half", Type: graph.Float16, Shape: v.Shape}
		cast := &graph.Node{Op: "Cast", Inputs: []*graph.Value{nil}, Outputs: []*graph.Value{v}, Attrs: map[string]graph.Attr{"to": {Value: int64(graph.Float16)}}}
		wide := &graph.Value{Name: v.Name, Type: graph.Float, Shape: v.Shape}
		cast.Inputs[0], v.Def, v.Name = wide, cast, half.Name
		g.Inputs[i] = wide
		g.Nodes = slices.Insert(g.Nodes, 0, cast)
	}
	return g.Infer()
}

// lazy is something that is opened when first wanted. What failed is tried again.
type lazy[T interface{ close() }] struct {
	open   func() (T, error)
	mu     sync.Mutex
	value  T
	opened bool
}

func newLazy[T interface{ close() }](open func() (T, error)) *lazy[T] { return &lazy[T]{open: open} }

func (l *lazy[T]) get() (T, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opened {
		return l.value, nil
	}
	v, err := l.open()
	if err == nil {
		l.value, l.opened = v, true
	}
	return v, err
}

func (l *lazy[T]) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opened {
		l.value.close()
		l.opened = false
	}
}

// inputNames lists a graph's inputs for errors.
func inputNames(g *graph.Graph) string {
	var names []string
	for _, v := range g.Inputs {
		names = append(names, v.Name)
	}
	return strings.Join(names, ", ")
}
