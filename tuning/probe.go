package tuning

import (
	"context"
	"math"

	"gonum.org/v1/gonum/optimize"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
)

// probe is multinomial logistic regression over L2-normalised embeddings.
type probe struct {
	x       []float32 // [N,P]
	labels  []int
	width   int
	classes int
}

// fitProbe chooses a weight decay by cross-validation over the training images and fits the
// head on all of them.
func (t *Tuner) fitProbe(ctx context.Context, p *Progress) error {
	all := make([]int, len(t.data.Train))
	labels := make([]int, len(all))
	for i := range all {
		all[i], labels[i] = i, t.data.Train[i].Class
	}
	rows, err := t.features.Rows(ctx, all, 0)
	if err != nil {
		return err
	}
	x, err := graph.Values[float32](rows)
	if err != nil {
		return err
	}
	pr := &probe{x: x, labels: labels, width: int(rows.Dims[1]), classes: len(t.data.Classes)}
	decay, err := pr.choose(ctx, t.Recipe.WeightDecays, min(t.data.Shots, 4))
	if err != nil {
		return err
	}
	w, loss, err := pr.fit(ctx, all, decay)
	if err != nil {
		return err
	}
	t.setHead(w, pr)
	t.Recipe.WeightDecays = []float64{decay}
	t.step = 1
	p.Loss, p.Accuracy = loss, pr.accuracy(w, all)
	return nil
}

func (t *Tuner) setHead(w []float64, pr *probe) {
	weight, bias := make([]float32, pr.classes*pr.width), make([]float32, pr.classes)
	for c := range pr.classes {
		row := w[c*(pr.width+1) : (c+1)*(pr.width+1)]
		for i := range pr.width {
			weight[c*pr.width+i] = float32(row[i])
		}
		bias[c] = float32(row[pr.width])
	}
	t.params = []*Parameter{
		NewParameter("head.weight", weight, int64(pr.classes), int64(pr.width)),
		NewParameter("head.bias", bias, int64(pr.classes)),
	}
}

// choose returns the decay with the best accuracy over folds; of equals the largest. Where
// there is one image a class nothing can be held out, and the grid's middle is taken.
func (p *probe) choose(ctx context.Context, grid []float64, folds int) (float64, error) {
	if len(grid) == 1 || folds < 2 {
		return grid[len(grid)/2], nil
	}
	fold := p.folds(folds)
	best, chosen := -1.0, 0.0
	for _, decay := range grid {
		var sum float64
		for k := range folds {
			var train, held []int
			for i, f := range fold {
				if f == k {
					held = append(held, i)
				} else {
					train = append(train, i)
				}
			}
			w, _, err := p.fit(ctx, train, decay)
			if err != nil {
				return 0, err
			}
			sum += p.accuracy(w, held) * float64(len(held))
		}
		if sum > best || sum == best && decay > chosen {
			best, chosen = sum, decay
		}
	}
	return chosen, nil
}

// folds deals each class's images out in turn.
func (p *probe) folds(k int) []int {
	seen := make([]int, p.classes)
	fold := make([]int, len(p.labels))
	for i, label := range p.labels {
		fold[i] = seen[label] % k
		seen[label]++
	}
	return fold
}

// fit minimises the mean cross-entropy plus decay/2 * |W|^2 by L-BFGS, from 0; the bias is
// not decayed. Weights come a row a class, the bias last.
func (p *probe) fit(ctx context.Context, rows []int, decay float64) (w []float64, loss float64, err error) {
	problem := optimize.Problem{
		Func:   func(w []float64) float64 { return p.loss(w, nil, rows, decay) },
		Grad:   func(grad, w []float64) { p.loss(w, grad, rows, decay) },
		Status: func() (optimize.Status, error) { return optimize.NotTerminated, ctx.Err() },
	}
	settings := &optimize.Settings{GradientThreshold: 1e-5, MajorIterations: 500}
	result, err := optimize.Minimize(problem, make([]float64, p.classes*(p.width+1)), settings, &optimize.LBFGS{})
	if ctx.Err() != nil {
		return nil, 0, ctx.Err()
	}
	if result == nil {
		return nil, 0, errs.New(errs.Internal, "linear probe: %w", err)
	}
	return result.X, result.F, nil // a line search that stalls at rounding has found the minimum
}

// loss is the objective; it fills grad where that is not nil.
func (p *probe) loss(w, grad []float64, rows []int, decay float64) float64 {
	clear(grad)
	logits := make([]float64, p.classes)
	total := 0.0
	for _, i := range rows {
		p.logits(w, i, logits)
		norm := logSumExp(logits)
		total += norm - logits[p.labels[i]]
		for c := range logits {
			if grad == nil {
				break
			}
			d := math.Exp(logits[c]-norm) / float64(len(rows))
			if c == p.labels[i] {
				d -= 1 / float64(len(rows))
			}
			p.accumulate(grad[c*(p.width+1):], i, d)
		}
	}
	total /= float64(len(rows))
	for j, v := range w {
		if j%(p.width+1) == p.width {
			continue
		}
		total += decay / 2 * v * v
		if grad != nil {
			grad[j] += decay * v
		}
	}
	return total
}

func (p *probe) accumulate(grad []float64, i int, d float64) {
	for j, x := range p.x[i*p.width : (i+1)*p.width] {
		grad[j] += d * float64(x)
	}
	grad[p.width] += d
}

func (p *probe) logits(w []float64, i int, out []float64) {
	x := p.x[i*p.width : (i+1)*p.width]
	for c := range out {
		row := w[c*(p.width+1) : (c+1)*(p.width+1)]
		sum := row[p.width]
		for j, v := range x {
			sum += row[j] * float64(v)
		}
		out[c] = sum
	}
}

func (p *probe) accuracy(w []float64, rows []int) float64 {
	logits := make([]float64, p.classes)
	right := 0
	for _, i := range rows {
		p.logits(w, i, logits)
		best := 0
		for c := range logits {
			if logits[c] > logits[best] {
				best = c
			}
		}
		if best == p.labels[i] {
			right++
		}
	}
	return float64(right) / float64(max(1, len(rows)))
}

func logSumExp(v []float64) float64 {
	largest := math.Inf(-1)
	for _, x := range v {
		largest = math.Max(largest, x)
	}
	sum := 0.0
	for _, x := range v {
		sum += math.Exp(x - largest)
	}
	return largest + math.Log(sum)
}
