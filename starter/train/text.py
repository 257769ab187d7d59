"""Distil the teacher's sentence vectors into a small CLIP-style text tower, with CLIP's kind of tokenizer.

Usage: text.py WORK MINUTES
Writes WORK/tokenizer.json (once: it is kept when it exists) and WORK/text.pt. One thread.
"""
import json, math, os, random, sys, time

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, decoders, trainers
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

VOCAB, CONTEXT, WIDTH, LAYERS, DIMS = 8000, 32, 256, 4, 128
TEMPLATES = ["{}"] * 4 + ["a picture of {}", "an emoji of {}", "a drawing of {}", "an icon of {}", "a photo of {}", "a photo of a {}.", "a picture of a {}.", "a drawing of a {}."]
BATCH, RATE = 512, 1e-3


def train_tokenizer(lines):
    """CLIP's layout: lower-cased byte-level BPE with </w>; start and end of text are the two highest ids."""
    tok = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tok.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    pattern = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tok.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=VOCAB - 2, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False))
    tok = with_all_word_ends(tok, alphabet)
    tok.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    start, end = VOCAB - 2, VOCAB - 1
    tok.post_processor = processors.RobertaProcessing(sep=("<|endoftext|>", end), cls=("<|startoftext|>", start), trim_offsets=False, add_prefix_space=False)
    return tok


def with_all_word_ends(tok, alphabet):
    """Every byte must exist as a word's end too, or rare scripts have no ids; they replace the last merges."""
    j = json.loads(tok.to_str())
    vocab = j["model"]["vocab"]
    missing = sorted(c + "</w>" for c in alphabet if c + "</w>" not in vocab)
    dropped = sorted(vocab, key=vocab.get)[VOCAB - 2 - len(missing) :]
    for end, old in zip(missing, dropped):
        vocab[end] = vocab.pop(old)
    gone = set(dropped)
    j["model"]["merges"] = [m for m in j["model"]["merges"] if not gone & {m[0], m[1], "".join(m)}]
    return Tokenizer.from_str(json.dumps(j))


def build():
    return CLIPTextModelWithProjection(
        CLIPTextConfig(vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=WIDTH // 32,
                       max_position_embeddings=CONTEXT, projection_dim=DIMS, bos_token_id=VOCAB - 2, eos_token_id=VOCAB - 1, pad_token_id=VOCAB - 1)
    )


def encode(tok, lines):
    ids = [e.ids for e in tok.encode_batch(lines)]
    ids = [i if len(i) <= CONTEXT else i[: CONTEXT - 1] + [VOCAB - 1] for i in ids]
    out = torch.full((len(ids), max(map(len, ids))), VOCAB - 1)
    for row, i in enumerate(ids):
        out[row, : len(i)] = torch.tensor(i)
    return out


def main(work, minutes):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    teacher = json.load(open(f"{work}/teacher.json"))
    Z = torch.tensor(np.load(f"{work}/teacher.npz")["Z"])
    texts, target = teacher["texts"], torch.tensor(teacher["target"])
    english = [i for i in range(teacher["own"]) if texts[i] == teacher["english"][teacher["target"][i]]]
    groups = [english, range(teacher["own"]), range(len(texts))]  # the pictures' English names, all their texts, everything
    if not os.path.exists(f"{work}/tokenizer.json"):
        train_tokenizer([texts[i] for i in english] * 4 + texts + TEMPLATES * 50).save(f"{work}/tokenizer.json")
    tok = Tokenizer.from_file(f"{work}/tokenizer.json")
    model = build()
    opt = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05, betas=(0.9, 0.98))
    begin, step, mean = time.time(), 0, None
    print(sum(p.numel() for p in model.parameters()) / 1e6, "M;", len(english), "English names", flush=True)
    while (elapsed := time.time() - begin) < minutes * 60:
        for g in opt.param_groups:
            g["lr"] = RATE * min(1, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * elapsed / minutes / 60)) + 1e-6
        index = [random.choice(groups[k]) for k in random.choices(range(3), (0.4, 0.3, 0.3), k=BATCH)]
        lines = [random.choice(TEMPLATES).format(texts[i]) for i in index]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            e = model(input_ids=encode(tok, lines)).text_embeds
        e, t = F.normalize(e.float(), dim=-1), Z[target[index]]
        cosine, scores = (e * t).sum(1).mean(), 20 * e @ t.T
        same = (target[index][:, None] == target[index][None]).float()
        contrast = -(same / same.sum(1, keepdim=True) * scores.log_softmax(1)).sum(1).mean()
        loss = (1 - cosine) * 3 + 0.3 * contrast
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        step += 1
        now = np.array([cosine.item(), (scores.argmax(1) == torch.arange(BATCH)).float().mean().item()])
        mean = now if mean is None else 0.97 * mean + 0.03 * now
        if step % 50 == 0:
            print(f"step {step} {elapsed:.0f}s cosine {mean[0]:.3f} match {mean[1]:.3f} {step * BATCH / elapsed:.0f}/s", flush=True)
        if step % 500 == 0:
            torch.save(model.state_dict(), f"{work}/text.pt")
    torch.save(model.state_dict(), f"{work}/text.pt")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
