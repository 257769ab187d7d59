"""Concept files as the programs that people train with write them: their own scripts and classes are run on tiny random models.

Usage: concepts.py SOURCES OUT
SOURCES holds the trees diffusers (huggingface/diffusers), webui (AUTOMATIC1111/stable-diffusion-webui), sd-scripts (kohya-ss/sd-scripts) and
textual_inversion (rinongal/textual_inversion). diffusers' scripts train for two steps; the web UI's create_embedding and train_embedding
run with a loss of the vectors alone in place of its model; of the others the code that saves is run. OUT gets a folder for each, and
expected.json with what PyTorch and safetensors read in the files.
"""
import contextlib
import importlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import types
from unittest.mock import MagicMock

import diffusers
import numpy as np
import torch
from PIL import Image, ImageFont
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

import diffusion
from diffusion import SD, autoencoder, text_encoder, unet, write_tokenizer

WIDTH, WIDTH_2 = 4, 6  # of the text encoders


def write_models(out):
    """A pipeline of one text encoder and one of two, and pictures."""
    for kind in ("sd", "xl"):
        tok, n = write_tokenizer(out / "words" / kind, "<|endoftext|>", merged=False)
        parts = {"text_encoder": text_encoder(CLIPTextModel, n, WIDTH, 2, "quick_gelu"), "tokenizer": tok, "vae": autoencoder(0.18215), "scheduler": diffusers.DDPMScheduler(**SD)}
        if kind == "sd":
            pipe = diffusers.StableDiffusionPipeline(**parts, unet=unet(4, WIDTH), safety_checker=None, feature_extractor=None, requires_safety_checker=False)
        else:
            net = unet(4, WIDTH + WIDTH_2, addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=12 + 6 * 4, transformer_layers_per_block=1)
            pipe = diffusers.StableDiffusionXLPipeline(**parts, unet=net, tokenizer_2=tok, text_encoder_2=text_encoder(CLIPTextModelWithProjection, n, WIDTH_2, 2, "gelu"))
        pipe.save_pretrained(out / kind)
    (out / "pictures").mkdir()
    for i in range(2):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(out / "pictures" / f"{i}.png")


def train(script, models, kind, name, *args):
    """Runs a script of diffusers for two steps, in OUT, so that it writes into the folder NAME there."""
    command = [sys.executable, __file__, "run", script, "--pretrained_model_name_or_path", models / kind, "--output_dir", name, "--resolution", "32", "--max_train_steps", "2", "--train_batch_size", "1", "--seed", "1", *args]
    subprocess.run([str(c) for c in command], cwd=models / "out", check=True, stdout=subprocess.DEVNULL)


def run_script(script, args):
    sys.argv = [script, *args]
    sys.path.insert(0, str(pathlib.Path(script).parent))
    torch.set_num_threads(1)
    exec(compile(pathlib.Path(script).read_text(), script, "exec"), {"__name__": "__main__", "__file__": script})


def run_diffusers(source, models):
    plain = ["--train_data_dir", models / "pictures", "--placeholder_token", "<mug>", "--initializer_token", "cat", "--repeats", "2", "--save_steps", "1"]
    examples = source / "examples"
    inversion = examples / "textual_inversion"
    train(inversion / "textual_inversion.py", models, "sd", "diffusers", *plain, "--num_vectors", "2", "--learning_rate", "1e-2")
    train(inversion / "textual_inversion.py", models, "sd", "diffusers-bin", *plain, "--no_safe_serialization")
    train(inversion / "textual_inversion_sdxl.py", models, "xl", "diffusers-xl", *plain, "--num_vectors", "2")
    train(examples / "research_projects/multi_token_textual_inversion/textual_inversion.py", models, "sd", "diffusers-multi", *plain)
    pivotal = ["--instance_data_dir", models / "pictures", "--instance_prompt", "a photo of TOK", "--token_abstraction", "TOK", "--train_text_encoder_ti", "--num_new_tokens_per_abstraction", "2"]
    advanced = examples / "advanced_diffusion_training"
    train(advanced / "train_dreambooth_lora_sd15_advanced.py", models, "sd", "pivotal", *pivotal)
    train(advanced / "train_dreambooth_lora_sdxl_advanced.py", models, "xl", "pivotal-xl", *pivotal)


