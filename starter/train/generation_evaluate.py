"""Measure the captioner and the painter as they are committed, with ONNX Runtime.

Usage: generation_evaluate.py WORK STARTER OUT.json SHEET.png [PARTS]     PARTS, "captioner painter": what is measured anew
STARTER is the folder that holds bundle, captioner and painter. Of the captioner: names, kinds and yes-or-no answers of pictures in
two styles that it has never seen, and of concepts it has never seen. Of the painter: CLIP scores under the dual encoder beside
those of the vendors' own drawings and of the same pictures under another's text, the denoising loss, and a sheet of samples.
"""
import json, os, random, sys

import numpy as np
import onnxruntime
import torch
from diffusers import DDIMScheduler
from PIL import Image
from pycocoevalcap.cider.cider import Cider
from tokenizers import Tokenizer

import captions
import painter
import tokens
import vae

COUNT, DRAWN, NOISED, BATCH, LONGEST = 400, 48, 240, 24, 40
SEEN = ["a flat drawing of a red heart", "a 3d drawing of a grinning face", "a simple drawing of the flag of France", "a shaded drawing of a banana",
        "a monochrome drawing of a cat face", "a flat drawing of a house on a blue background", "a smooth drawing of an evergreen tree", "a high contrast drawing of an umbrella",
        "a 3d drawing of an automobile", "a flat drawing of sunglasses on a yellow background", "an old drawing of a hamburger", "a bright drawing of a tropical fish"]
UNSEEN = ["a flat drawing of a blue heart", "a 3d drawing of a panda", "a shaded drawing of a green apple", "a flat drawing of a basketball"]


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Captioner:
    """Greedy answers of the committed files, token by token with the cache."""

    def __init__(self, folder):
        self.encoder, self.decoder = session(f"{folder}/encoder_model.onnx"), session(f"{folder}/decoder_model_merged.onnx")
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        ends = json.load(open(f"{folder}/generation_config.json"))
        self.start, self.end = ends["decoder_start_token_id"], ends["eos_token_id"]
        self.past = [i.name for i in self.decoder.get_inputs() if i.name.startswith("past")]
        self.shape = next(i.shape for i in self.decoder.get_inputs() if i.name.startswith("past"))

    def see(self, pixels):
        return self.encoder.run(["last_hidden_state"], {"pixel_values": pixels})[0]

    def say(self, states, opening=""):
        """What is said of states [b,26,256] after one opening."""
        said = np.tile([self.start, *self.tokenizer.encode(opening, add_special_tokens=False).ids], (len(states), 1))
        front = said.shape[1]
        empty = np.zeros((len(states), self.shape[1], 0, self.shape[3]), "f4")
        past, ids, done = {name: empty for name in self.past}, said, np.zeros(len(states), bool)
        while said.shape[1] - front < LONGEST and not done.all():
            logits, *present = self.decoder.run(None, {"input_ids": ids, "encoder_hidden_states": states, "use_cache_branch": np.array([front != said.shape[1]]), **past})
            past = dict(zip(self.past, present))
            ids = np.where(done, self.end, logits[:, -1].argmax(-1))[:, None]
            done |= ids[:, 0] == self.end
            said = np.concatenate([said, ids], 1)
        return [self.tokenizer.decode(row[front:].tolist(), skip_special_tokens=True).strip() for row in said]


