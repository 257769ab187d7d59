// Package graph reads, rewrites and differentiates ONNX graphs: ONNX in, ONNX out.
//
// A frozen encoder comes as the file that some exporter left. To learn a prompt for it, the
// graph has to take the prompt as an input, compute a loss, and compute the loss's derivative
// by the prompt, none of which the file does. This package adds all three as ordinary nodes; what
// comes out runs on any ONNX runtime. The package itself knows ONNX and transformers' graphs. It
// knows no runtime, no CLIP and no training.
//
// # From a file to a graph
//
// [Load] reads a model and leaves its weights in the file; [Parse] reads one from memory. Both
// bring every opset from 9 on to the operator forms of opset 18 and write fused operators (those
// of com.microsoft, Attention, RMSNormalization) out as plain ones, so that the rest of the
// package deals with one form. Bytes may come from anyone: external data stays inside the
// model's folder, and what a file can cost is bounded. [Graph.Marshal] writes a graph again.
//
// A [Graph] is in static single assignment form: each [Value] is defined once, by a [Node], as an
// input, or as a constant ([Tensor]). [Graph.Check] verifies this; [Graph.String] prints it.
// [Graph.Infer] finds every value's type and shape. An extent is a polynomial ([Dim]) in the
// inputs' symbolic extents, such as batch*17. [Graph.Fold] turns shape arithmetic into constants.
//
// # Prompts
//
// [FindImageTower] and [FindTextTower] find where prompts can enter, from the graph's structure and
// never from names: the tokens [B,N,D] after positions are added, or the token embeddings [B,S,D];
// and the input of each transformer block. [ImageTower.WithPrompts] and [TextTower.WithContext]
// return a new graph with the inputs "visual.0".. or "context.0"... What the exporter baked in
// about the number of tokens (Reshape targets, masks) is mended on the way. An image tower can be
// cut in two: [ImageTower.Upstream] computes the tokens, once for each image, and FromTokens or
// [ImageTower.Downstream] starts from there.
//
// # Losses and gradients
//
// [Graph.Build] appends nodes: its [Builder] infers each one's shape at once, and an error ends it.
// [Gradient] appends the reverse-mode derivative. It visits only nodes between the loss and the
// values that gradients are wanted for. [Merge] puts two towers side by side, for a loss over both.
//
// # What a graph is and costs
//
// [KindOf] tells image and text towers and decoders apart, [Graph.Coverage] which operators a gradient has to pass and
// whether it can, and [Graph.Cost], where all extents are fixed, how many additions and multiplications a run takes and
// how much memory. [Exported] is what the file held before it was read.
//
// # One table
//
// What is known of an operator is one row of a table in the files ops_*.go: a rule for types, shapes
// and small integers, one for the gradient, and a kernel, which computes it on arrays ([Evaluate]). Adding an
// operator is adding a row and a case in graph/internal/opcase. The tests go over the table: a gradient is
// compared with numerical differences, kernels with ONNX Runtime and ONNX's node tests,
// inferred shapes with those of a run; a row without a case fails.
//
// # Errors
//
// A graph that can't be handled is refused with an error of kind errs.Unsupported that names the
// nodes and the reason; a file that is no proper model with errs.Invalid, one beyond the limits
// with errs.TooLarge. Nothing panics.
package graph
