// Package inspect says of a frozen model what it is, where prompts can enter it, which of its operators have
// gradients, and what a step of tuning costs. It reads a bundle's folder or a single ONNX file, and reports
// what it finds also where tuning is refused, with each reason.
package inspect

import "github.com/foretoken/foretoken/graph"

// Report is what is found in a model.
type Report struct {
	Name string `json:"name"`
	Path string `json:"path"`
	// Kind is "dual encoder", "image encoder", "text encoder", "captioner", "decoder" or "unknown".
	Kind string `json:"kind"`
	// Type is what config.json calls the model; empty for a single file.
	Type   string `json:"model_type,omitempty"`
	Digest string `json:"digest,omitempty"` // of a bundle
	Files  int    `json:"files"`
	Bytes  int64  `json:"bytes"`
	// LogitScale is a bundle's, 0 where there is none.
	LogitScale    float32  `json:"logit_scale,omitempty"`
	ScaleFrom     string   `json:"logit_scale_source,omitempty"`
	Preprocessing string   `json:"preprocessing,omitempty"` // in words
	Tokenizer     string   `json:"tokenizer,omitempty"`     // in words
	Image         *Image   `json:"image,omitempty"`
	Text          *Text    `json:"text,omitempty"`
	Decoder       *Decoder `json:"decoder,omitempty"`
	Models        []Model  `json:"models"`
	// Refusals are the reasons why the model, or a part of it, can't be tuned.
	Refusals []string `json:"refusals"`
	Notes    []string `json:"notes,omitempty"` // on how it was inspected
}

// Model is an ONNX file.
type Model struct {
	File       string           `json:"file"` // relative to the folder
	Exporter   string           `json:"exporter"`
	Opset      map[string]int64 `json:"opset"` // by domain; "ai.onnx" is ONNX's own
	Inputs     []Tensor         `json:"inputs"`
	Outputs    []Tensor         `json:"outputs"`
	Parameters int64            `json:"parameters"`
	// Bytes is what the weights take in their files, Resident in memory: half floats are widened to
	// floats when they are loaded, as the CPU has no kernels for them.
	Bytes    int64 `json:"weight_bytes"`
	Resident int64 `json:"resident_bytes"`
	// Operators counts the file's nodes by operator. What is not among a tower's operators was written
	// out as plainer ones when the file was read.
	Operators map[string]int `json:"operators"`
}

// Tensor is an input or output.
type Tensor struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Shape string `json:"shape"` // as "[batch,3,224,224]"
	Kind  string `json:"kind,omitempty"`
}

// Tower is what towers have in common.
type Tower struct {
	File       string `json:"file"`
	Output     Tensor `json:"output"`
	TokenWidth int    `json:"token_width"`
	Blocks     int    `json:"blocks"`
	Heads      int    `json:"heads,omitempty"`
	Layout     string `json:"layout,omitempty"` // of the blocks' inputs: "[B,N,D]" or "[N,B,D]"
	// Insert is the tensor that prompts join, BlockInputs those that deeper ones are written into.
	Insert      Tensor   `json:"insert"`
	BlockInputs []Tensor `json:"block_inputs"`
	// Nodes are those of the tower alone; OnPath lie between its first prompts and its output.
	Nodes     int        `json:"nodes"`
	OnPath    int        `json:"nodes_on_path"`
	Operators []Operator `json:"operators"`
	Step      *Step      `json:"step,omitempty"` // nil where no gradient can be computed
}

// Image is an image tower.
type Image struct {
	Tower
	Height      int    `json:"height"` // of the image in pixels; 0 where any will do
	Width       int    `json:"width"`
	Tokens      int    `json:"tokens"`
	ClassTokens int    `json:"class_tokens"`
	GridRows    int    `json:"grid_rows,omitempty"`
	GridColumns int    `json:"grid_columns,omitempty"`
	Pooling     string `json:"pooling"`
	Batch       int    `json:"fixed_batch,omitempty"` // the only number of images that it takes
}

// Text is a text tower.
type Text struct {
	Tower
	Window     int    `json:"window"` // the longest text in tokens, 0 where there is no limit
	Vocabulary int    `json:"vocabulary"`
	Trims      bool   `json:"trims"` // a batch may be cut to its longest text
	Pooling    string `json:"pooling,omitempty"`
	Start      int    `json:"context_start"` // the place in a text where context begins; a single file's is taken to be 1
	Fixed      string `json:"fixed_length,omitempty"`
}

// Decoder is a text decoder.
type Decoder struct {
	Tower
	Window     int  `json:"window"`
	Vocabulary int  `json:"vocabulary"`
	Causal     bool `json:"causal"`
	SelfLayers int  `json:"self_attentions"`
	Cross      int  `json:"cross_attentions"`
	// Encoder is the input that cross attention looks at.
	Encoder string `json:"encoder_input,omitempty"`
	Cache   bool   `json:"takes_past"` // past keys and values are inputs
}

// Operator is an operator of a tower as it is differentiated.
type Operator struct {
	Op       string `json:"op"`
	Nodes    int    `json:"nodes"`
	OnPath   int    `json:"nodes_on_path"`
	Gradient bool   `json:"gradient"`
	First    string `json:"first"`
}

func tensors(vs []*graph.Value) []Tensor {
	out := []Tensor{}
	for _, v := range vs {
		out = append(out, tensor(v))
	}
	return out
}

func tensor(v *graph.Value) Tensor {
	return Tensor{Name: v.Name, Type: v.Type.String(), Shape: v.Shape.String()}
}
