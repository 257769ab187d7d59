package bundle

import (
	"strings"
	"testing"

	"github.com/foretoken/foretoken/internal/errs"
)

func TestABundlesFilesTellItsKind(t *testing.T) {
	tests := []struct {
		name    string
		files   []string
		kind    Kind
		encoder string
		decoder Decoder
	}{
		{"two towers", []string{"onnx/vision_model.onnx", "onnx/text_model.onnx"}, DualEncoder, "onnx/vision_model.onnx", Decoder{}},
		{"optimum's captioner", []string{"encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"}, Captioner, "encoder_model.onnx", Decoder{First: "decoder_model.onnx", WithPast: "decoder_with_past_model.onnx"}},
		{"a merged one", []string{"onnx/encoder_model.onnx", "onnx/decoder_model_merged.onnx"}, Captioner, "onnx/encoder_model.onnx", Decoder{Merged: "onnx/decoder_model_merged.onnx"}},
		{"an image tower and a decoder", []string{"onnx/vision_model.onnx", "onnx/decoder_model.onnx", "onnx/mapper.onnx"}, Captioner, "onnx/vision_model.onnx", Decoder{First: "onnx/decoder_model.onnx"}},
		{"a decoder alone", []string{"decoder_model.onnx"}, DualEncoder, "", Decoder{First: "decoder_model.onnx"}},
		{"diffusers' folder", []string{"model_index.json", "unet/model.onnx", "text_encoder/model.onnx"}, Diffusion, "", Decoder{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := map[string]string{}
			if tt.kind != Diffusion {
				files["config.json"] = "{}"
			}
			for _, f := range tt.files {
				files[f] = "x"
			}
			b, err := Open(write(t, t.TempDir(), files))
			if err != nil {
				t.Fatal(err)
			}
			if b.Kind() != tt.kind || b.EncoderFile() != tt.encoder || b.Decoder() != tt.decoder {
				t.Errorf("got %v, %q, %+v; want %v, %q, %+v", b.Kind(), b.EncoderFile(), b.Decoder(), tt.kind, tt.encoder, tt.decoder)
			}
			if (b.MapperFile() != "") != strings.Contains(strings.Join(tt.files, " "), "mapper.onnx") {
				t.Errorf("the mapper is %q", b.MapperFile())
			}
		})
	}
}

func TestADenoiserThatIsATransformerIsRefused(t *testing.T) {
	_, err := Open(write(t, t.TempDir(), map[string]string{"model_index.json": "{}", "transformer/model.onnx": "x"}))
	if errs.Of(err) != errs.Unsupported || !strings.Contains(err.Error(), "folder transformer/") {
		t.Errorf("got %v (%v)", err, errs.Of(err))
	}
}

func TestTheDigestCoversSubfolders(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{"model_index.json": "{}", "unet/model.onnx": "x"})
	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"unet/model.onnx": "y"})
	if b, err := Open(dir); err != nil || a.Digest == b.Digest {
		t.Errorf("another denoiser has the same digest (%v)", err)
	}
}

func TestTextWidthsAreThoseOfTheEncoders(t *testing.T) {
	index := `{"_class_name":"StableDiffusionPipeline"}`
	tests := []struct {
		name          string
		files         map[string]string
		first, second int
		says          string
	}{
		{"one encoder", map[string]string{"model_index.json": index, "text_encoder/config.json": `{"hidden_size":768}`}, 768, 0, ""},
		{"two encoders", map[string]string{"model_index.json": index, "text_encoder/config.json": `{"hidden_size":768}`, "text_encoder_2/config.json": `{"hidden_size":1280}`}, 768, 1280, ""},
		{"no encoder", map[string]string{"model_index.json": index}, 0, 0, "text_encoder"},
		{"a width of nothing", map[string]string{"model_index.json": index, "text_encoder/config.json": `{}`}, 0, 0, "no hidden_size above 0"},
		{"a second encoder that is no JSON", map[string]string{"model_index.json": index, "text_encoder/config.json": `{"hidden_size":768}`, "text_encoder_2/config.json": `{`}, 0, 0, "text_encoder_2"},
		{"an encoder of images and texts", map[string]string{"config.json": `{}`}, 0, 0, "makes no images"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			first, second, err := TextWidths(write(t, t.TempDir(), tt.files))
			if tt.says != "" {
				if errs.Of(err) != errs.Invalid || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("error %v, want one saying %q", err, tt.says)
				}
				return
			}
			if err != nil || first != tt.first || second != tt.second {
				t.Errorf("%d and %d, %v, want %d and %d", first, second, err, tt.first, tt.second)
			}
		})
	}
}
