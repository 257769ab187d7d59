package vision

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"testing"

	"github.com/foretoken/foretoken/internal/errs"
)

func TestTextInPNG(t *testing.T) {
	img := image.NewNRGBA(image.Rect(0, 0, 5, 3))
	img.Set(2, 1, color.NRGBA{10, 20, 30, 255})
	const card = `{"prompt": "ein grüner Becher <mug>", "seed": 7}`
	b, err := EncodePNG(img, "foretoken", card)
	if err != nil {
		t.Fatal(err)
	}
	back, err := png.Decode(bytes.NewReader(b)) // checks every chunk's checksum
	if err != nil || back.Bounds() != img.Bounds() || back.At(2, 1) != img.At(2, 1) {
		t.Errorf("the image comes back as %v, %v", back, err)
	}
	for keyword, want := range map[string]string{"foretoken": card, "other": "", "fore": ""} {
		if got, err := PNGText(b, keyword); err != nil || got != want {
			t.Errorf("%s: %q, %v", keyword, got, err)
		}
	}
	for _, cut := range []int{0, 4, 20, 60} {
		if _, err := PNGText(b[:cut], "foretoken"); cut == 60 && errs.Of(err) != errs.Invalid {
			t.Errorf("a cut file: %v", err)
		}
	}
	if _, err := EncodePNG(img, "", card); errs.Of(err) != errs.Invalid {
		t.Errorf("no keyword: %v", err)
	}
	if _, err := EncodePNG(img, "a", "b\x00c"); errs.Of(err) != errs.Invalid {
		t.Errorf("a zero byte: %v", err)
	}
}

func FuzzPNGText(f *testing.F) {
	b, err := EncodePNG(image.NewNRGBA(image.Rect(0, 0, 2, 2)), "foretoken", "{}")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = PNGText(b, "foretoken") })
}

func TestMasks(t *testing.T) {
	img := image.NewNRGBA(image.Rect(0, 0, 4, 4))
	for i := range img.Pix {
		img.Pix[i] = 255
	}
	encode := func() *bytes.Buffer {
		var b bytes.Buffer
		if err := png.Encode(&b, img); err != nil {
			t.Fatal(err)
		}
		return &b
	}
	if _, err := DecodeMask(encode(), Limits{}); errs.Of(err) != errs.Invalid {
		t.Errorf("a mask that marks nothing: %v", err)
	}
	img.SetNRGBA(1, 2, color.NRGBA{0, 0, 0, 0})
	mask, err := DecodeMask(encode(), Limits{})
	if err != nil || mask.GrayAt(1, 2).Y != 255 || mask.GrayAt(2, 1).Y != 0 {
		t.Errorf("mask %v, %v", mask, err)
	}
	if _, err := DecodeMask(encode(), Limits{MaxPixels: 8}); errs.Of(err) != errs.TooLarge {
		t.Errorf("a large mask: %v", err)
	}
	if _, err := DecodeMask(bytes.NewReader([]byte("GIF89a")), Limits{}); errs.Of(err) != errs.Invalid {
		t.Errorf("no PNG: %v", err)
	}
}
