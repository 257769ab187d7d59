package graph_test

import (
	"fmt"
	"log"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/graph/interp"
)

// A loss is appended to a graph, and the loss's derivative to that.
func ExampleGradient() {
	g := &graph.Graph{Opset: map[string]int64{"": 18}}
	var x, loss *graph.Value
	err := g.Build(func(b *graph.Builder) {
		x = b.Input("x", graph.Float, graph.Shape{graph.Known(3)})
		loss = b.Output("loss", b.Sum(b.Mul(x, x), false, 0))
	})
	if err != nil {
		log.Fatal(err)
	}
	grads, err := graph.Gradient(g, []*graph.Value{loss}, nil, []*graph.Value{x})
	if err != nil {
		log.Fatal(err)
	}
	g.Outputs = append(g.Outputs, grads[0])
	out, err := interp.Run(g, map[string]*graph.Tensor{"x": graph.NewTensor([]float32{1, -2, 3}, 3)})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(graph.Values[float32](out["loss"]))
	fmt.Println(graph.Values[float32](out[grads[0].Name]))
	// Output:
	// [14] <nil>
	// [2 -4 6] <nil>
}

// Two visual prompts enter a small vision transformer ahead of its first block.
func ExampleImageTower_WithPrompts() {
	g, err := tinyImageTower()
	if err != nil {
		log.Fatal(err)
	}
	tower, err := graph.FindImageTower(g, "image_embeds")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(tower.Tokens, "tokens of width", tower.Width, "through", len(tower.Blocks), "blocks")
	prompted, err := tower.WithPrompts(graph.ImagePromptOptions{Tokens: 2, Depth: 2})
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range prompted.Inputs {
		fmt.Println(v.Name, v.Shape)
	}
	// Output:
	// 6 tokens of width 8 through 3 blocks
	// pixel_values [batch,3,2,10]
	// visual.0 [1,2,8]
	// visual.1 [1,2,8]
}

// The gradients of a loss by the prompts of every block become outputs beside the loss.
func ExampleBuilder_Gradient() {
	g, err := tinyImageTower()
	if err != nil {
		log.Fatal(err)
	}
	tower, err := graph.FindImageTower(g, "image_embeds")
	if err != nil {
		log.Fatal(err)
	}
	prompted, err := tower.WithPrompts(graph.ImagePromptOptions{Tokens: 2, Depth: 3})
	if err != nil {
		log.Fatal(err)
	}
	err = prompted.Build(func(b *graph.Builder) {
		y, prompts := prompted.Output("image_embeds"), prompted.Inputs[1:]
		loss := b.Output("loss", b.Sum(b.Mul(y, y), false, 0, 1))
		for i, d := range b.Gradient([]*graph.Value{loss}, nil, prompts) {
			b.Output("d."+prompts[i].Name, d)
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range prompted.Outputs {
		fmt.Println(v.Name, v.Shape)
	}
	// Output:
	// image_embeds [batch,5]
	// loss []
	// d.visual.0 [1,2,8]
	// d.visual.1 [1,2,8]
	// d.visual.2 [1,2,8]
}
