package graph_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/graph/internal/opcase"
	"github.com/foretoken/foretoken/graph/interp"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/internal/rng"
)

// Gradients and fourth-order differences of step 1e-3, both in double precision, agree to this.
const (
	step      = 1e-3
	tolerance = 1e-7
)

func TestEveryGradientAgreesWithDifferences(t *testing.T) {
	covered := map[string]bool{}
	for _, c := range opcase.All {
		if c.Refused != "" || len(c.Wrt()) == 0 {
			continue
		}
		covered[c.Op] = true
		t.Run(c.String(), func(t *testing.T) {
			if err := checkGradient(c); err != nil {
				t.Error(err)
			}
		})
	}
	for op, has := range graph.Operators() {
		if has && !covered[op] {
			t.Errorf("operator %s has a gradient and no case in opcase that checks it", op)
		}
	}
}

// TestGradientsPassFusedOperators checks what loading makes of fused operators, of quantised ones and of those in the
// forms of older opsets. Each of them has a case.
func TestGradientsPassFusedOperators(t *testing.T) {
	covered := map[string]bool{}
	for _, c := range slices.Concat(opcase.Fused, opcase.Old) {
		covered[c.Op] = covered[c.Op] || len(c.Wrt()) > 0
		t.Run(c.String(), func(t *testing.T) {
			if err := checkGradient(c); err != nil {
				t.Error(err)
			}
		})
	}
	for _, op := range graph.WrittenOut() {
		if !covered[op] {
			t.Errorf("operator %s is written out as others and has no case in opcase with a gradient", op)
		}
	}
	rows := graph.Operators()
	for _, op := range graph.Converted() {
		if rows[op] && !covered[op] {
			t.Errorf("operator %s has older forms and no case of them in opcase", op)
		}
	}
}

// TestTheCheckFindsAnErrorOfFivePercent breaks each rule in turn.
func TestTheCheckFindsAnErrorOfFivePercent(t *testing.T) {
	for _, c := range opcase.All {
		if c.Refused != "" || len(c.Wrt()) == 0 {
			continue
		}
		for _, by := range []float64{1.05, 0.95} {
			restore := graph.ScaleGradient(c.Op, by)
			err := checkGradient(c)
			restore()
			if err == nil {
				t.Errorf("%s: a rule that gives %g times the gradient passes the check", c, by)
			}
		}
	}
}

func TestAGradientThatIsNotKnownIsRefusedWithTheNode(t *testing.T) {
	for _, c := range opcase.All {
		if c.Refused == "" {
			continue
		}
		t.Run(c.String(), func(t *testing.T) {
			g, _, err := c.Graph(graph.Float, rng.New(1, "refusal"))
			if err != nil {
				t.Fatal(err)
			}
			_, err = gradients(g, c, nil)
			if err == nil {
				t.Fatal("there is a gradient")
			}
			node := g.Nodes[0]
			if errs.Of(err) != errs.Unsupported || !strings.Contains(err.Error(), c.Refused) || !strings.Contains(err.Error(), node.Name) {
				t.Errorf("got %v, which should be of kind %v and speak of %q and %q", err, errs.Unsupported, c.Refused, node.Name)
			}
		})
	}
}

// gradients appends the gradient of each input that the case wants, as outputs "d.NAME".
// Without cotangents the outputs are their own.
func gradients(g *graph.Graph, c opcase.Case, cotangents []*graph.Tensor) ([]*graph.Value, error) {
	var wrt, grads []*graph.Value
	for _, name := range c.Wrt() {
		wrt = append(wrt, g.Input(name))
	}
	err := g.Build(func(b *graph.Builder) {
		var outputs, seeds []*graph.Value
		for i, y := range g.Outputs {
			if i > 0 && !y.Type.IsFloat() {
				continue
			}
			seed := y
			if cotangents != nil {
				seed = b.Const(cotangents[i])
			}
			outputs, seeds = append(outputs, y), append(seeds, seed)
		}
		grads = b.Gradient(outputs, seeds, wrt)
		for i, d := range grads {
			b.Output("d."+wrt[i].Name, d)
		}
	})
	return grads, err
}

