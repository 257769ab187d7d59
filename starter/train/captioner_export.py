"""Write the captioner as a folder in optimum's layout: encoder_model.onnx, decoder_model_merged.onnx and what goes beside them.

Usage: captioner_export.py WORK BUNDLE OUT     needs captioner_requirements.txt: the transformers that optimum-onnx knows
Reads WORK/captioner.pt and BUNDLE's image tower. The decoder goes through optimum's own export, beside an encoder that is thrown
away; the encoder is the image tower up to its last states. Large weights are stored as fp16 and cast in the graph.
"""
import json, os, sys, tempfile

sys.modules["diffusers"] = None  # optimum looks for it, and a version for this transformers may not be there
import numpy as np
import onnx
import onnxruntime
import torch
import transformers
from onnx import helper

import captioner
import half


def encoder(bundle, path):
    """pixel_values [B,3,160,160] -> last_hidden_state [B,26,256]: the image tower without its head."""
    model = onnx.load(f"{bundle}/onnx/vision_model.onnx")
    graph = model.graph
    states = next(o for o in graph.output if o.name == "last_hidden_state")
    del graph.output[:]
    graph.output.append(states)
    needed, nodes = {"last_hidden_state"}, []
    for n in reversed(graph.node):
        if needed & set(n.output):
            needed |= set(n.input)
            nodes.insert(0, n)
    weights = [w for w in graph.initializer if w.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
    onnx.save(model, path)
    half.halve(path)
    pixels = np.random.default_rng(0).normal(size=(3, 3, 160, 160)).astype("f4")
    run = lambda path: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["last_hidden_state"], {"pixel_values": pixels})[0]
    compare(path, run(f"{bundle}/onnx/vision_model.onnx"), run(path))


def compare(path, want, got):
    off = np.linalg.norm(want - got) / np.linalg.norm(want)
    print(f"{path}: {os.path.getsize(path) / 1e6:.1f} MB, off by {off:.1e} of its norm")
    if off > 3e-3:
        raise SystemExit(f"{path} differs by {off}")


def decoder(work, path):
    """Export with optimum, keep the merged decoder, and compare it with PyTorch without a cache."""
    from optimum.exporters.onnx import main_export
    vit = transformers.ViTModel(transformers.ViTConfig(hidden_size=captioner.WIDTH, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, image_size=32, patch_size=16), add_pooling_layer=False)
    gpt = captioner.build()
    gpt.load_state_dict(torch.load(f"{work}/captioner.pt"))
    model = transformers.VisionEncoderDecoderModel(encoder=vit, decoder=gpt).eval()
    model.config.decoder_start_token_id, model.config.pad_token_id, model.generation_config.decoder_start_token_id = captioner.START, captioner.END, captioner.START
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(f"{folder}/model")
        transformers.ViTImageProcessor(size=dict(height=32, width=32)).save_pretrained(f"{folder}/model")
        with open(f"{folder}/model/vocab.json", "w") as f:
            json.dump({f"w{i}": i for i in range(captioner.VOCAB)}, f)
        with open(f"{folder}/model/merges.txt", "w") as f:
            f.write("#version: 0.2\n")
        main_export(f"{folder}/model", f"{folder}/onnx", task="image-to-text-with-past", local_files_only=True)
        print({f: os.path.getsize(f"{folder}/onnx/{f}") for f in os.listdir(f"{folder}/onnx")})
        onnx.save(tied(onnx.load(f"{folder}/onnx/decoder_model_merged.onnx")), path)
    half.halve(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    ids, states = torch.randint(0, 5000, (2, 7)), torch.randn(2, 26, captioner.WIDTH)
    want = gpt(input_ids=ids, encoder_hidden_states=states, use_cache=False).logits
    empty = {i.name: np.zeros((2, captioner.HEADS, 0, captioner.WIDTH // captioner.HEADS), "f4") for i in session.get_inputs() if i.name.startswith("past")}
    got = session.run(["logits"], {"input_ids": ids.numpy(), "encoder_hidden_states": states.numpy(), "use_cache_branch": np.array([False]), **empty})[0]
    compare(path, want.numpy(), got)


def tied(model):
    """Read the head from the token table, of which the exporter writes a turned copy."""
    by_name = {w.name: w for w in model.graph.initializer}
    table = next(w for w in by_name.values() if list(w.dims) == [captioner.VOCAB, captioner.WIDTH])
    copies = [w for w in by_name.values() if list(w.dims) == [captioner.WIDTH, captioner.VOCAB]]
    for w in copies:
        if not np.array_equal(onnx.numpy_helper.to_array(w).T, onnx.numpy_helper.to_array(table)):
            raise SystemExit(f"{w.name} is not the token table, turned")
        model.graph.initializer.remove(w)
        model.graph.node.insert(0, helper.make_node("Transpose", [table.name], [w.name], name=w.name + "_turned", perm=[1, 0]))
    return model


def configs(bundle, out):
    """file -> content, in the form that transformers writes."""
    dual = json.load(open(f"{bundle}/config.json"))
    gpt = {k: v for k, v in captioner.build().config.to_diff_dict().items() if k not in ("transformers_version", "dtype", "_attn_implementation_internal")}
    ends = dict(bos_token_id=captioner.START, eos_token_id=captioner.END, pad_token_id=captioner.END, decoder_start_token_id=captioner.START)
    dump = lambda name, value: open(f"{out}/{name}", "w").write(json.dumps(value, indent=2) + "\n")
    dump("config.json", dict(architectures=["VisionEncoderDecoderModel"], model_type="vision-encoder-decoder", is_encoder_decoder=True, tie_word_embeddings=True,
                             encoder=dual["vision_config"], decoder=dict(gpt, is_decoder=True, add_cross_attention=True), **ends))
    dump("generation_config.json", dict(**ends, max_length=40))
    tokenizer = json.load(open(f"{bundle}/tokenizer.json"))
    # A word's end is a blank, but for the last: the dual encoder, that never writes, has no need to know.
    tokenizer["decoder"] = dict(type="Sequence", decoders=[
        tokenizer["decoder"], dict(type="Replace", pattern=dict(Regex="</w>$"), content=""), dict(type="Replace", pattern=dict(String="</w>"), content=" ")])
    with open(f"{out}/tokenizer.json", "w") as f:
        json.dump(tokenizer, f, indent=2, ensure_ascii=False)
    settings = json.load(open(f"{bundle}/tokenizer_config.json"))
    dump("tokenizer_config.json", dict(settings, tokenizer_class="PreTrainedTokenizerFast", model_max_length=captioner.WINDOW))
    with open(f"{bundle}/preprocessor_config.json") as source, open(f"{out}/preprocessor_config.json", "w") as f:
        f.write(source.read())


@torch.no_grad()
def main(work, bundle, out):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    os.makedirs(out, exist_ok=True)
    configs(bundle, out)
    encoder(bundle, f"{out}/encoder_model.onnx")
    decoder(work, f"{out}/decoder_model_merged.onnx")


if __name__ == "__main__":
    main(*sys.argv[1:4])
