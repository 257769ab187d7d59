"""Train the captioner's decoder: the frozen image tower's 26 states -> words, in transformers' GPT-2 with cross attention.

Usage: captioner.py WORK BUNDLE MINUTES [FROM]
Reads WORK/seen*.npy (seen.py) and BUNDLE's tokenizer; writes WORK/captioner.pt, the running mean of the weights, every few
minutes. One thread. A line is a caption, or a question with its answer, of which the answer alone is learned. With the weights
FROM it goes on from there, at a lower rate: from a file of torch.save with more German, from a captioner's folder with more questions
to be answered by yes or no.
"""
import glob, os, random, sys, time

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

import captions
import half

VOCAB, WINDOW, WIDTH, LAYERS, HEADS = 8000, 64, 256, 3, 8
START, END = VOCAB - 2, VOCAB - 1
BATCH, SMOOTHING, MEMORY = 128, 0.05, 0.998
FIRST = dict(rate=1e-3, shares=(45, 7, 10, 12, 8, 8, 10))  # of captions.LINES
THEN = dict(rate=6e-4, shares=(42, 4, 26, 14, 5, 4, 5))
LAST = dict(rate=8e-4, shares=(20, 2, 14, 8, 3, 3, 50))


def build():
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_positions=WINDOW, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_inner=3 * WIDTH, add_cross_attention=True, attn_pdrop=0, embd_pdrop=0,
                                      bos_token_id=START, eos_token_id=END, attn_implementation="eager"))


class Views:
    """The cached states of the trained pictures: each row in each view."""

    def __init__(self, work, count):
        self.caches = [np.load(p, mmap_mode="r")[:count] for p in sorted(glob.glob(f"{work}/seen?.npy"))]

    def draw(self, index):
        return torch.from_numpy(np.stack([random.choice(self.caches)[i] for i in index]).astype("f4"))


def lines(tokenizer, texts):
    """(opening, wanted) pairs -> ids [b,s] padded with the end, and the labels of the places before each id (-100: not learned)."""
    pairs = [(tokenizer.encode(a, add_special_tokens=False).ids if a else [], tokenizer.encode(b, add_special_tokens=False).ids) for a, b in texts]
    rows = [[START, *a, *b, END][:WINDOW] for a, b in pairs]
    ids = torch.full((len(rows), max(map(len, rows))), END)
    labels = torch.full_like(ids, -100)
    for i, (row, (a, _)) in enumerate(zip(rows, pairs)):
        ids[i, : len(row)] = torch.tensor(row)
        labels[i, len(a) : len(row) - 1] = torch.tensor(row[1 + len(a) :])
    return ids[:, :-1], labels[:, :-1]


def main(work, bundle, minutes, start=None):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    meta = captions.load(work)
    rows = captions.trained(meta)
    views, tokenizer, model = Views(work, len(rows)), Tokenizer.from_file(f"{bundle}/tokenizer.json"), build()
    tokenizer.no_truncation()
    phase = FIRST
    if start and os.path.isdir(start):
        phase, weights = LAST, half.stored(onnx.load(f"{start}/decoder_model_merged.onnx").graph)
        model.transformer.load_state_dict({name.removeprefix("decoder.transformer.").removesuffix("_merged_0"): w for name, w in weights.items()})
    elif start:
        phase = THEN
        model.load_state_dict(torch.load(start))
    choices = torch.tensor([tokenizer.encode(word, add_special_tokens=False).ids[0] for word in ("yes", "no")])
    running = torch.optim.swa_utils.AveragedModel(model, avg_fn=lambda mean, new, n: mean + (1 - min(MEMORY, (1 + n) / (10 + n))) * (new - mean))
    decayed, plain = [p for p in model.parameters() if p.ndim > 1], [p for p in model.parameters() if p.ndim <= 1]
    opt = torch.optim.AdamW([dict(params=decayed, weight_decay=0.05), dict(params=plain, weight_decay=0)], lr=phase["rate"], betas=(0.9, 0.98))
    print(sum(p.numel() for p in model.parameters()) / 1e6, "M;", len(rows), "pictures,", len(views.caches), "views", flush=True)
    begin, average, step, saved = time.time(), None, 0, 0
    while (share := (time.time() - begin) / 60 / minutes) < 1:
        step += 1
        for g in opt.param_groups:
            g["lr"] = phase["rate"] * min(1, step / 100, 2 * (1 - share)) + 1e-6
        index = random.choices(range(len(rows)), k=BATCH)
        ids, labels = lines(tokenizer, [captions.say(meta, rows[i], random, phase["shares"]) for i in index])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = model.transformer(input_ids=ids, encoder_hidden_states=views.draw(index), use_cache=False).last_hidden_state
            logits = model.lm_head(states[labels >= 0])
        labels = labels[labels >= 0]
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=SMOOTHING)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        running.update_parameters(model)
        right, chosen = (logits.argmax(-1) == labels).float(), torch.isin(labels, choices)
        now = np.array([loss.item(), right.mean().item(), right[chosen].mean().item() if chosen.any() else 0.5])
        average = now if average is None else 0.98 * average + 0.02 * now
        elapsed = time.time() - begin
        if step % 50 == 0:
            print(f"step {step} {elapsed:.0f}s loss {average[0]:.3f} tokens right {average[1]:.3f}, yes or no {average[2]:.3f} {step * BATCH / elapsed:.0f}/s", flush=True)
        if elapsed - saved > 240:
            saved = elapsed
            torch.save(running.module.state_dict(), f"{work}/captioner.pt")
    torch.save(running.module.state_dict(), f"{work}/captioner.pt")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), *sys.argv[4:])