class Painter:
    """Pictures of the committed files."""

    def __init__(self, folder):
        self.words, self.unet, self.encoder, self.decoder = (session(f"{folder}/{part}/model.onnx") for part in ("text_encoder", "unet", "vae_encoder", "vae_decoder"))
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer/tokenizer.json")
        self.tokenizer.enable_truncation(painter.CONTEXT)
        self.tokenizer.enable_padding(length=painter.CONTEXT, pad_id=self.tokenizer.token_to_id("<|endoftext|>"), pad_token="<|endoftext|>")
        self.scheduler = DDIMScheduler(**{k: v for k, v in json.load(open(f"{folder}/scheduler/scheduler_config.json")).items() if not k.startswith("_")})

    def states(self, texts):
        return self.words.run(["last_hidden_state"], {"input_ids": np.array([e.ids for e in self.tokenizer.encode_batch(texts)], np.int32)})[0]

    def draw(self, texts, seed=0, steps=painter.STEPS, guidance=painter.GUIDANCE):
        """Bytes [n,64,64,3]."""
        out, noise = [], torch.Generator().manual_seed(seed)
        for i in range(0, len(texts), BATCH):
            some = list(texts[i : i + BATCH])
            states = self.states([""] * len(some) + some)
            x = torch.randn(len(some), 4, 16, 16, generator=noise)
            self.scheduler.set_timesteps(steps)
            for t in self.scheduler.timesteps:
                given = dict(sample=torch.cat([x, x]).numpy(), timestep=np.full(2 * len(some), int(t)), encoder_hidden_states=states)
                empty, asked = torch.from_numpy(self.unet.run(None, given)[0]).chunk(2)
                x = self.scheduler.step(empty + guidance * (asked - empty), t, x).prev_sample
            y = self.decoder.run(None, {"latent_sample": x.numpy()})[0]
            out.append(((np.clip(y, -1, 1) + 1) * 127.5).round().astype(np.uint8).transpose(0, 2, 3, 1))
        return np.concatenate(out)

    def loss(self, pictures, texts):
        """The denoising loss of pixels [n,3,64,64] under their texts, each at one timestep with one noise, which are the same at every call."""
        given, total = torch.Generator().manual_seed(1), 0.0
        timesteps = ((torch.arange(len(texts)) + 0.5) * 1000 / len(texts)).long()[torch.randperm(len(texts), generator=given)]
        for i in range(0, len(texts), BATCH):
            x, t = torch.from_numpy(self.encoder.run(None, {"sample": pictures[i : i + BATCH].numpy()})[0][:, : vae.LATENTS]), timesteps[i : i + BATCH]
            noise = torch.randn(x.shape, generator=given)
            noised, v = self.scheduler.add_noise(x, noise, t), self.scheduler.get_velocity(x, noise, t)
            got = self.unet.run(None, dict(sample=noised.numpy(), timestep=t.numpy(), encoder_hidden_states=self.states(list(texts[i : i + BATCH]))))[0]
            total += float(((torch.from_numpy(got) - v) ** 2).mean((1, 2, 3)).sum())
        return total / len(texts)


class Judge:
    """The dual encoder: CLIP scores 2.5 max(cos, 0) (Hessel et al. 2021, arXiv:2104.08718) of pictures and texts."""

    def __init__(self, bundle):
        self.image, self.text, self.tokenizer = session(f"{bundle}/onnx/vision_model.onnx"), session(f"{bundle}/onnx/text_model.onnx"), Tokenizer.from_file(f"{bundle}/tokenizer.json")

    def images(self, pictures):
        x = torch.stack([torch.from_numpy(np.asarray(Image.fromarray(p).resize((tokens.SIDE,) * 2, Image.BICUBIC)).copy()) for p in pictures]).permute(0, 3, 1, 2) / 255
        e = np.concatenate([self.image.run(["image_embeds"], {"pixel_values": ((x[i : i + BATCH] - tokens.MEAN) / tokens.STD).numpy()})[0] for i in range(0, len(x), BATCH)])
        return e / np.linalg.norm(e, axis=1, keepdims=True)

    def texts(self, texts):
        e = np.concatenate([self.text.run(["text_embeds"], {"input_ids": np.array([self.tokenizer.encode(t).ids[: painter.CONTEXT]])})[0] for t in texts])
        return e / np.linalg.norm(e, axis=1, keepdims=True)


def score(images, texts):
    return round(float((2.5 * np.clip((images * texts).sum(1), 0, None)).mean()), 3)


def captioned(captioner, meta, rows, pictures, rng):
    """Figures of some rows, in percent, but CIDEr-D."""
    states = []
    for i in range(0, len(rows), BATCH):
        rgba = torch.from_numpy(pictures[rows[i : i + BATCH]]).permute(0, 3, 1, 2).float() / 255
        states.append(captioner.see(((tokens.on_white(rgba) - tokens.MEAN) / tokens.STD).numpy()))
    states = np.concatenate(states)
    ask = lambda text: [a for i in range(0, len(states), BATCH) for a in captioner.say(states[i : i + BATCH], text)]
    concepts = [meta["concepts"][meta["rows"][r]["hex"]] for r in rows]
    # Names as the tokenizer writes them: lower case, blanks around what is no letter.
    plain = lambda text: captioner.tokenizer.decode(captioner.tokenizer.encode(text, add_special_tokens=False).ids).strip()
    names = [plain(captions.thing(c["label"])) for c in concepts]
    said, captioned = ask("what is this?"), ask("")
    right = np.array([a == b for a, b in zip(said, names)])
    inside = np.array([c.endswith(" of " + n) for c, n in zip(captioned, names)])
    cider = Cider().compute_score({i: [n] for i, n in enumerate(names)}, {i: [s] for i, s in enumerate(said)})[0]
    kinds = np.array([a == captions.KINDS[c["group"]] for a, c in zip(ask("what kind of thing is it?"), concepts)])
    sub = {plain(captions.thing(c["label"])): c["sub"] for c in meta["concepts"].values()}
    near = np.array([sub.get(s) == c["sub"] for s, c in zip(said, concepts)])
    styles = [(a, plain(captions.STYLES[meta["rows"][r]["style"]])) for a, r in zip(ask("what style is it?"), rows) if meta["rows"][r]["style"] in captions.STYLES]
    yes = []
    for r, s in zip(range(len(rows)), states):
        truth = rng.random() < 0.5
        asked = concepts[r] if truth else rng.choice([c for c in concepts if c["label"] != concepts[r]["label"]])
        yes.append(captioner.say(s[None], f"is it {captions.thing(asked['label'])}?")[0] == ("yes" if truth else "no"))
    percent = lambda x: round(100 * float(np.mean(x)), 1)
    examples = [dict(name=n, said=s, caption=c) for n, s, c in list(zip(names, said, captioned))[:12]]
    return dict(pictures=len(rows), name=percent(right), name_in_caption=percent(inside), subgroup=percent(near), cider_d=round(float(cider), 2), kind=percent(kinds),
                style=percent([a == b for a, b in styles]) if styles else None, yes_or_no=percent(yes), examples=examples)


