// Package starter carries the starter bundle, a small CLIP-like dual encoder with its model
// card, and the data sets of the demo, so that the program shows what it does without a
// download. It knows nothing of what reads them: Bundle is a folder as any exporter would
// leave it, and Demo holds zips of class folders. How the bundle was trained is in train/.
package starter

import "embed"

// Bundle holds the folder "bundle": config.json, preprocessor_config.json, tokenizer.json,
// foretoken.yaml, onnx/vision_model.onnx and onnx/text_model.onnx, the model card and licences.
//
//go:embed bundle
var Bundle embed.FS

// Demo holds the folder "demo": fashion.zip and openmoji.zip, each with
// {train,test}/<class>/*.png and a LICENSE, and single pictures of neither in samples.
//
//go:embed demo
var Demo embed.FS
