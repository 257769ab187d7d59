package api

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/rng"
	"github.com/foretoken/foretoken/prompt"
	"github.com/foretoken/foretoken/storage"
	"github.com/foretoken/foretoken/tuning"
)

// addPrompt stores a prompt with random tokens of a method's shape.
func (s *service) addPrompt(t *testing.T, name, method string, seed uint64) {
	t.Helper()
	m := must(s.Models.Get(t.Context(), "starter"))(t)
	g := rng.New(seed, "prompt", name)
	random := func(dims ...int64) *graph.Tensor {
		values := make([]float32, graph.Count(dims))
		for i := range values {
			values[i] = float32(g.NormFloat64() * 0.3)
		}
		return graph.NewTensor(values, dims...)
	}
	p := &prompt.Prompt{Tensors: map[string]*graph.Tensor{}, Card: prompt.Card{
		Bundle: m.Ref(), Method: method, Classes: []string{"bag", "boot", "coat"}, Templates: []string{"a picture of {}"}, LogitScale: m.Scale,
	}}
	depth := int64(m.Images.Depth())
	switch method {
	case tuning.VPT:
		p.Tensors["visual"] = random(depth, 10, int64(m.Images.Width()))
	case tuning.MaPLe:
		p.Tensors["visual"] = random(depth, 2, int64(m.Images.Width()))
		p.Tensors["context"] = random(depth, 2, int64(m.Texts.Info.Width))
	}
	var file bytes.Buffer
	check(t, prompt.Write(&file, p))
	digest := must(p.Digest())(t)
	row := storage.Prompt{Name: name, Digest: digest, Bundle: "starter", Object: "prompts/" + name, Size: int64(file.Len()), Card: must(json.Marshal(p.Card))(t), Created: time.Now()}
	must(s.Objects.Put(t.Context(), row.Object, &file, row.Size, storage.PutOptions{}))(t)
	check(t, s.Catalog.Tx(t.Context(), func(tx *sql.Tx) error {
		_, err := s.Catalog.AddPrompt(t.Context(), tx, row)
		return err
	}))
}

type scores struct {
	Scores []struct {
		Class       string
		Probability float64
	}
}

func (s scores) of(class string) float64 {
	for _, x := range s.Scores {
		if x.Class == class {
			return x.Probability
		}
	}
	return math.NaN()
}

// forwards reads the count of forward passes.
func (s *service) forwards(t *testing.T) int {
	t.Helper()
	return s.counter(t, "foretoken_image_forwards_total")
}

// counter reads a counter.
func (s *service) counter(t *testing.T, name string) int {
	t.Helper()
	_, b := s.send(t, "GET", "/metrics", "", nil)
	_, rest, found := strings.Cut(string(b), "\n"+name+" ")
	if !found {
		t.Fatalf("/metrics has no %s", name)
	}
	number, _, _ := strings.Cut(rest, "\n")
	return int(must(strconv.ParseFloat(number, 64))(t))
}

// TestDifferentPromptsShareForwardPasses sends 16 requests at once with 16 prompts of two methods.
func TestDifferentPromptsShareForwardPasses(t *testing.T) {
	s := start(t, nil)
	const n = 16
	images := []string{dataURL(t)}
	alone := make([]scores, n)
	ask := func(i int) (answer scores) {
		s.post(t, "/v1/classify", map[string]any{"image": images[0], "prompt": fmt.Sprintf("p%d", i)}, 200, &answer)
		return answer
	}
	for i := range n {
		s.addPrompt(t, fmt.Sprintf("p%d", i), []string{tuning.VPT, tuning.MaPLe}[i%2], uint64(i))
		alone[i] = ask(i)
	}
	before := s.forwards(t)
	together := make([]scores, n)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { together[i] = ask(i) })
	}
	group.Wait()
	passes := s.forwards(t) - before
	t.Logf("%d requests, %d forward passes", n, passes)
	if passes > 4 {
		t.Errorf("%d forward passes, at most 4", passes)
	}
	for i := range n {
		for _, class := range []string{"bag", "boot", "coat"} {
			if d := math.Abs(alone[i].of(class) - together[i].of(class)); !(d <= 1e-5) {
				t.Errorf("prompt %d: %s has %g alone, %g in company", i, class, alone[i].of(class), together[i].of(class))
			}
		}
		if i >= 2 && math.Abs(alone[i].of("bag")-alone[i-2].of("bag")) < 1e-6 {
			t.Errorf("prompts %d and %d answer alike", i-2, i)
		}
	}
}

// TestABadRowFailsAlone has requests with broken images and prompts among good ones.
func TestABadRowFailsAlone(t *testing.T) {
	s := start(t, nil)
	s.addPrompt(t, "good", tuning.VPT, 1)
	image := dataURL(t)
	var group sync.WaitGroup
	for i := range 12 {
		group.Go(func() {
			switch i % 3 {
			case 0:
				s.post(t, "/v1/classify", map[string]any{"image": image, "prompt": "good"}, 200, nil)
			case 1:
				s.post(t, "/v1/classify", map[string]any{"image": "data:image/png;base64,iVBORw0KGgo=", "prompt": "good"}, 400, nil)
			case 2:
				s.post(t, "/v1/classify", map[string]any{"image": image, "prompt": "none"}, 404, nil)
			}
		})
	}
	group.Wait()
}
