"""Writes generation/score/testdata/scores.json: captions, answers and embeddings with the scores of the scorers that
papers use, and captions with the tokens that PTBTokenizer makes of them.

Usage: scores.py VQA OUT.json     where VQA is a checkout of github.com/GT-Vision-Lab/VQA
Needs pycocoevalcap and numpy, and Java for the tokenizer. Texts are drawn by a seed.
"""
import json
import random
import re
import sys

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

random.seed(7)
WORDS = ("a a a the the man woman dog cat red blue bag shoe is on in with and of table sitting standing riding "
         "wooden small big two people street tree").split()


def sentence(most):
    return " ".join(random.choice(WORDS) for _ in range(random.randint(1, most)))


def changed(text):
    """A caption near to a reference: words dropped, replaced, swapped."""
    words = [w for w in text.split() if random.random() > 0.15] or ["a"]
    words = [random.choice(WORDS) if random.random() < 0.15 else w for w in words]
    if len(words) > 2 and random.random() < 0.3:
        words[0], words[1] = words[1], words[0]
    return " ".join(words)


def captions(pairs):
    refs = {i: r for i, (_, r) in enumerate(pairs)}
    made = {i: [h] for i, (h, _) in enumerate(pairs)}
    return {
        "pairs": [{"hypothesis": h, "references": r} for h, r in pairs],
        "bleu": [float(x) for x in Bleu(4).compute_score(refs, made, verbose=0)[0]],
        "rouge_l": [float(x) for x in Rouge().compute_score(refs, made)[1]],
        "cider_d": [float(x) for x in Cider().compute_score(refs, made)[1]],
    }


def corpora():
    many = []
    for _ in range(60):
        refs = [sentence(14)]
        refs += [changed(refs[0]) if random.random() < 0.6 else sentence(14) for _ in range(random.randint(0, 4))]
        many.append((changed(refs[0]) if random.random() < 0.8 else sentence(16), refs))
    return [
        captions(many),
        captions([(r[0], r) for _, r in many[:10]]),  # perfect
        captions([(sentence(2), [sentence(15)]) for _ in range(5)]),  # too short
        captions([("x y z", ["a b c d e"]), ("", ["a b"]), ("a a a a a a", ["a a", "a a a"]), ("a b", ["b a", "a b c"])]),
        captions([("a red bag", ["a red bag on a table", "the bag"])]),  # one image alone: CIDEr-D is 0
    ]


def official(checkout):
    """The challenge's scorer, a file of Python 2, whose only need for it is print."""
    with open(checkout + "/PythonEvaluationTools/vqaEvaluation/vqaEval.py") as f:
        source = re.sub(r"(?m)^(\s*)print (.*)$", r"\1print(\2)", f.read())
    space = {}
    exec(compile(source, "vqaEval.py", "exec"), space)
    return space["VQAEval"]


ANSWERS = [
    "yes", "no", "Yes.", "a dog", "the dog", "dog", "2", "two", "Two dogs", "2 dogs", "1,000", "1000", "3.5", "dont know", "don't know",
    "black and white", "black & white", "black/white", "black-white", "t-shirt", "t shirt", "it's", "its", "none", "0", "zero", "an apple",
    "left, right", "left right", "what?!", "U.S.A.", "usa", "10:30", "10.30", "$5", "5 dollars", "\"stop\"", "stop", "  cat ", "cat\n", "", "a", "the a",
    "1,000 dogs, 2 cats", "e.g. 5.", ".5", "5.", "co-op", "(left)", "at&t", "who's there", "whos there", "somebody'd", "isnt a", "Ten", "x" + "." * 40 + "y",
]


def answers(scorer):
    cases = []
    names = list(ANSWERS)
    contractions = list(scorer(type("V", (), {"getQuesIds": lambda s: []})(), None).contractions)
    for i, c in enumerate(contractions):
        names.append(c if i % 2 else c + " it")
    for _ in range(400):
        pool = random.sample(names, random.randint(1, 4))
        if random.random() < 0.3:
            pool = [pool[0]]
        people = [random.choice(pool) for _ in range(10)]
        cases.append((random.choice(pool + [random.choice(names)]), people))
    cases += [(c, [c, "other"] * 5) for c in contractions]
    out = []
    for i, (answer, people) in enumerate(cases):
        truth = {"answers": [{"answer": a, "answer_id": j} for j, a in enumerate(people)], "question_type": "x", "answer_type": "x"}
        vqa = type("V", (), {"qa": {i: truth}, "getQuesIds": lambda s, i=i: [i]})()
        made = type("R", (), {"qa": {i: {"answer": answer}}})()
        e = scorer(vqa, made, n=12)
        e.updateProgress = lambda p: None
        e.evaluate()
        out.append({"answer": answer, "people": people, "accuracy": e.evalQA[i] / 100})
    e = scorer(type("V", (), {"getQuesIds": lambda s: []})(), None)
    norm = [{"answer": a, "normalized": e.processDigitArticle(e.processPunctuation(a.replace("\n", " ").strip()))} for a in names]
    return out, norm


def clip():
    rng = np.random.default_rng(3)
    out = []
    for _ in range(8):
        image, text = rng.normal(size=(2, 16)).astype(np.float32)
        a, b = image / np.linalg.norm(image), text / np.linalg.norm(text)
        out.append({"image": image.tolist(), "text": text.tolist(), "score": float(2.5 * np.clip(np.sum(a * b, dtype=np.float64), 0, None))})
    return out


def tokens(path):
    with open(path) as f:
        texts = [line.rstrip("\n") for line in f]
    made = PTBTokenizer().tokenize({i: [{"caption": c}] for i, c in enumerate(texts)})
    return [{"text": c, "tokens": made[i][0].split()} for i, c in enumerate(texts)]


def main():
    checkout, out = sys.argv[1:]
    vqa, norm = answers(official(checkout))
    folder = out.rsplit("/", 1)[0]
    with open(out, "w") as f:
        json.dump({"captions": corpora(), "vqa": vqa, "normalized": norm, "clip": clip(), "tokens": tokens(folder + "/captions.txt")}, f, indent=0)


main()
