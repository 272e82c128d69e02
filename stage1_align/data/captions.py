"""The texts an item is paired with, of three kinds, and the keys that say which texts mean the same.

transcript  what is said in the clip
labels      text generated from its labels: "strong amusement, a little joy"
caption     a description written by a person; an item may have several

Keys decide which texts of one kind are positives of each other. They depend on everything an item says, never on the
random choices of a step (dropped words, chosen caption, wording):

transcript  the normalized text: clips of one sentence are positives
labels      the degree of each emotion, with its name
caption     the set of the item's captions: the caption drawn stands for all of them, and items that have the same
            caption, or the same set of captions, are positives
"""

from dataclasses import dataclass, field

import numpy as np

from shared.errors import UserError
from shared.text import words

DEGREES = (
    (0.2, ("a little", "slight")),
    (0.45, ("some", "moderate")),
    (0.7, ("much", "clear")),
    (float("inf"), ("strong", "intense")),
)
"""Upper limit of a label, and the words for labels up to it."""


@dataclass
class TextAnnotations:
    """All texts and labels of an item; missing ones are empty."""

    transcript: str = ""
    captions: list[str] = field(default_factory=list)
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    """float32 (K,), NaN = not labeled; K = 0 when the source has no labels."""


def draw_text(
    kind: str,
    annotations: TextAnnotations,
    label_names: list[str],
    rng: np.random.Generator,
    template: str,
    word_dropout: float = 0.0,
) -> str:
    """A text of this kind, "" if the item has none. The wording, the choice among several captions and the words
    dropped from a transcript are random. label_names: names of the K labels; template: the sentence around a text
    generated from labels."""
    if kind == "transcript":
        transcript = annotations.transcript
        return drop_words(transcript, word_dropout, rng) if word_dropout else transcript
    if kind == "labels":
        emotions = label_caption(annotations.labels, label_names, rng)
        return template.replace("{emotions}", emotions) if emotions else ""
    captions = annotations.captions
    return captions[rng.integers(len(captions))] if captions else ""


def text_key(kind: str, annotations: TextAnnotations, label_names: list[str]) -> str:
    """What the texts of this kind say about an item, independent of the random draws. Items with the same key are
    positives of each other, and each is a correct answer to the other in retrieval. "" if the item has no text of this
    kind."""
    if kind == "transcript":
        return _normalize(annotations.transcript)
    if kind == "labels":
        labels = annotations.labels
        if np.isnan(labels).all():
            return ""
        degrees = sorted((name.lower(), _degree(label)) for name, label in zip(label_names, labels, strict=True))
        return "labels " + " ".join(f"{name}={degree}" for name, degree in degrees if degree >= 0)
    return "\n".join(sorted({_normalize(caption) for caption in annotations.captions}))


def label_caption(labels: np.ndarray, names: list[str], rng: np.random.Generator) -> str:
    """Words for labels (K,) in [0, 1]: "strong amusement, a little joy"; "no emotion" if all are 0; "" if none is
    labeled."""
    known = ~np.isnan(labels)
    if not known.any():
        return ""
    phrases = []
    for index in np.argsort(-np.where(known, labels, 0), kind="stable"):
        degree = _degree(labels[index])
        if degree >= 0:
            wordings = DEGREES[degree][1]
            phrases.append(f"{wordings[rng.integers(len(wordings))]} {names[index].lower()}")
    return ", ".join(phrases) or "no emotion"


def degree_phrases(names: list[str]) -> list[str]:
    """Every degree with every label: the vocabulary of `label_caption`."""
    return [f"{word} {name.lower()}" for _, wordings in DEGREES for word in wordings for name in names]


def drop_words(text: str, probability: float, rng: np.random.Generator) -> str:
    """Drop each word with this probability, but keep at least one."""
    tokens = text.split()
    kept = [word for word, draw in zip(tokens, rng.random(len(tokens)), strict=True) if draw >= probability]
    return " ".join(kept or tokens[:1])


def check_template(template: str) -> None:
    """UserError if the template has no {emotions} placeholder."""
    if "{emotions}" not in template:
        raise UserError(f"label_template {template!r} leaves out the labels: put {{emotions}} where they belong")


def _degree(label: float) -> int:
    """Row of DEGREES for a label in [0, 1]; -1 when it is not labeled or too small for a word."""
    if np.isnan(label) or label <= 0.02:
        return -1
    return next(row for row, (limit, _) in enumerate(DEGREES) if label <= limit)


def _normalize(text: str) -> str:
    """The words in lower case without punctuation; a text without words (an emoji) stays unchanged."""
    return " ".join(words(text)) or text.strip()
