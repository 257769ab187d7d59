// Package starter carries the starter bundles with their model cards, and the data sets of
// the demo, so that the program shows what it does without a download. It knows nothing of
// what reads them: Bundle, Captioner and Painter are folders as any exporter would leave
// them, and Demo holds zips of pictures. How they were trained is in train/.
package starter

import "embed"

// Bundle holds the folder "bundle", a small CLIP-like dual encoder: config.json,
// preprocessor_config.json, tokenizer.json, foretoken.yaml, onnx/vision_model.onnx and
// onnx/text_model.onnx.
//
//go:embed bundle
var Bundle embed.FS

// Captioner holds the folder "captioner", which says what it sees in a drawing, in optimum's
// layout: encoder_model.onnx (the dual encoder's image tower), decoder_model_merged.onnx,
// config.json, generation_config.json, preprocessor_config.json and tokenizer.json.
//
//go:embed captioner
var Captioner embed.FS

// Painter holds the folder "painter", which draws 64 x 64 pixels from a text, in diffusers'
// ONNX layout: model_index.json and the folders tokenizer, text_encoder, unet, vae_encoder,
// vae_decoder and scheduler.
//
//go:embed painter
var Painter embed.FS

// Demo holds the folder "demo". fashion.zip and openmoji.zip are {train,test}/<class>/*.png;
// captions.zip and style.zip are pictures with texts, {train,test}/metadata.jsonl with
// file_name and text beside *.png; concept.zip is five pictures of one thing. Each has a
// LICENSE; samples holds single pictures that lie in none.
//
//go:embed demo
var Demo embed.FS
