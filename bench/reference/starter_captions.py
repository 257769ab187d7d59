"""Writes what transformers' generate says of 50 of the demo's pictures with a captioner's committed files, which onnxruntime runs without a cache.

Usage: starter_captions.py     run anew whenever starter/captioner changes
The test makes the same pictures: each of 96 x 96 pixels on a white ground of the encoder's size, so that nothing is resized.
"""
import hashlib
import io
import json
import pathlib
import zipfile

import numpy as np
import onnxruntime as ort
import torch
import transformers as t
from PIL import Image
from transformers.modeling_outputs import CausalLMOutput

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUNDLE, OUT = ROOT / "starter" / "captioner", ROOT / "generation" / "caption" / "testdata" / "starter.json"
CASES = {"greedy": {}, "beam": {"num_beams": 4}}
QUESTION = "what is this?"


class Decoder(t.PreTrainedModel, t.GenerationMixin):
    """The decoder's file, run on all tokens each time."""
    config_class = t.PreTrainedConfig
    main_input_name = "input_ids"

    def __init__(self, config, session):
        super().__init__(config)
        self.none, self.session = torch.nn.Parameter(torch.zeros(1)), session
        self.generation_config = t.GenerationConfig()

    def forward(self, input_ids, states, **_):
        given = {"input_ids": input_ids.numpy(), "encoder_hidden_states": states.numpy(), "use_cache_branch": np.array([False])}
        for x in self.session.get_inputs():
            if x.name.startswith("past"):
                given[x.name] = np.zeros((len(input_ids), x.shape[1], 0, x.shape[3]), np.float32)
        names = {x.name for x in self.session.get_inputs()}
        return CausalLMOutput(logits=torch.from_numpy(self.session.run(["logits"], {k: v for k, v in given.items() if k in names})[0]))

    def prepare_inputs_for_generation(self, input_ids, states, **_):
        return {"input_ids": input_ids, "states": states}


def digest(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".") and p.name != "foretoken.yaml")
    lines = "".join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n" for p in sorted(files, key=lambda p: p.relative_to(folder).as_posix().encode()))
    return hashlib.sha256(lines.encode()).hexdigest()


def main():
    how = json.loads((BUNDLE / "preprocessor_config.json").read_text())
    config = {k: v for k, v in json.loads((BUNDLE / "generation_config.json").read_text()).items() if v is not None}
    side = how["crop_size"]["height"]
    archive = zipfile.ZipFile(ROOT / "starter" / "demo" / "captions.zip")
    names = sorted(n for n in archive.namelist() if n.startswith("test/") and n.endswith(".png"))[:50]
    pixels = []
    for name in names:
        picture = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
        ground = Image.new("RGB", (side, side), "white")
        ground.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        x = (np.asarray(ground).astype(np.float64) * how["rescale_factor"] - how["image_mean"]) / how["image_std"]
        pixels.append(x.transpose(2, 0, 1).astype(np.float32))
    encoder = ort.InferenceSession(BUNDLE / "encoder_model.onnx")
    states = torch.from_numpy(encoder.run(["last_hidden_state"], {encoder.get_inputs()[0].name: np.stack(pixels)})[0])
    decoder = Decoder(t.PreTrainedConfig(is_decoder=True), ort.InferenceSession(BUNDLE / "decoder_model_merged.onnx"))
    words = t.PreTrainedTokenizerFast(tokenizer_file=str(BUNDLE / "tokenizer.json"))
    start = [config.pop("decoder_start_token_id")]
    ids = {}
    for asked in ("", QUESTION):
        opening = start + words(asked, add_special_tokens=False).input_ids
        for case, given in CASES.items():
            said = []
            for i in range(len(pixels)):
                row = decoder.generate(input_ids=torch.tensor([opening]), states=states[i:i + 1], **{**config, **given, "use_cache": False})[0].tolist()[len(opening):]
                said.append(row)
            ids[f"{case}, {asked}"] = said
            print(case, repr(asked), words.decode(said[0], skip_special_tokens=True), len({tuple(x) for x in said}), "different texts")
    OUT.write_text(json.dumps({"digest": digest(BUNDLE), "pictures": names, "ids": ids}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    with torch.no_grad():
        main()
