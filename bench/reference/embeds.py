"""Textual-inversion files as others write them, and ours as others read them.

Usage: embeds.py write FOLDER    writes files as diffusers' training script and AUTOMATIC1111 save them, and expected.json
       embeds.py check FOLDER    loads the files that Go's test exported (FOLDER/exported) with torch.load(weights_only=True),
                                 safetensors and diffusers' load_textual_inversion on a tiny pipeline; an error where a number differs
Needs torch, safetensors, diffusers, transformers.
"""
import json
import os
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

ROWS = torch.arange(16, dtype=torch.float32).reshape(2, 8) / 4 - 1
ROWS_G = torch.arange(24, dtype=torch.float32).reshape(2, 12) / 8


def write(folder):
    def path(name):
        return os.path.join(folder, name)

    # examples/textual_inversion/textual_inversion.py, save_progress
    save_file({"<mug>": ROWS.clone()}, path("learned_embeds.safetensors"), metadata={"format": "pt"})
    torch.save({"<mug>": ROWS.clone()}, path("learned_embeds.bin"))
    torch.save({"<mug>": torch.nn.Parameter(ROWS[0].clone()).half()}, path("one_half.bin"))
    # modules/textual_inversion/textual_inversion.py, Embedding.save
    torch.save({
        "string_to_token": {"*": 265}, "string_to_param": {"*": torch.nn.Parameter(ROWS.clone())}, "name": "mug", "step": 500,
        "sd_checkpoint": "cc6cb27103", "sd_checkpoint_name": "v1-5-pruned",
    }, path("a1111.pt"))
    torch.save({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": {"*": ROWS.clone()}, "name": None, "step": None}, path("nameless.pt"))
    save_file({"emb_params": ROWS.bfloat16()}, path("a1111.safetensors"))
    save_file({"clip_l": ROWS.clone(), "clip_g": ROWS_G.clone()}, path("sdxl.safetensors"))
    torch.save(ROWS.clone(), path("bare.pt"))
    with open(path("expected.json"), "w") as f:
        json.dump({"rows": ROWS.tolist(), "rows_g": ROWS_G.tolist()}, f)


def tiny(folder, name, hidden):
    """A text encoder with a tokenizer of single letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + list("<>0123456789")
    vocab = {t: i for i, t in enumerate(letters + [t + "</w>" for t in letters] + ["<|startoftext|>", "<|endoftext|>"])}
    where = os.path.join(folder, name)
    os.makedirs(where, exist_ok=True)
    with open(os.path.join(where, "vocab.json"), "w") as f:
        json.dump(vocab, f)
    with open(os.path.join(where, "merges.txt"), "w") as f:
        f.write("#version: 0.2\n")
    tokenizer = CLIPTokenizer(os.path.join(where, "vocab.json"), os.path.join(where, "merges.txt"), model_max_length=77)
    config = CLIPTextConfig(vocab_size=len(vocab), hidden_size=hidden, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=77)
    return tokenizer, CLIPTextModel(config)


def pipeline(tokenizer, encoder):
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    unet = UNet2DConditionModel(sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
                                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=4)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    return StableDiffusionPipeline(vae=vae, text_encoder=encoder, tokenizer=tokenizer, unet=unet, scheduler=DDIMScheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def check(folder):
    exported = os.path.join(folder, "exported")
    same = torch.testing.assert_close
    same(load_file(os.path.join(exported, "diffusers.safetensors"))["<mug>"], ROWS, rtol=0, atol=0)
    same(load_file(os.path.join(exported, "a1111-tensors.safetensors"))["emb_params"], ROWS, rtol=0, atol=0)
    same(torch.load(os.path.join(exported, "diffusers-bin.bin"), weights_only=True)["<mug>"], ROWS, rtol=0, atol=0)
    a1111 = torch.load(os.path.join(exported, "a1111.pt"), weights_only=True)
    same(a1111["string_to_param"]["*"], ROWS, rtol=0, atol=0)
    assert a1111["name"] == "<mug>" and a1111["string_to_token"] == {"*": 265}, a1111
    with tempfile.TemporaryDirectory() as scratch:
        for file, token in [("diffusers.safetensors", None), ("diffusers-bin.bin", None), ("a1111.pt", None), ("a1111-tensors.safetensors", "<mug>")]:
            tokenizer, encoder = tiny(scratch, "text", 8)
            pipe = pipeline(tokenizer, encoder)
            pipe.load_textual_inversion(exported, weight_name=file, token=token)
            ids = pipe.tokenizer.convert_tokens_to_ids(["<mug>", "<mug>_1"])
            same(pipe.text_encoder.get_input_embeddings().weight[ids].detach(), ROWS, rtol=0, atol=0)
            pipe("a <mug>", num_inference_steps=1, output_type="latent")
            print(file, "is loaded by diffusers")
        parts = load_file(os.path.join(exported, "sdxl.safetensors"))
        for key, rows in [("clip_l", ROWS), ("clip_g", ROWS_G)]:
            tokenizer, encoder = tiny(scratch, key, rows.shape[1])
            pipe = pipeline(*tiny(scratch, "text", 8))
            pipe.load_textual_inversion({"<mug>": parts[key]}, tokenizer=tokenizer, text_encoder=encoder)
            same(encoder.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(["<mug>", "<mug>_1"])].detach(), rows, rtol=0, atol=0)
            print("sdxl.safetensors,", key, "is loaded by diffusers")


{"write": write, "check": check}[sys.argv[1]](sys.argv[2])