def run_webui(source, out):
    """create_embedding and two steps of train_embedding, which saves at each step and hides the vectors in a picture."""
    package = types.ModuleType("modules")
    package.__path__ = [str(source / "modules")]
    sys.modules["modules"] = package
    for name in ("shared", "devices", "sd_hijack", "processing", "sd_models", "images", "sd_samplers", "sd_hijack_checkpoint", "errors", "hashes", "textual_inversion.dataset", "textual_inversion.logging"):
        setattr(package, name, stub := MagicMock())
        sys.modules["modules." + name] = stub
    sys.modules["torch.utils.tensorboard"] = MagicMock()
    np.product = np.prod  # what NumPy 2 calls it
    code = importlib.import_module("modules.textual_inversion.textual_inversion")
    shared, devices = package.shared, package.devices
    devices.device, devices.cpu, devices.autocast = torch.device("cpu"), torch.device("cpu"), contextlib.nullcontext
    package.images.get_font = lambda size: ImageFont.load_default(max(size, 1))
    package.errors.report.side_effect = lambda *_, **__: sys.exit("train_embedding failed")
    shared.cmd_opts.embeddings_dir = str(out)
    shared.opts = MagicMock(training_enable_tensorboard=False, save_optimizer_state=True, training_write_csv_every=0, save_training_settings_to_txt=False)
    shared.state.interrupted = False
    g = torch.Generator().manual_seed(7)
    shared.sd_model.cond_stage_model.encode_embedding_init_text = lambda text, n: torch.randn(3, WIDTH, generator=g)
    made = pathlib.Path(code.create_embedding("mug", 2, False, "a red mug"))
    made.rename(out / "created.pt")
    embedding = code.Embedding(torch.load(out / "created.pt")["string_to_param"]["*"], "mug", 0)
    package.sd_hijack.model_hijack.embedding_db.word_embeddings = {"mug": embedding}
    package.sd_models.select_checkpoint.return_value = MagicMock(shorthash="6ce0161689", model_name="v1-5")
    shared.sd_model.forward = lambda x, c: (embedding.vec.square().sum(),)
    shared.sd_model.model.conditioning_key = "crossattn"
    data = MagicMock(batch_size=1, gradient_step=1)
    data.__len__.return_value = 2
    package.textual_inversion = sys.modules["modules.textual_inversion"]
    package.textual_inversion.dataset = sys.modules["modules.textual_inversion.dataset"]
    package.textual_inversion.dataset.PersonalizedBase.return_value = data
    package.textual_inversion.dataset.PersonalizedDataLoader.return_value = [MagicMock(), MagicMock()]
    package.processing.process_images.return_value = MagicMock(images=[Image.new("RGB", (96, 96), (200, 120, 80))])
    package.images.save_image.return_value = ("", "")
    template = out / "template.txt"
    template.write_text("[name]\n")
    code.textual_inversion_templates["template.txt"] = code.TextualInversionTemplate("template.txt", str(template))
    code.train_embedding(
        id_task="", embedding_name="mug", learn_rate="0.01", batch_size=1, gradient_step=1, data_root=str(out), log_directory=str(out / "log"), training_width=64, training_height=64,
        varsize=False, steps=3, clip_grad_mode="norm", clip_grad_value="1", shuffle_tags=False, tag_drop_out=0, latent_sampling_method="once", use_weight=False, create_image_every=1,
        save_embedding_every=1, template_filename="template.txt", save_image_with_stored_embedding=True, preview_from_txt2img=False, preview_prompt="", preview_negative_prompt="",
        preview_steps=1, preview_sampler_index=0, preview_cfg_scale=1, preview_seed=1, preview_width=64, preview_height=64)
    for kept in (*(out / "log").rglob("mug-2.pt"), *(out / "log").rglob("mug-2.png")):
        kept.rename(out / kept.name)
    shutil.rmtree(out / "log")
    template.unlink()
    for state in out.glob("*.optim"):
        state.unlink()


