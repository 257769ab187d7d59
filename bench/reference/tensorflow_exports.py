"""Exports small random models with TensorFlow and tf2onnx, with PyTorch's outputs and gradients of the same weights beside each.

Usage: tensorflow_exports.py reference OUT [--small]   with exporters.txt installed: weights, inputs, outputs and gradients
       tensorflow_exports.py export OUT [NAME...]      with tensorflow.txt installed: the models, as folders for the fixtures' test

The two can't share an environment: the last transformers with TensorFlow is older than the reference is made with. Every model is
exported with its batch free, with all of its sizes fixed, and texts, as int64, with their length free as well. RoBERTa is left out, as
TensorFlow's counts places otherwise than PyTorch's; so are CLIP's texts of free length and OPT, whose causal masks hang on conditions
that the run decides.
"""
import json
import os
import pathlib
import shutil
import sys

import numpy as np

OPSETS = (11, 15, 17)
WORDS = ("input_ids", "attention_mask", "token_type_ids")


def reference(out):
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    import exporters as e
    cases = {
        "clip_vision": e.clip_vision, "vit": lambda: e.classifier("vit"), "deit": lambda: e.classifier("deit"), "vit_mean": lambda: e.classifier("vit_mean"),
        "clip_text": lambda: e.clip_text(cases=e.places), "clip_text_mask": lambda: e.clip_text(mask=True, cases=e.places), "clip_text_last": lambda: e.clip_text(last=True),
        "bert_first": lambda: e.sentence_encoder(first=True), "albert_first": lambda: e.sentence_encoder(which="albert", first=True),
    }
    cases.update({"gpt2": lambda: e.prefixed("gpt2"), "gpt2_mask": lambda: e.prefixed("gpt2", mask=True)})
    for which in ("bert", "distilbert", "mpnet"):
        cases[which] = lambda which=which: e.sentence_encoder(e.averaged(), which=which)
    for name, make in cases.items():
        case, folder = make(), out / name
        inner = case.model.m if hasattr(case.model, "m") else case.model.inner
        inner.save_pretrained(folder / "weights")
        inputs, found = case.reference()
        plain = lambda d: {k: v.detach().numpy() for k, v in d.items()}
        np.savez(folder / "inputs.npz", **plain(case.inputs), **plain(inputs))
        np.savez(folder / "gradients.npz", **plain(found))
        (folder / "meta.json").write_text(json.dumps({"kind": case.kind, "output": case.out, **case.meta()}))


def heads(tf, t):
    """What each model is in transformers, and what is taken of it: f(model, weights, *inputs)."""
    def words(m, i, *more):
        return m(input_ids=i, **dict(zip(WORDS[1:], more))).last_hidden_state

    def mean(m, weights, *x):
        w = tf.cast(x[1], tf.float32)[:, :, None]
        return tf.reduce_sum(words(m, *x) * w, 1) / tf.reduce_sum(w, 1)

    def logits(m, weights, *x):
        return m(**dict(zip(WORDS, x)), use_cache=False).logits

    def first(m, weights, *x):
        return words(m, *x)[:, 0]

    def projected(key, x, weights):  # transformers has no TensorFlow class with the projection
        return tf.matmul(x, tf.constant(weights[key].T))

    def text(m, weights, *x):
        return projected("text_projection.weight", m(**dict(zip(WORDS, x))).pooler_output, weights)

    return {
        "clip_vision": (t.TFCLIPVisionModel, lambda m, weights, x: projected("visual_projection.weight", m(pixel_values=x).pooler_output, weights)),
        "vit": (t.TFViTForImageClassification, lambda m, _, x: m(pixel_values=x).logits),
        "deit": (t.TFDeiTForImageClassificationWithTeacher, lambda m, _, x: m(pixel_values=x).logits),
        "vit_mean": (t.TFViTModel, lambda m, _, x: tf.reduce_mean(m(pixel_values=x).last_hidden_state, 1)),
        "clip_text": (t.TFCLIPTextModel, text), "clip_text_mask": (t.TFCLIPTextModel, text),
        "clip_text_last": (t.TFCLIPTextModel, lambda m, _, i: words(m, i)),
        "bert": (t.TFBertModel, mean), "bert_first": (t.TFBertModel, first), "albert_first": (t.TFAlbertModel, first),
        "distilbert": (t.TFDistilBertModel, mean), "mpnet": (t.TFMPNetModel, mean),
        "gpt2": (t.TFGPT2LMHeadModel, logits), "gpt2_mask": (t.TFGPT2LMHeadModel, logits),
    }


def export(out, wanted):
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import onnxruntime
    import tensorflow as tf
    import tf2onnx
    import transformers
    from safetensors.numpy import load_file
    for name, (kind, f) in heads(tf, transformers).items():
        source = out / name
        meta, inputs, found = json.loads((source / "meta.json").read_text()), np.load(source / "inputs.npz"), np.load(source / "gradients.npz")
        weights, model = load_file(source / "weights" / "model.safetensors"), kind.from_pretrained(str(source / "weights"))
        names = [n for n in ("pixel_values", *WORDS) if n in inputs.files]
        forms = {"free": (lambda d: (None, *d[1:]), "int32"), "fixed": (tuple, "int32")}
        if names[0] != "pixel_values" and not name.startswith("clip"):
            forms["long"] = (lambda d: (None, None), "int64")
        if meta["kind"] == "decoder":  # of a fixed length its file holds no more places than the text has
            forms = {"long": forms["long"]}
        for form, (dims, integer) in forms.items():
            kept = {**meta, "cases": [c for c in meta.get("cases", ()) if form == "long" or not c.get("insert") and not c["name"].startswith("inserted")]}
            to = lambda n: integer if n in WORDS else "float32"
            given = {n: inputs[n].astype(to(n.split(".")[-1])) if n.split(".")[-1] in names else inputs[n] for n in inputs.files}
            spec = [tf.TensorSpec(dims(inputs[n].shape), getattr(tf, to(n)), name=n) for n in names]
            call = tf.function(lambda *x: {meta["output"]: f(model, weights, *x)}, input_signature=spec)
            for opset in OPSETS:
                folder = out / f"tf_{name}_{form}_op{opset}"
                if wanted and not any(w in folder.name for w in wanted):
                    continue
                folder.mkdir(parents=True, exist_ok=True)
                tf2onnx.convert.from_function(call, input_signature=spec, opset=opset, output_path=str(folder / "model.onnx"))
                session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
                got = session.run(None, {n: given[n] for n in names})[0]
                error = abs(got - found["out"]).max() / abs(found["out"]).max()
                if error > 1e-5:
                    sys.exit(f"{folder.name}: TensorFlow's model is off by {error:.1e} from PyTorch's")
                np.savez(folder / "inputs.npz", **given)
                shutil.copy(source / "gradients.npz", folder)
                (folder / "meta.json").write_text(json.dumps({**kept, "note": f"{name}, tf2onnx, opset {opset}, {form}"}, indent=1))
                print("made", folder.name, flush=True)
    for name in heads(tf, transformers):
        shutil.rmtree(out / name)


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[2])
    if sys.argv[1] == "reference":
        reference(out)
    else:
        export(out, sys.argv[3:])
