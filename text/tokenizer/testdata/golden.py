"""Writes the tokenizers' golden files: what Python's `tokenizers` makes of strings of many languages.

Usage: golden.py WORDPIECE_TOKENIZER_JSON
Needs tokenizers, sentencepiece, protobuf and open_clip_torch. strings.json.gz (emojibase-data's labels, MIT, and random
characters) is read; more.json.gz (what is hard, and random) is written. CLIP's vocabulary (MIT) and BERT's (Apache-2.0) are
the real ones. The other vocabularies are small and trained here, with the pipelines that transformers' converters make.
"""
import gzip, importlib.util, io, json, os, random, sys

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as spm
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
HARD = ["a  b", "   ", "\n\n\n", " \n x\t\t y  ", "tail   ", "it's John's; we've, they'll, I'd, I'm, he's're", "'s", " 's", "x 's", "e\u0301e\u0323\u0302 \u1ec7 q\u0323\u0307 q\u0307\u0323", "\u0301x", "각각 가\u11a8", "\u0958 \u0f73 \u0f75 \u2126 \u212b \ufb2f", "ｆｕｌｌ ﬁ ﷺ ㍿ ½ ² ①", "カ\u3099 ｶﾞ が", "a\u0300\u0301\u0302b", "\ufeffbom\u200b\u00ad", "tab\tnew\nline\r\nret\rvt\vff\f", "x" * 130, "中文字符mixed英文", "นี่คือภาษาไทย", "हिन्दी क्षत्रिय", "𝕬𝖇𝖈 𝟙𝟚", "🏳️‍🌈🇩🇪👍🏽", "İıŞş ΑΣΣ ẞß Ⓐⓐ", "▁a ▁▁b", "<0x41><0xE4>", "[MASK] [CLS] a[SEP]b", "<bos>a<eos> <unused0>", "</s> a </s>b", "<pad><unk>", "word<extra_id_0>word", "fn main() { println!(\"{}\", x+1); }", "3.14159 1,000,000 12345", "٣٤٥ ௧௨ Ⅷ", "a_b-c.d", "http://x.y/z?q=1&r=%20", "do not . , ! ? n't 'm ' ve", "\u0085\u2028\u2029\u1680\u3000", "\ue000\U0010fffd\ufffd", "\u0001\u0007\u007f\u0090", "A\u030a\u0308 \u1e69\u0323", "Ａ！", "e\u0301" * 12, "<|endoftext|><|endoftext|>  <|endoftext|>", "ＡＢＣ　ｄｅｆ", "ŉ ǰ ﬀ ﬄ և", "\u0345\u0399 ᾳ ᾼ", "𠀀𪛖 ⺀", "l·l L'été d’août", "x\u0000y", "ไทยne\u0e33", "\u0e33\u0eb3", "ಕನ್ನಡ", "עִבְרִית", "العَرَبِيَّة", "Việt Nam ậ ẫ ữ"]
RANGES = [(32, 127), (32, 127), (0xA0, 0x250), (0x300, 0x340), (0x370, 0x530), (0x5B0, 0x700), (0x900, 0x980), (0xE00, 0xE80), (0x1100, 0x1200), (0x1E00, 0x2000), (0x2000, 0x2070), (0x2100, 0x2200), (0x3040, 0x3100), (0x3300, 0x3400), (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0xF900, 0xFB50), (0xFE70, 0xFFF0), (0x1D400, 0x1D500), (0x1F300, 0x1F650)]
GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def more():
    r = random.Random(1)
    out = list(HARD)
    while len(out) < 400:
        out.append("".join(chr(r.randrange(*r.choice(RANGES))) if r.random() < 0.85 else r.choice([" ", "  ", "\n", "'s", "<bos>", "</s>", "[SEP]"]) for _ in range(r.randrange(1, 20))))
    return out


def write(name, data):
    with gzip.GzipFile(os.path.join(HERE, name), "wb", mtime=0) as f:
        f.write(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode())


def read(name):
    return json.load(gzip.open(os.path.join(HERE, name)))


def special(*contents, **kw):
    return [AddedToken(c, special=True, normalized=False, **kw) for c in contents]


