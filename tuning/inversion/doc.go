// Package inversion learns new words of text-to-image models: a concept from a few pictures (textual inversion; Gal et al.
// 2022), a style that stands before the user's words, a negative prompt. Network puts text encoders and UNet into
// one graph with the denoising loss and its gradient by the words' embeddings; Trainer takes the steps. It knows pipelines
// of package generation/diffusion, and nothing of runs, HTTP or where results are kept.
package inversion
