"""Writes the tokenizer's golden files: 2,000 multilingual strings and their ids by Python's `tokenizers`.

Usage: golden.py EMOJIBASE_DATA TOKENIZER_JSON
Needs tokenizers and open_clip_torch (for the real CLIP vocabulary, MIT). Strings: emojibase-data labels (MIT) and edge cases.
"""
import glob, gzip, importlib.util, json, os, random, sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

HERE = os.path.dirname(os.path.abspath(__file__))
EDGES = ["", " ", "a  b\tc\nd", "It's we'll I'D they'RE", "<|endoftext|>", "<|ENDOFTEXT|>", "x<|startoftext|>y", "İstanbul ISTANBUL ı", "ΑΣ ς", "e\u0301 é", "日本語テスト", "한국어", "ﬁ ½ ²", "👩‍👩‍👧‍👦 👍🏽", "\u00a0nbsp\u2003em", "\u200bzero\u200dwidth", "שלום עולם", "नमस्ते", "ab12cd34", "!!??--__", "\x00\x07", "ǅ ß ẞ", "don't'd", "…—“”"]


def strings(emojibase):
    out = list(EDGES)
    labels = []
    for f in sorted(glob.glob(emojibase + "/*/data.json")):
        labels += [e["label"] for e in json.load(open(f))]
    r = random.Random(0)
    r.shuffle(labels)
    out += labels[:1500]
    while len(out) < 2000:
        n = r.randrange(1, 24)
        ranges = [(32, 127), (0xA0, 0x250), (0x370, 0x530), (0x5D0, 0x700), (0x900, 0x980), (0x3040, 0x3100), (0x4E00, 0x4F00), (0x1F300, 0x1F650)]
        out.append("".join(chr(r.randrange(*r.choice(ranges))) for _ in range(n)))
    return out


def real_clip():
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
    tok.add_special_tokens([AddedToken("<|startoftext|>", normalized=False), AddedToken("<|endoftext|>", normalized=False)])
    tok.post_processor = processors.RobertaProcessing(("<|endoftext|>", 49407), ("<|startoftext|>", 49406), trim_offsets=False, add_prefix_space=False)
    return tok


def write(name, data):
    with gzip.GzipFile(os.path.join(HERE, name), "wb", mtime=0) as f:
        f.write(data.encode())


def main(emojibase, starter):
    texts = strings(emojibase)
    write("strings.json.gz", json.dumps(texts, ensure_ascii=False))
    clip = real_clip()
    write("clip.json.gz", clip.to_str())
    for name, tok in (("clip", clip), ("starter", Tokenizer.from_file(starter))):
        write(name + "_ids.json.gz", json.dumps([tok.encode(t).ids for t in texts], separators=(",", ":")))


if __name__ == "__main__":
    main(*sys.argv[1:3])
