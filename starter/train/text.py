"""Distil the teacher's sentence vectors into a small CLIP-style text tower, with CLIP's kind of tokenizer.

Usage: text.py WORK STEPS
Reads what teacher.py wrote. Writes WORK/tokenizer.json (once: it is kept when it exists) and WORK/text.pt. One thread.
"""
import json, math, os, random, sys, time

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, decoders, trainers
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

import teacher

VOCAB, CONTEXT, WIDTH, LAYERS, DIMS = 8000, 32, 256, 4, 128
TEMPLATES = ["{}"] * 8 + ["a picture of {}", "an emoji of {}", "a drawing of {}", "an icon of {}", "a photo of {}", "a photo of a {}.", "a picture of a {}.", "a drawing of a {}."]
BATCH, RATE, BUCKETS = 256, 1.5e-3, 4


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
    tok.post_processor = processors.RobertaProcessing(("<|endoftext|>", end), ("<|startoftext|>", start), trim_offsets=False, add_prefix_space=False)
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
    """The tower: CLIP's own architecture, small."""
    return CLIPTextModelWithProjection(
        CLIPTextConfig(vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=WIDTH // 32,
                       max_position_embeddings=CONTEXT, projection_dim=DIMS, bos_token_id=VOCAB - 2, eos_token_id=VOCAB - 1, pad_token_id=VOCAB - 1, attn_implementation="eager")
    )


def encode(tok, lines):
    """Token ids of each line, cut to the window with its end token kept."""
    ids = [e.ids for e in tok.encode_batch(lines)]
    return [i if len(i) <= CONTEXT else i[: CONTEXT - 1] + [VOCAB - 1] for i in ids]


def pad(ids):
    out = torch.full((len(ids), max(map(len, ids))), VOCAB - 1)
    for row, i in enumerate(ids):
        out[row, : len(i)] = torch.tensor(i)
    return out


def embed(model, ids, buckets=BUCKETS):
    """Unit vectors [len(ids), DIMS]; lines of like length share a forward pass, so that little padding is computed."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    size = math.ceil(len(ids) / buckets)
    chunks = [order[i : i + size] for i in range(0, len(order), size)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        e = torch.cat([model(input_ids=pad([ids[i] for i in c])).text_embeds for c in chunks]).float()
    return F.normalize(e[torch.tensor(order).argsort()], dim=-1)


def start_from_words(model, tok, work):
    """Give each token the teacher's vector for its own letters, turned to WIDTH numbers: a start that knows words."""
    path = f"{work}/token_start.npy"
    if not os.path.exists(path):
        np.save(path, teacher.embed([tok.decode([i]).strip() or "." for i in range(VOCAB)]))
    v = torch.from_numpy(np.load(path))
    v = v - v.mean(0)
    v = v @ torch.linalg.svd(v, full_matrices=False).Vh[:WIDTH].T
    model.text_model.embeddings.token_embedding.weight.data.copy_(0.05 * v / v.std())


def groups_of(lines):
    """Index lists to draw from, with their shares: class-like names, English names and tags, all of the pictures', everything."""
    texts, english = lines["texts"], lines["english"]
    own = [i for i in range(lines["own"]) if texts[i] == english[lines["target"][i]]]
    names = set(lines["names"])
    return [[i for i in range(len(texts)) if texts[i] in names], own, range(lines["own"]), range(len(texts))], (0.35, 0.3, 0.2, 0.15)


def main(work, steps):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    lines = json.load(open(f"{work}/teacher.json"))
    Z = torch.tensor(np.load(f"{work}/teacher.npz")["Z"])
    texts, target = lines["texts"], torch.tensor(lines["target"])
    groups, shares = groups_of(lines)
    bank = Z[target[list(groups[1])].unique()]  # the English names that a line is told apart from
    if not os.path.exists(f"{work}/tokenizer.json"):
        train_tokenizer([texts[i] for i in groups[1]] * 4 + texts + TEMPLATES * 50).save(f"{work}/tokenizer.json")
    tok = Tokenizer.from_file(f"{work}/tokenizer.json")
    model = build()
    start_from_words(model, tok, work)
    opt = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05, betas=(0.9, 0.98))
    begin, mean = time.time(), None
    print(sum(p.numel() for p in model.parameters()) / 1e6, "M;", [len(g) for g in groups], flush=True)
    for step in range(1, steps + 1):
        for g in opt.param_groups:
            g["lr"] = RATE * min(1, step / 200) * 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-6
        index = [random.choice(groups[k]) for k in random.choices(range(4), shares, k=BATCH)]
        e = embed(model, encode(tok, [random.choice(TEMPLATES).format(texts[i]) for i in index]))
        t = Z[target[index]]
        cosine, wanted = (e * t).sum(1).mean(), (20 * t @ bank.T).softmax(1)
        scores = 20 * e @ bank.T
        loss = 3 * (1 - cosine) - 0.5 * (wanted * scores.log_softmax(1)).sum(1).mean()
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        now = np.array([cosine.item(), (scores.argmax(1) == wanted.argmax(1)).float().mean().item()])
        mean = now if mean is None else 0.97 * mean + 0.03 * now
        if step % 100 == 0:
            elapsed = time.time() - begin
            print(f"step {step} {elapsed:.0f}s cosine {mean[0]:.3f} nearest of {len(bank)} {mean[1]:.3f} {step * BATCH / elapsed:.0f}/s", flush=True)
    torch.save(model.state_dict(), f"{work}/text.pt")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
