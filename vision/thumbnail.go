package vision

import (
	"bytes"
	"image"

	"github.com/disintegration/imaging"
)

// Thumbnail returns the image as a JPEG that fits a square of the given side in pixels.
func Thumbnail(img image.Image, side int) ([]byte, error) {
	var out bytes.Buffer
	err := imaging.Encode(&out, imaging.Fit(img, side, side, imaging.Linear), imaging.JPEG, imaging.JPEGQuality(85))
	return out.Bytes(), err
}
