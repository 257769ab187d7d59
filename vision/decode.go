// Package vision knows pixels and the image tower: decoding, preprocessing as the bundle's
// own processor does it, augmentation, and where prompts enter.
package vision

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	_ "image/gif" // a decoder
	_ "image/jpeg"
	_ "image/png"
	"io"
	"os"
	"strconv"

	"github.com/disintegration/imaging"
	_ "golang.org/x/image/bmp"
	_ "golang.org/x/image/webp"

	"github.com/foretoken/foretoken/internal/errs"
)

// Limits are what an image may cost to decode. Zero fields mean the defaults.
type Limits struct {
	MaxPixels int64 // default 40 million, or FORETOKEN_MAX_PIXELS
	MaxBytes  int64 // default 64 MiB
}

func (l Limits) withDefaults() Limits {
	if l.MaxPixels == 0 {
		l.MaxPixels = 40_000_000
		if n, err := strconv.ParseInt(os.Getenv("FORETOKEN_MAX_PIXELS"), 10, 64); err == nil && n > 0 {
			l.MaxPixels = n
		}
	}
	if l.MaxBytes == 0 {
		l.MaxBytes = 64 << 20
	}
	return l
}

// Decode reads a PNG, JPEG, GIF (its first picture), WebP or BMP as RGB: EXIF orientation
// applied, alpha dropped, not blended, as Pillow's convert("RGB") does. The size is
// checked before pixels are decoded.
func Decode(r io.Reader, l Limits) (*image.NRGBA, error) {
	l = l.withDefaults()
	data, err := io.ReadAll(io.LimitReader(r, l.MaxBytes+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > l.MaxBytes {
		return nil, errs.New(errs.TooLarge, "image of more than %d MiB", l.MaxBytes>>20)
	}
	size, format, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, errs.New(errs.Invalid, "not an image that can be read (PNG, JPEG, GIF, WebP, BMP): %w", err)
	}
	if n := int64(size.Width) * int64(size.Height); n > l.MaxPixels {
		return nil, errs.New(errs.TooLarge, "%d megapixels, limit %d (FORETOKEN_MAX_PIXELS)", n/1_000_000, l.MaxPixels/1_000_000)
	}
	img, err := imaging.Decode(bytes.NewReader(data), imaging.AutoOrientation(format == "jpeg"))
	if err != nil {
		return nil, errs.New(errs.Invalid, "broken %s image: %w", format, err)
	}
	if img.Bounds().Empty() {
		return nil, errs.New(errs.Invalid, "the %s image has no pixels", format)
	}
	if y, ok := img.(*image.YCbCr); ok && format == "webp" {
		return limitedRange(y), nil
	}
	return opaque(img), nil
}

// opaque copies the colours and drops alpha, without blending.
func opaque(img image.Image) *image.NRGBA {
	b := img.Bounds()
	out := image.NewNRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	switch src := img.(type) {
	case *image.NRGBA:
		draw.Draw(out, out.Bounds(), src, b.Min, draw.Src)
		for y := range b.Dy() { // Draw goes through premultiplied colours, which loses those of clear pixels
			copy(out.Pix[y*out.Stride:(y+1)*out.Stride], src.Pix[src.PixOffset(b.Min.X, b.Min.Y+y):][:4*b.Dx()])
		}
	case *image.NRGBA64, *image.Paletted:
		for y := range b.Dy() {
			for x := range b.Dx() {
				out.SetNRGBA(x, y, unblended(img.At(b.Min.X+x, b.Min.Y+y)))
			}
		}
	default:
		draw.Draw(out, out.Bounds(), img, b.Min, draw.Src)
	}
	for i := 3; i < len(out.Pix); i += 4 {
		out.Pix[i] = 255
	}
	return out
}

// unblended is a colour's NRGBA form without going through premultiplied alpha where possible.
func unblended(c color.Color) color.NRGBA {
	switch v := c.(type) {
	case color.NRGBA:
		return v
	case color.NRGBA64:
		return color.NRGBA{uint8(v.R >> 8), uint8(v.G >> 8), uint8(v.B >> 8), 255}
	}
	return color.NRGBAModel.Convert(c).(color.NRGBA)
}

// limitedRange converts WebP's colours by BT.601 with luma 16..235, as WebP defines them; the
// standard library takes every YCbCr image for JPEG's full range.
func limitedRange(img *image.YCbCr) *image.NRGBA {
	b := img.Bounds()
	out := image.NewNRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	for y := range b.Dy() {
		for x := range b.Dx() {
			yi, ci := img.YOffset(b.Min.X+x, b.Min.Y+y), img.COffset(b.Min.X+x, b.Min.Y+y)
			luma := 1.164383 * (float64(img.Y[yi]) - 16)
			cb, cr := float64(img.Cb[ci])-128, float64(img.Cr[ci])-128
			out.SetNRGBA(x, y, color.NRGBA{
				clamp(luma + 1.596027*cr),
				clamp(luma - 0.391762*cb - 0.812968*cr),
				clamp(luma + 2.017232*cb),
				255,
			})
		}
	}
	return out
}

func clamp(x float64) uint8 { return uint8(max(0, min(255, x+0.5))) }
