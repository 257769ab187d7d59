package embeds

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"

	"github.com/foretoken/foretoken/graph"
	"github.com/foretoken/foretoken/internal/errs"
	"github.com/foretoken/foretoken/prompt/pickle"
)

// AUTOMATIC1111 hides a concept in a preview of it: a PNG with a text chunk whose value is what its
// files hold, as JSON in base64, each tensor an object with nested lists. The picture's edges have
// the same once more, in pixels, which is not read.
const (
	pictureKeyword = "sd-ti-embedding"
	tensorKey      = "TORCHTENSOR"
	maxPictureText = 16 << 20 // bytes; 75 rows for SDXL's second encoder take 3 MB
)

var pngSignature = []byte("\x89PNG\r\n\x1a\n")

// readPicture reads the concept that a PNG carries.
func readPicture(content []byte) (*Embedding, error) {
	text, err := pictureText(content[len(pngSignature):])
	if err != nil {
		return nil, err
	}
	if len(text) > maxPictureText {
		return nil, errs.New(errs.TooLarge, "the picture's %s has %d bytes, limit %d", pictureKeyword, len(text), maxPictureText)
	}
	plain, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return nil, errs.New(errs.Invalid, "the picture's %s: %w", pictureKeyword, err)
	}
	var held struct {
		Params map[string]map[string][][]float64 `json:"string_to_param"`
		Name   string                            `json:"name"`
	}
	if err := json.Unmarshal(plain, &held); err != nil {
		return nil, errs.New(errs.Invalid, "the picture's %s: %w", pictureKeyword, err)
	}
	params := pickle.NewDict()
	for token, param := range held.Params {
		t, err := nested(param[tensorKey])
		if err != nil {
			return nil, err
		}
		params.Set(token, t)
	}
	return find(pickle.NewDict("string_to_param", params, "name", held.Name))
}

// pictureText is the value of the PNG's text chunk. A chunk is its content's length, four letters,
// the content and a checksum of four bytes.
func pictureText(chunks []byte) ([]byte, error) {
	for len(chunks) >= 12 {
		size := int64(binary.BigEndian.Uint32(chunks))
		if size > int64(len(chunks))-12 {
			break
		}
		kind, value := string(chunks[4:8]), chunks[8:8+size]
		if keyword, text, ok := bytes.Cut(value, []byte{0}); ok && kind == "tEXt" && string(keyword) == pictureKeyword {
			return text, nil
		}
		chunks = chunks[12+size:]
	}
	return nil, errs.New(errs.Invalid, "a picture without the text %s: it never had a concept, or lost it where it was saved anew. Ask for the concept's file", pictureKeyword)
}

// nested makes a tensor of a list of rows, which must be of one length.
func nested(rows [][]float64) (*graph.Tensor, error) {
	if len(rows) == 0 {
		return nil, errs.New(errs.Invalid, "the picture's concept has no rows")
	}
	values := make([]float32, 0, len(rows)*len(rows[0]))
	for i, row := range rows {
		if len(row) != len(rows[0]) {
			return nil, errs.New(errs.Invalid, "row %d of the picture's concept has %d numbers, the first %d", i, len(row), len(rows[0]))
		}
		for _, x := range row {
			values = append(values, float32(x))
		}
	}
	return graph.NewTensor(values, int64(len(rows)), int64(len(rows[0]))), nil
}