def clip():
    """CLIP's tokenizer from the merges that open_clip ships, put together as transformers' converter does."""
    folder = importlib.util.find_spec("open_clip").submodule_search_locations[0]  # found, not imported: that needs torchvision
    path = os.path.join(folder, "bpe_simple_vocab_16e6.txt.gz")
    merges = [tuple(m.split()) for m in gzip.open(path).read().decode().split("\n")[1 : 49152 - 256 - 2 + 1]]
    symbols = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    chars = [chr(b) for b in symbols] + [chr(256 + i) for i in range(256 - len(symbols))]
    vocab = chars + [c + "</w>" for c in chars] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    tok = Tokenizer(models.BPE({v: i for i, v in enumerate(vocab)}, merges, unk_token="<|endoftext|>", end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tok.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens(special("<|startoftext|>", "<|endoftext|>"))
    tok.post_processor = processors.RobertaProcessing(("<|endoftext|>", 49407), ("<|startoftext|>", 49406), trim_offsets=False, add_prefix_space=False)
    return tok


def bytelevel(texts, pre, **model):
    tok = Tokenizer(models.BPE(**model))
    tok.pre_tokenizer = pre
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=3000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return tok


def gpt2(texts):
    tok = bytelevel(texts, pre_tokenizers.ByteLevel(add_prefix_space=False))
    tok.add_special_tokens(special("<|endoftext|>"))
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    return tok


def roberta(texts):
    tok = bytelevel(texts, pre_tokenizers.ByteLevel(add_prefix_space=True))
    tok.add_special_tokens(special("<s>", "<pad>", "</s>", "<unk>") + [AddedToken("<mask>", lstrip=True, special=True, normalized=False)])
    tok.post_processor = processors.RobertaProcessing(("</s>", tok.token_to_id("</s>")), ("<s>", tok.token_to_id("<s>")), trim_offsets=True, add_prefix_space=True)
    return tok


def llama3(texts):
    tok = bytelevel(texts, pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(GPT4), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), ignore_merges=True)
    tok.add_special_tokens(special("<|begin_of_text|>"))
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing("<|begin_of_text|> $A", "<|begin_of_text|> $A <|begin_of_text|>:1 $B:1", [("<|begin_of_text|>", tok.token_to_id("<|begin_of_text|>"))])])
    return tok


def sentencepiece_model(texts, kind, **kw):
    out = io.BytesIO()
    lines = [t.replace("\n", " ").replace("\0", " ") for t in texts]
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=out, model_type=kind, num_threads=1, minloglevel=2, hard_vocab_limit=False, **kw)
    proto = spm.ModelProto()
    proto.ParseFromString(out.getvalue())
    return proto


def t5(texts):
    proto = sentencepiece_model(texts, "unigram", vocab_size=3000, character_coverage=0.98, normalization_rule_name="nmt_nfkc", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    extra = [f"<extra_id_{i}>" for i in range(9, -1, -1)]
    tok = Tokenizer(models.Unigram([(p.piece, p.score) for p in proto.pieces] + [(e, 0.0) for e in extra], 2, False))
    tok.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")])
    tok.decoder = decoders.Metaspace(prepend_scheme="always")
    tok.add_special_tokens(special("<pad>", "</s>", "<unk>", *extra))
    tok.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    return tok


def siglip(texts):
    """Lower case and no punctuation, as SigLIP's canonical form; SentencePiece's steps behind it."""
    proto = sentencepiece_model([t.lower() for t in texts], "unigram", vocab_size=3000, character_coverage=0.98, normalization_rule_name="nmt_nfkc", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    tok = Tokenizer(models.Unigram([(p.piece, p.score) for p in proto.pieces], 2, False))
    tok.normalizer = normalizers.Sequence([
        normalizers.Lowercase(), normalizers.Replace(Regex(r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""), ""),
        normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(), normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap),
        normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")])
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tok.decoder = decoders.Metaspace(prepend_scheme="first")
    tok.add_special_tokens(special("</s>", "<unk>", lstrip=True, rstrip=True))
    tok.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    tok.enable_truncation(64)
    tok.enable_padding(length=64, pad_id=1, pad_token="</s>")
    return tok


def merges_of(pieces):
    """The merges of a SentencePiece BPE model: all ways to cut each piece in two, by the pieces' ranks, as transformers does."""
    rank = {p: i for i, (p, _) in enumerate(pieces)}
    merges = []
    for piece, score in pieces:
        local = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in rank and piece[i:] in rank]
        merges += [(l, r, score) for l, r in sorted(local, key=lambda x: (rank[x[0]], rank[x[1]]))]
    return [(l, r) for l, r, _ in sorted(merges, key=lambda m: m[2], reverse=True)]


def sentencepiece_bpe(texts):
    proto = sentencepiece_model(texts, "bpe", vocab_size=3000, character_coverage=0.98, normalization_rule_name="identity", byte_fallback=True, allow_whitespace_only_pieces=True, remove_extra_whitespaces=False, split_digits=True, add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", user_defined_symbols=["<unused0>", "\n\n"])
    pieces = [(p.piece, p.score) for p in proto.pieces]
    vocab = {p: i for i, (p, _) in enumerate(pieces)}
    return models.BPE(vocab, merges_of(pieces), unk_token="<unk>", fuse_unk=True, byte_fallback=True)


def gemma(texts):
    tok = Tokenizer(sentencepiece_bpe(texts))
    tok.normalizer = normalizers.Replace(" ", "▁")
    tok.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tok.add_special_tokens(special("<pad>", "<eos>", "<bos>", "<unk>"))
    tok.add_tokens([AddedToken("<unused0>", normalized=False), AddedToken("\n\n", normalized=False)])
    tok.post_processor = processors.TemplateProcessing("<bos> $A", "<bos> $A <bos>:1 $B:1", [("<bos>", 2)])
    return tok


def llama2(texts):
    tok = Tokenizer(sentencepiece_bpe(texts))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tok.add_special_tokens(special("<eos>", "<bos>", "<unk>"))
    tok.post_processor = processors.TemplateProcessing("<bos> $A", "<bos> $A <bos>:1 $B:1", [("<bos>", 2)])
    return tok


def streamed(tok, ids):
    """What a stream returns for each id, None where it holds back."""
    stream = decoders.DecodeStream(skip_special_tokens=True)
    try:
        return [stream.step(tok, i) for i in ids]
    except Exception:  # it refuses what some decoders take back
        return None


def golden(tok, texts):
    encodings = [tok.encode(t) for t in texts]
    return {
        "ids": [e.ids for e in encodings],
        "offsets": [[x for o in e.offsets for x in o] for e in encodings],
        "decoded": [tok.decode(e.ids) for e in encodings],
        "streamed": [streamed(tok, e.ids) for e in encodings[::20]],
    }


def in_bytes(normalizer=None, pre=None, post=None):
    """A model of bytes alone: the ids spell out the normalised text, and the words are the pre-tokenizer's."""
    tok = Tokenizer(models.BPE({f"<0x{b:02X}>": b for b in range(256)}, [], byte_fallback=True))
    if normalizer:
        tok.normalizer = normalizer
    if pre:
        tok.pre_tokenizer = pre
    if post:
        tok.post_processor = post
    tok.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return tok


def in_words(decoder, words):
    tok = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["?"] + words)}, unk_token="?"))
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tok.decoder = decoder
    return tok


