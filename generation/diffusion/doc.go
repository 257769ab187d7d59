// Package diffusion draws images from texts with a latent diffusion model in diffusers' ONNX layout
// (Rombach et al. 2022): model_index.json, and folders tokenizer, text_encoder, unet, vae_decoder,
// vae_encoder and scheduler; for SDXL tokenizer_2 and text_encoder_2; safety_checker and
// feature_extractor where they are there.
//
// A [Pipeline] is a bundle opened. [Pipeline.Generate] draws: from noise, from an image
// (image-to-image), or into an image where a mask is white (inpainting). Learned prompts steer it: new
// words, styles that stand before the words, negative prompts. It knows nothing of HTTP or of training;
// what training needs of a bundle is exported: the text encoders' towers, the network's graph, the
// latents of images, the noise schedule.
package diffusion
