// Package captioning learns what steers an image-to-text model whose weights stay as they are: tokens before the decoder's,
// keys and values in its layers, a map from the image's feature to such tokens, and image tokens in the encoder. It knows
// captions and answers, not classes.
package captioning