// checkGradient compares a case's gradients with central differences along two random
// directions of each input, for a random weighted sum of the outputs.
func checkGradient(c opcase.Case) error {
	r := rng.New(7, "gradient check", c.String())
	g, in, err := c.Graph(graph.Double, r)
	if err != nil {
		return err
	}
	if g, err = loaded(g); err != nil {
		return err
	}
	forward, err := interp.RunExact(g, in)
	if err != nil {
		return err
	}
	both := g.Clone()
	weights := make([]*graph.Tensor, len(g.Outputs))
	for i, y := range g.Outputs {
		weights[i] = random(r, forward[y.Name].Dims)
	}
	if _, err := gradients(both, c, weights); err != nil {
		return err
	}
	if err := both.Check(); err != nil {
		return err
	}
	found, err := interp.RunExact(both, in)
	if err != nil {
		return err
	}
	f := objective{g, in, weights}
	for _, name := range c.Wrt() {
		if err := f.compare(name, found["d."+name], r); err != nil {
			return fmt.Errorf("gradient of %s: %w", name, err)
		}
	}
	return nil
}

// loaded is the graph after a way through a file: fused operators are written out.
func loaded(g *graph.Graph) (*graph.Graph, error) {
	model, err := g.Marshal(graph.MarshalOptions{})
	if err != nil {
		return nil, err
	}
	return graph.Parse(model, "")
}

// objective is the sum of a graph's outputs times weights, near the inputs in.
type objective struct {
	g       *graph.Graph
	in      map[string]*graph.Tensor
	weights []*graph.Tensor
}

func (f objective) compare(name string, d graph.Array, r *rand.Rand) error {
	x := f.in[name]
	if got := fmt.Sprint(d.Dims); got != fmt.Sprint(x.Dims) {
		return fmt.Errorf("it has dims %s, the input %v", got, x.Dims)
	}
	for range 2 {
		along, err := graph.Values[float64](random(r, d.Dims))
		if err != nil {
			return err
		}
		want, err := f.slope(name, along)
		if err != nil {
			return err
		}
		got, scale := 0.0, 1e-3
		for i, v := range along {
			got += v * d.Data[i]
			scale = math.Max(scale, math.Abs(v*d.Data[i]))
		}
		if !(math.Abs(got-want) <= tolerance*scale) {
			return fmt.Errorf("along a direction it is %.12g, differences say %.12g", got, want)
		}
	}
	return nil
}

// slope is the derivative along a direction by central differences of fourth order.
func (f objective) slope(name string, along []float64) (float64, error) {
	var values [4]float64
	for i, k := range []float64{-2, -1, 1, 2} {
		var err error
		if values[i], err = f.at(name, along, k*step); err != nil {
			return 0, err
		}
	}
	return (8*(values[2]-values[1]) - (values[3] - values[0])) / (12 * step), nil
}

// at is the objective with one input moved.
func (f objective) at(name string, along []float64, by float64) (float64, error) {
	x, err := graph.Values[float64](f.in[name])
	if err != nil {
		return 0, err
	}
	moved := make([]float64, len(x))
	for i := range x {
		moved[i] = x[i] + by*along[i]
	}
	in := map[string]*graph.Tensor{}
	for k, v := range f.in {
		in[k] = v
	}
	in[name] = graph.NewTensor(moved, f.in[name].Dims...)
	out, err := interp.RunExact(f.g, in)
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for i, y := range f.g.Outputs {
		w, err := graph.Values[float64](f.weights[i])
		if err != nil {
			return 0, err
		}
		for j, v := range out[y.Name].Data {
			if !math.IsInf(v, 0) { // a constant's: no input moves it
				sum += w[j] * v
			}
		}
	}
	return sum, nil
}

// random is a tensor of doubles from a normal distribution.
func random(r *rand.Rand, dims []int) *graph.Tensor {
	wide := make([]int64, len(dims))
	for i, d := range dims {
		wide[i] = int64(d)
	}
	data := make([]float64, graph.Count(wide))
	for i := range data {
		data[i] = r.NormFloat64()
	}
	return graph.NewTensor(data, wide...)
}
