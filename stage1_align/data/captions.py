"""The texts an item is paired with, of three kinds, and the keys that say which texts mean the same.

transcript  what was said in a clip
labels      words made of its labels: "strong amusement, a little joy"
caption     a description somebody wrote; an item may have several

Keys decide which texts of one kind are positives of each other. They depend on all an item can say, never on what a
step leaves out, chooses or draws:

transcript  the normalised text: clips of one sentence are positives
labels      the degree of each emotion, with its name
caption     the set of the item's captions: one caption drawn stands for all of them, and items that have the same
            caption, or the same set of captions, are positives
"""

from dataclasses import dataclass, field

import numpy as np

from shared.errors import UserError

DEGREES = (
    (0.2, ("a little", "slight")),
    (0.45, ("some", "moderate")),
    (0.7, ("much", "clear")),
    (float("inf"), ("strong", "intense")),
)


@dataclass
class Words:
    """All texts and labels of an item; what it does not have is empty."""

    transcript: str = ""
    captions: list[str] = field(default_factory=list)
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    """float32 (K,), NaN = not labelled; K = 0 where the source has no labels."""


def draw_text(
    kind: str, words: Words, names: list[str], rng: np.random.Generator, template: str, word_dropout: float = 0.0
) -> str:
    """A text of this kind, "" where the item has none: wording, one of several captions and the words left out of a
    transcript are drawn. names: those of the K labels; template: what a text made of labels is set in."""
    if kind == "transcript":
        return drop_words(words.transcript, word_dropout, rng) if word_dropout else words.transcript
    if kind == "labels":
        said = label_caption(words.labels, names, rng)
        return template.replace("{emotions}", said) if said else ""
    return words.captions[rng.integers(len(words.captions))] if words.captions else ""


def text_key(kind: str, words: Words, names: list[str]) -> str:
    """What the texts of this kind say of an item, whatever a step draws: items of one key are positives of each other,
    and each is a right answer to the other in retrieval. "" where the item has no text of this kind."""
    if kind == "transcript":
        return _normal(words.transcript)
    if kind == "labels":
        if np.isnan(words.labels).all():
            return ""
        degrees = sorted((name.lower(), _degree(label)) for name, label in zip(names, words.labels, strict=True))
        return "labels " + " ".join(f"{name}={degree}" for name, degree in degrees if degree >= 0)
    return "\n".join(sorted({_normal(caption) for caption in words.captions}))


def label_caption(labels: np.ndarray, names: list[str], rng: np.random.Generator) -> str:
    """Words for labels (K,) in [0, 1]: "strong amusement, a little joy"; "no emotion" when all are 0; "" when none is
    labelled."""
    known = ~np.isnan(labels)
    if not known.any():
        return ""
    parts = []
    for index in np.argsort(-np.where(known, labels, 0), kind="stable"):
        degree = _degree(labels[index])
        if degree >= 0:
            words = DEGREES[degree][1]
            parts.append(f"{words[rng.integers(len(words))]} {names[index].lower()}")
    return ", ".join(parts) or "no emotion"


def degree_phrases(names: list[str]) -> list[str]:
    """Every degree with every label: the vocabulary of `label_caption`."""
    return [f"{word} {name.lower()}" for _, words in DEGREES for word in words for name in names]


def drop_words(text: str, share: float, rng: np.random.Generator) -> str:
    """Leave out each word with probability `share`, but never the last one that is left."""
    words = text.split()
    kept = [word for word, draw in zip(words, rng.random(len(words)), strict=True) if draw >= share]
    return " ".join(kept or words[:1])


def check_template(template: str) -> None:
    """UserError when the emotions have no place in it."""
    if "{emotions}" not in template:
        raise UserError(f"label_template {template!r} leaves out the labels: put {{emotions}} where they belong")


def _degree(label: float) -> int:
    """Row of DEGREES for a label in [0, 1]; -1 for none worth a word, or not labelled."""
    if np.isnan(label) or label <= 0.02:
        return -1
    return next(row for row, (limit, _) in enumerate(DEGREES) if label <= limit)


def _normal(text: str) -> str:
    """Without case, and without the width of its spaces."""
    return " ".join(text.lower().split())