def trained(texts, model, trainer, pre):
    tok = Tokenizer(model)
    tok.pre_tokenizer = pre
    tok.train_from_iterator(texts, trainer)
    return tok


def case(name, tok, texts=None, pairs=False):
    """What comes of a tokenizer's texts, or of each as a pair with the next; texts None are the hard ones."""
    of = texts or HARD
    encodings = [tok.encode(a, b) for a, b in zip(of, of[1:])] if pairs else [tok.encode(t) for t in of]
    return {
        "name": name, "tokenizer": json.loads(tok.to_str()), "texts": texts, "pairs": pairs,
        "ids": [e.ids for e in encodings],
        "offsets": [[x for o in e.offsets for x in o] for e in encodings],
        "words": [[-1 if w is None else w for w in e.word_ids] for e in encodings],
        "segments": [e.type_ids for e in encodings],
        "mask": [e.attention_mask for e in encodings],
        "special": [e.special_tokens_mask for e in encodings],
        "overflow": [[o.ids for o in e.overflowing] for e in encodings],
        "decoded": [tok.decode(e.ids) for e in encodings],
    }


def cut(tok, length, side="right", stride=0, strategy="longest_first", pad=None):
    tok.enable_truncation(length, stride=stride, strategy=strategy, direction=side)
    if pad:
        tok.enable_padding(pad_id=7, pad_type_id=3, pad_token="<0x07>", **pad)
    return tok


