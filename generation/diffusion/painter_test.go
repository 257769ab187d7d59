package diffusion

import (
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/foretoken/foretoken/bundle"
	"github.com/foretoken/foretoken/generation/diffusion/schedule"
	"github.com/foretoken/foretoken/internal/ort"
)

// TestTheStarterPaintsByEachScheduler draws the same text six times: schedulers take other ways to much
// the same picture. With FORETOKEN_PICTURES the pictures are kept in that folder.
func TestTheStarterPaintsByEachScheduler(t *testing.T) {
	b, err := bundle.Open("../../starter/painter")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(b, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var rs []Request
	for _, name := range schedule.Names() {
		rs = append(rs, Request{Prompt: "a flat drawing of a red heart", Scheduler: name, Steps: 12, Guidance: 4, Seed: 1})
	}
	red := 0.0
	for i, res := range generate(t, p, rs...) {
		var sum [3]float64
		for j, v := range res.Image.Pix {
			if j%4 < 3 {
				sum[j%4] += float64(v)
			}
		}
		t.Logf("%s: mean colour %.0f", rs[i].Scheduler, sum)
		if sum[0] > sum[1] && sum[0] > sum[2] {
			red++
		}
		keep(t, rs[i].Scheduler, res)
	}
	if red < 5 { // LCM was not what this network was distilled for
		t.Errorf("a red heart is more red than green and blue with %g of 6 schedulers", red)
	}
}

func keep(t *testing.T, name string, res Result) {
	dir := os.Getenv("FORETOKEN_PICTURES")
	if dir == "" {
		return
	}
	f, err := os.Create(filepath.Join(dir, name+".png"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, res.Image); err != nil {
		t.Fatal(err)
	}
}
