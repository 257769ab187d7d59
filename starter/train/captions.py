"""The words that the captioner learns to say and the painter learns to draw: concept, style, ground.

A picture is a row of WORK/data160/pairs.json. Trained on are the rows of the vendors below, whose concepts are Unicode's; the
free-text sets of the dual encoder have one picture a name and are left out. Nothing here is share-alike.
"""
import json, re

STYLES = {  # vendor set of data.py -> the word for how it draws
    "color": "shaded", "flat": "flat", "contrast": "high contrast", "3d": "3d", "noto": "smooth", "blob": "old",
    "twemoji": "simple", "emojione": "bright", "mono": "monochrome"}
GROUNDS = {"red": "#e04040", "orange": "#f09030", "yellow": "#f8e060", "green": "#50b060", "blue": "#4080e0", "purple": "#9060c0",
           "pink": "#f4a8c8", "grey": "#a0a0a0", "black": "#181818"}
KINDS = {  # Unicode's groups -> the word for what kind of thing it is
    "smileys-emotion": "a face or feeling", "people-body": "a person", "animals-nature": "an animal or plant", "food-drink": "food or drink",
    "travel-places": "a place or vehicle", "activities": "an activity", "objects": "an object", "symbols": "a symbol", "flags": "a flag"}
UNCOUNTED = {"bread", "cooked", "raised", "vulcan", "up", "down", "on", "off", "left", "right"}


def ground(name):
    """The colour's red, green and blue, 0 to 1."""
    return [int(GROUNDS[name][i : i + 2], 16) / 255 for i in (1, 3, 5)]


def thing(label):
    """Unicode's name of a concept as one would say it: "flag: France" -> "the flag of France", "red heart" -> "a red heart"."""
    label = re.sub(r"[“”\"]", "", label)
    if label.startswith("flag: "):
        return "the flag of " + label[6:]
    label = label.replace("keycap: ", "keycap ").replace(": ", ", ")
    last = label.split(",")[0].split(" with ")[0].split(" of ")[0].split()[-1].lower()
    plural = last.endswith("s") and not last.endswith(("ss", "us", "is"))
    if plural or last in UNCOUNTED or label[0].isdigit():
        return label
    return ("an " if label[0].lower() in "aeiou" else "a ") + label


def trained(meta):
    """Rows of pairs.json that may be trained on: the vendors above, concepts that are not held out."""
    return [i for i, r in enumerate(meta["rows"]) if r["style"] in STYLES and r["hex"] and not meta["concepts"][r["hex"]]["held"]]


def load(work):
    return json.load(open(f"{work}/data160/pairs.json"))


def describe(meta, row, rng):
    """One way to ask for a picture: the text, and the colour behind it or None for white."""
    r = meta["rows"][row]
    label, style = meta["concepts"][r["hex"]]["label"], STYLES[r["style"]]
    article = "an" if style[0] in "aeiou" else "a"
    template = rng.choices(["{article} {style} drawing of {thing}", "{article} {style} picture of {thing}", "a drawing of {thing}", "{label}"], (60, 15, 15, 10))[0]
    text = template.format(article=article, style=style, thing=thing(label), label=label)
    colour = rng.choice(sorted(GROUNDS)) if rng.random() < 0.35 else None
    return (f"{text} on {'an' if colour == 'orange' else 'a'} {colour} background" if colour else text), colour


LINES = ["drawing", "picture", "german", "what", "style", "kind", "is"]  # what the captioner learns to say: captions, answers


def say(meta, row, rng, shares):
    """A line for the captioner: (what opens it, what it is to say). `shares` are LINES'."""
    r = meta["rows"][row]
    concept, style = meta["concepts"][r["hex"]], STYLES[r["style"]]
    name, article = thing(concept["label"]), "an" if style[0] in "aeiou" else "a"
    which = rng.choices(LINES, shares)[0]
    if which == "german":
        return "", "eine Zeichnung: " + concept["tr"]["de"][0] if "de" in concept["tr"] else name
    if which == "what":
        return "what is this?", name
    if which == "style":
        return "what style is it?", style
    if which == "kind":
        return "what kind of thing is it?", KINDS[concept["group"]]
    if which == "is":
        if rng.random() < 0.5:
            return f"is it {name}?", "yes"
        other = thing(rng.choice([c["label"] for c in meta["concepts"].values() if not c["held"]]))
        return f"is it {other}?", "no" if other != name else "yes"
    return "", f"{article} {style} {which} of {name}"