def captioner_figures(work, starter, meta, sets, rng):
    pictures, captioner = np.load(f"{work}/data160/pairs.npz")["x"], Captioner(f"{starter}/captioner")
    return {name: captioned(captioner, meta, sorted(rng.sample(rows, min(COUNT, len(rows)))), pictures, rng) for name, rows in sets.items()}


def painter_figures(work, starter, meta, sets, rng, sheet):
    judge, maker, small, rows = Judge(f"{starter}/bundle"), Painter(f"{starter}/painter"), vae.pictures(work), meta["rows"]
    figures = {}
    for name in ("trained pictures", "seen styles, unseen concepts"):
        chosen, noised = rng.sample(sets[name], DRAWN), random.Random(1).sample(sets[name], NOISED)
        thing = lambda r: captions.thing(meta["concepts"][rows[r]["hex"]]["label"])
        text = lambda r: f"{'an' if captions.STYLES[rows[r]['style']][0] in 'aeiou' else 'a'} {captions.STYLES[rows[r]['style']]} drawing of {thing(r)}"
        on_white = lambda chosen: vae.on(small[chosen], torch.ones(len(chosen), 3))
        things, made, real = [thing(r) for r in chosen], maker.draw([text(r) for r in chosen]), on_white(chosen)
        real = (real.permute(0, 2, 3, 1).numpy() * 127.5 + 127.5).round().astype(np.uint8)
        t, m, v = judge.texts([f"a drawing of {x}" for x in things]), judge.images(made), judge.images(real)
        figures[name] = dict(
            denoising_loss=round(maker.loss(on_white(noised), [text(r) for r in noised]), 4),
            pictures=len(chosen), clip_score=score(m, t), under_anothers_text=score(m, np.roll(t, 1, 0)), of_the_vendors=score(v, t),
            own_text_first=round(100 * float(((m @ t.T).argmax(1) == np.arange(len(t))).mean()), 1), of_the_vendors_own_text_first=round(100 * float(((v @ t.T).argmax(1) == np.arange(len(t))).mean()), 1),
            cosine_to_the_vendors=round(float((m * v).sum(1).mean()), 3), cosine_to_anothers=round(float((m * np.roll(v, 1, 0)).sum(1).mean()), 3))
    grid = maker.draw(SEEN + UNSEEN).reshape(2, 8, 64, 64, 3).transpose(0, 2, 1, 3, 4).reshape(128, 512, 3)
    Image.fromarray(grid).save(sheet, optimize=True)
    return figures


def main(work, starter, out, sheet, parts="captioner painter"):
    torch.set_num_threads(1)
    rng, meta = random.Random(0), captions.load(work)
    drawn = lambda styles, held: [i for i, r in enumerate(meta["rows"]) if r["style"] in styles and r["hex"] and meta["concepts"][r["hex"]]["held"] == held]
    sets = {"unseen styles, seen concepts": drawn(("openmoji", "emojione1"), False), "unseen styles, unseen concepts": drawn(("openmoji", "emojione1"), True),
            "seen styles, unseen concepts": drawn(captions.STYLES, True), "trained pictures": captions.trained(meta)}
    figures = json.load(open(out)) if os.path.exists(out) else {}
    if "captioner" in parts:
        figures["captioner"] = captioner_figures(work, starter, meta, sets, rng)
    if "painter" in parts:
        figures["painter"] = painter_figures(work, starter, meta, sets, rng, sheet)
    with open(out, "w") as f:
        f.write(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