class Anything(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands for packages that scripts import and saving does not need."""

    def __init__(self, *packages):
        self.packages = packages

    def find_spec(self, name, path, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in self.packages else None

    def create_module(self, spec):
        return MagicMock(__spec__=spec, __path__=[])

    def exec_module(self, module):
        pass


def rows(n, width, seed):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def run_scripts(source, out):
    sys.meta_path.insert(0, Anything("library", "toml"))
    sys.path.insert(0, str(source))
    one = importlib.import_module("train_textual_inversion").TextualInversionTrainer()
    metadata = {"modelspec.architecture": "stable-diffusion-v1/textual-inversion", "modelspec.title": "mug", "ss_output_name": "mug"}
    one.save_weights(str(out / "mug.safetensors"), [rows(2, WIDTH, 1)], torch.float16, metadata)
    one.save_weights(str(out / "mug.pt"), [rows(2, WIDTH, 2)], torch.bfloat16, metadata)
    one.save_weights(str(out / "full.pt"), [rows(2, WIDTH, 3)], None, metadata)
    two = importlib.import_module("sdxl_train_textual_inversion").SdxlTextualInversionTrainer()
    for ending in (".safetensors", ".pt"):
        two.save_weights(str(out / ("xl" + ending)), [rows(2, WIDTH, 4), rows(2, WIDTH_2, 5)], torch.float16, metadata)


def run_paper(source, out):
    sys.path.insert(0, str(source))
    sys.modules["ldm.data.personalized"] = MagicMock(per_img_token_list=[])
    manager = importlib.import_module("ldm.modules.embedding_manager").EmbeddingManager
    embedder = types.SimpleNamespace(tknz_fn=lambda text: torch.tensor([[101, 265, 102]]), transformer=MagicMock())
    made = manager(embedder, placeholder_strings=["*"], num_vectors_per_token=1)
    made.string_to_param_dict["*"] = torch.nn.Parameter(rows(2, WIDTH, 6))
    made.save(str(out / "embeddings_gs-2.pt"))


def expected(path):
    """A file's tensors and token, by PyTorch, safetensors and Pillow."""
    if path.suffix == ".png":
        import modules.textual_inversion.image_embedding as hidden
        data = hidden.embedding_from_b64(Image.open(path).text["sd-ti-embedding"])
    elif path.suffix == ".safetensors":
        data = load_file(path)
    else:
        data = torch.load(path, weights_only=path.parent.name != "paper")
    token = path.stem
    if "string_to_param" in data:
        token = data.get("name") or token
        data = dict(data["string_to_param"].items())
    tensors = sorted((t for t in data.values() if isinstance(t, torch.Tensor)), key=lambda t: t.shape[-1])
    if len(data) == 1 and next(iter(data)) not in ("*", "emb_params", "clip_l"):
        token = next(iter(data))
    return {"token": token, "rows": [t.detach().float().reshape(-1, t.shape[-1]).tolist() for t in tensors]}


def main(sources, out):
    for path in [*out.glob("*/"), *out.glob("*.json")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with tempfile.TemporaryDirectory() as models:
        models = pathlib.Path(models)
        write_models(models)
        (models / "out").mkdir()
        run_diffusers(sources / "diffusers", models)
        for pattern in ("diffusers*/learned_embeds*", "pivotal*/*_emb.safetensors"):
            for path in (models / "out").glob(pattern):
                if "-steps-" in path.name and not (path.parent.name == "diffusers" and path.name.endswith("-1.safetensors")):
                    continue  # one of the steps' files is like another
                (out / path.parent.name).mkdir(exist_ok=True)
                shutil.copyfile(path, out / path.parent.name / path.name)
    for name, tree, write in (("webui", "webui", run_webui), ("kohya", "sd-scripts", run_scripts), ("paper", "textual_inversion", run_paper)):
        (out / name).mkdir()
        write(sources / tree, out / name)
    found = {str(p.relative_to(out)): expected(p) for p in sorted(out.glob("*/*"))}
    (out / "expected.json").write_text("{\n" + ",\n".join(f"{json.dumps(n)}: {json.dumps(e)}" for n, e in found.items()) + "\n}\n")


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run_script(sys.argv[2], sys.argv[3:])
    else:
        main(*(pathlib.Path(p).resolve() for p in sys.argv[1:]))
