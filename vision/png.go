package vision

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/png"
	"io"
	"strings"

	"github.com/foretoken/foretoken/internal/errs"
)

const pngSignature = "\x89PNG\r\n\x1a\n"

// EncodePNG writes an image as a PNG that carries a text under a keyword, in a chunk iTXt (PNG
// specification, third edition, 11.3.3.4): the keyword is 1 to 79 characters of Latin letters, the
// text UTF-8.
func EncodePNG(img image.Image, keyword, text string) ([]byte, error) {
	if len(keyword) == 0 || len(keyword) > 79 || strings.Contains(keyword+text, "\x00") {
		return nil, errs.New(errs.Invalid, "PNG text: keyword %.80q must be 1 to 79 characters, and neither it nor the text may have zero bytes", keyword)
	}
	var plain bytes.Buffer
	if err := png.Encode(&plain, img); err != nil {
		return nil, errs.New(errs.Invalid, "PNG: %w", err)
	}
	b := plain.Bytes()
	header := len(pngSignature) + 4 + 4 + 13 + 4 // IHDR comes first and has 13 bytes
	// keyword, end; not compressed, by no method; no language, no translation of the keyword; text
	chunk := pngChunk("iTXt", keyword+"\x00"+"\x00\x00"+"\x00"+"\x00"+text)
	return bytes.Join([][]byte{b[:header], chunk, b[header:]}, nil), nil
}

// pngChunk is length, type, data and checksum.
func pngChunk(kind, data string) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	out = append(append(out, kind...), data...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[4:]))
}

// PNGText returns the text under a keyword of a PNG's uncompressed iTXt chunks; "" where there is none.
func PNGText(b []byte, keyword string) (string, error) {
	rest, found := bytes.CutPrefix(b, []byte(pngSignature))
	if !found {
		return "", errs.New(errs.Invalid, "not a PNG")
	}
	for len(rest) >= 12 {
		length := binary.BigEndian.Uint32(rest)
		if uint64(length)+12 > uint64(len(rest)) {
			return "", errs.New(errs.Invalid, "PNG: a chunk of %d bytes goes beyond the file's end", length)
		}
		if data, ok := bytes.CutPrefix(rest[8:8+length], []byte(keyword+"\x00\x00\x00")); ok && string(rest[4:8]) == "iTXt" {
			if parts := bytes.SplitN(data, []byte{0}, 3); len(parts) == 3 {
				return string(parts[2]), nil
			}
		}
		rest = rest[12+length:]
	}
	return "", nil
}

// DecodeMask reads a PNG that marks an area of another image: where it is clear (alpha 0) the mask is
// 255, where it is opaque 0. One without any clear pixel marks nothing and is an error.
func DecodeMask(r io.Reader, l Limits) (*image.Gray, error) {
	l = l.withDefaults()
	data, err := io.ReadAll(io.LimitReader(r, l.MaxBytes+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > l.MaxBytes {
		return nil, errs.New(errs.TooLarge, "mask of more than %d MiB", l.MaxBytes>>20)
	}
	size, err := png.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, errs.New(errs.Invalid, "a mask must be a PNG with alpha: %w", err)
	}
	if n := int64(size.Width) * int64(size.Height); n > l.MaxPixels {
		return nil, errs.New(errs.TooLarge, "mask of %d megapixels, limit %d (FORETOKEN_MAX_PIXELS)", n/1_000_000, l.MaxPixels/1_000_000)
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, errs.New(errs.Invalid, "broken mask: %w", err)
	}
	return maskOf(img)
}

func maskOf(img image.Image) (*image.Gray, error) {
	b := img.Bounds()
	mask := image.NewGray(image.Rect(0, 0, b.Dx(), b.Dy()))
	marked := false
	for y := range b.Dy() {
		for x := range b.Dx() {
			_, _, _, alpha := img.At(b.Min.X+x, b.Min.Y+y).RGBA()
			value := 255 - uint8(alpha>>8)
			mask.Pix[y*mask.Stride+x] = value
			marked = marked || value > 127
		}
	}
	if !marked {
		return nil, errs.New(errs.Invalid, "the mask marks nothing: where the image is to be drawn anew it must be transparent")
	}
	return mask, nil
}
