package graph

import (
	"strings"
	"testing"
)

// What comes out is compared with diffusers' clip_skip in generation/diffusion.
func TestATowerWithoutItsLastBlocks(t *testing.T) {
	g, err := Load("testdata/fixtures/context_sd_text_dy_op18/model.onnx")
	if err != nil {
		t.Fatal(err)
	}
	tower, err := FindTextTower(g, g.Outputs[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	all := len(tower.Blocks)
	before := tower.Graph.String()
	for n := range all {
		less, err := tower.WithoutBlocks(n)
		if err != nil {
			t.Fatalf("without %d: %v", n, err)
		}
		if len(less.Blocks) != all-n || !less.Output.Shape.Equal(tower.Output.Shape) || less.Output.Name != tower.Output.Name {
			t.Errorf("without %d: %d blocks to %s %s", n, len(less.Blocks), less.Output.Name, less.Output.Shape)
		}
		if smaller := len(less.Graph.Nodes) < len(tower.Graph.Nodes); smaller != (n > 0) {
			t.Errorf("without %d: %d nodes of %d", n, len(less.Graph.Nodes), len(tower.Graph.Nodes))
		}
	}
	for _, n := range []int{-1, all} {
		if _, err := tower.WithoutBlocks(n); err == nil || !strings.Contains(err.Error(), "one has to be left") {
			t.Errorf("without %d: %v", n, err)
		}
	}
	if tower.Graph.String() != before {
		t.Error("the tower itself was changed")
	}
}