def cases(labels):
    n, p, r, d = normalizers, pre_tokenizers, processors, decoders
    lookahead = Regex(r"(?<=a)\s+(?!\S)|\bx++|[[:digit:]]{2}")
    for name, x in {
        "NFC": n.NFC(), "NFD": n.NFD(), "NFKC": n.NFKC(), "NFKD": n.NFKD(), "Lowercase": n.Lowercase(), "Nmt": n.Nmt(), "Prepend": n.Prepend("▁x"),
        "Strip": n.Strip(), "Strip on the left": n.Strip(True, False), "Strip on the right": n.Strip(False, True), "StripAccents": n.Sequence([n.NFD(), n.StripAccents()]),
        "ByteLevel normalizer": n.ByteLevel(), "BertNormalizer": n.BertNormalizer(), "BertNormalizer that only cleans": n.BertNormalizer(True, False, False, False),
        "BertNormalizer that keeps accents": n.BertNormalizer(False, True, False, True), "Replace by nothing": n.Replace(Regex(r"[\p{L}\p{M}]"), ""),
        "Replace with look-around": n.Replace(lookahead, "<é>"), "Replace of a string": n.Replace("e", "ée"), "Replace of classes": n.Replace(Regex(r"[^\w\s]|\d|^a|y$"), "_"),
        "Replace of no words": n.Replace(Regex(r"[\W\d]"), "w"), "Replace of words": n.Replace(Regex(r"\w+"), "w"), "a long sequence": n.Sequence([n.NFKD(), n.StripAccents(), n.Lowercase(), n.Replace(Regex(r"\s+"), " "), n.Strip(), n.NFC(), n.Prepend("▁"), n.Replace(" ", "▁")]),
    }.items():
        yield case(name, in_bytes(normalizer=x))
    yield case("NFKC of compositions", in_bytes(normalizer=n.NFKC()), more()[-100:])
    yield case("NFD of compositions", in_bytes(normalizer=n.NFD()), more()[-100:])
    for name, x in {
        "BertPreTokenizer": p.BertPreTokenizer(), "ByteLevel": p.ByteLevel(False), "ByteLevel with a space": p.ByteLevel(True), "ByteLevel without its expression": p.ByteLevel(True, use_regex=False),
        "Digits": p.Digits(False), "Digits one by one": p.Digits(True), "Metaspace": p.Metaspace(), "Metaspace at first": p.Metaspace(prepend_scheme="first"), "Metaspace never": p.Metaspace(prepend_scheme="never"),
        "Metaspace that does not split": p.Metaspace("_", split=False), "Punctuation": p.Punctuation(), "Punctuation with the next": p.Punctuation("merged_with_next"), "Whitespace": p.Whitespace(), "WhitespaceSplit": p.WhitespaceSplit(),
        "a sequence": p.Sequence([p.WhitespaceSplit(), p.Punctuation("contiguous"), p.Digits(True)]),
        "Split with look-ahead": p.Split(Regex(GPT4), "isolated"), "Split at a string": p.Split("'", "removed"),
    }.items():
        yield case(name, in_bytes(pre=x))
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        for invert in (False, True):
            yield case(f"Split {behavior}{' inverted' if invert else ''}", in_bytes(pre=p.Split(Regex(r"\p{L}|\s"), behavior, invert)))
    template = lambda: r.TemplateProcessing("<0x01> $A <0x02>", "<0x01> $A:3 <0x02>:4 $B:5 <0x02>:6", [("<0x01>", 1), ("<0x02>", 2)])
    for name, x in {
        "TemplateProcessing": template(), "BertProcessing": r.BertProcessing(("<0x02>", 2), ("<0x01>", 1)), "RobertaProcessing": r.RobertaProcessing(("<0x02>", 2), ("<0x01>", 1)),
        "ByteLevel processor": r.ByteLevel(trim_offsets=True), "a sequence of processors": r.Sequence([r.ByteLevel(trim_offsets=True, add_prefix_space=False), template()]), "no processor": None,
    }.items():
        yield case(name, in_bytes(pre=p.ByteLevel(True), post=x), HARD[:12])
        yield case(name + ", pairs", in_bytes(pre=p.ByteLevel(True), post=x), HARD[:12], pairs=True)
    some = ["one two three four", "x", "a b c d e f g h i j k l m n", "", "ab"]
    for name, kw in {
        "cut": dict(length=9), "cut on the left": dict(length=9, side="left"), "cut with a stride": dict(length=9, stride=2), "cut on the left with a stride": dict(length=9, stride=3, side="left"),
        "cut and padded": dict(length=12, pad=dict(length=14)), "padded on the left": dict(length=30, pad=dict(length=20, direction="left")), "padded to a multiple": dict(length=30, pad=dict(pad_to_multiple_of=8)),
    }.items():
        yield case(name, cut(in_bytes(pre=p.WhitespaceSplit(), post=template()), **kw), some)
    for strategy in ("longest_first", "only_first", "only_second"):
        for side in ("left", "right"):
            yield case(f"pairs cut {strategy} on the {side}", cut(in_bytes(pre=p.WhitespaceSplit(), post=template()), 22, side, 2, strategy), ["one two three four", "five six seven x", "a b c d e f g h i j k l m n", "eight nine ten", "one two three four"], pairs=True)
    tok = in_bytes(n.Lowercase(), p.WhitespaceSplit(), template())
    tok.add_tokens([AddedToken("word", single_word=True), AddedToken("[L]", lstrip=True, normalized=False), AddedToken("[R]", rstrip=True, normalized=False), AddedToken("NoRM", normalized=True), AddedToken("[LONG", normalized=False), AddedToken("[LONGER]", normalized=False)])
    tok.add_special_tokens([AddedToken("<S>", special=True, normalized=False), AddedToken("<N>", special=True, normalized=True)])
    yield case("added tokens", tok, ["word swords word, éword word", "a  [L]  b [R]  c", "[R] [L]", " [L][R] [R]", "norm NORM xNoRMx", "[LONG [LONGER] [LONGERX]", "<S>a<s> <N> <n><S>", "[L] [L]", "wordword", ""])
    words = ["##a", "b", "##", "n't", "do", "not", ".", "'", "it", "'s", "▁x", "▁▁y▁", "_", "<0xE6>", "<0x9D>", "<0xB1>", "<0xG0>", "é", "aab", "xx</w>", "</w>y</w>", "Ġa", "ÃĹ", "Ã", "Ġé中"]
    text = ["b ##a do n't it ' 's . do not ## _ it's", "▁x ▁▁y▁ b ▁x", "<0xE6> <0x9D> <0xB1> b <0xE6> <0x9D> é <0xG0> <0xB1>", "aab b aab", "xx</w> b </w>y</w> xx</w>", "Ġa ÃĹ Ã Ã b Ġé中 Ġa é", "", "b"]
    for name, x in {
        "BPEDecoder": d.BPEDecoder(), "ByteFallback": d.ByteFallback(), "ByteLevel decoder": d.ByteLevel(), "Fuse": d.Fuse(), "Metaspace decoder": d.Metaspace(), "Metaspace decoder, never": d.Metaspace(prepend_scheme="never"),
        "Replace decoder": d.Replace(Regex("a+"), "<>"), "Strip decoder": d.Strip("a", 1, 0), "Strip decoder after Fuse": d.Sequence([d.Fuse(), d.Strip("b", 2, 1)]), "WordPiece decoder": d.WordPiece(), "WordPiece decoder without clean-up": d.WordPiece("##", False),
    }.items():
        yield case(name, in_words(x, words), text[:6] if name in ("BPEDecoder", "Strip decoder after Fuse") else text)  # Python's fails on none
    quiet = dict(show_progress=False)
    yield case("BPE with a prefix", trained(labels, models.BPE(unk_token="<unk>", continuing_subword_prefix="##"), trainers.BpeTrainer(vocab_size=400, limit_alphabet=60, special_tokens=["<unk>"], continuing_subword_prefix="##", **quiet), p.Whitespace()))
    for fuse in (False, True):
        yield case(f"BPE with unknown characters{', fused' if fuse else ''}", trained(labels, models.BPE(unk_token="<unk>", fuse_unk=fuse, end_of_word_suffix="</w>"), trainers.BpeTrainer(vocab_size=400, limit_alphabet=60, special_tokens=["<unk>"], end_of_word_suffix="</w>", **quiet), p.Whitespace()))
    yield case("BPE without unknown characters", trained(labels, models.BPE(), trainers.BpeTrainer(vocab_size=400, limit_alphabet=60, **quiet), p.WhitespaceSplit()))
    yield case("WordLevel", trained(labels, models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(vocab_size=200, special_tokens=["<unk>"], **quiet), p.Whitespace()))
    pieces = [("<unk>", 0.0)] + [(f"<0x{b:02X}>", 0.0) for b in range(256)] + [("a", -1.0), ("e", -1.5), ("ab", -2.0), ("x", -2.0), ("xx", -3.0), ("xxxx", -5.0), ("it", -2.5)]
    yield case("Unigram with byte fallback", Tokenizer(models.Unigram(pieces, 0, True)))
    yield case("Unigram without", Tokenizer(models.Unigram(pieces, 0, False)))


def main(wordpiece):
    write("more.json.gz", more())
    texts = read("strings.json.gz") + read("more.json.gz")
    write("cases.json.gz", list(cases(texts[24:1500])))
    made = {"clip": clip(), "wordpiece": Tokenizer.from_file(wordpiece)}
    for make in (gpt2, roberta, llama3, t5, siglip, gemma, llama2):
        made[make.__name__] = make(texts[24:1500])  # labels alone, so that there are unknown characters
    for name, tok in made.items():
        write(name + ".json.gz", json.loads(tok.to_str()))
        write(name + ".golden.json.gz", golden(tok, texts))
    write("starter.golden.json.gz", golden(Tokenizer.from_file(os.path.join(HERE, "../../../starter/bundle/tokenizer.json")), texts))


if __name__ == "__main__":
    main(*sys.argv[1:2])
