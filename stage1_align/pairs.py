"""Clips to training pairs: which frames, which stretch of sound, which words; augmented. A pure function of
(seed, epoch, clip)."""

import itertools
from typing import Any

import numpy as np
import torch

from shared.dataset import ClipDataset
from shared.order import derive_seed
from stage1_align.augment import augment_frames, augment_waveform
from stage1_align.config import PairConfig
from stage1_align.encoders import AlignedEncoders


class Pairs(torch.utils.data.Dataset):
    """Training samples addressed by (epoch, row), so that workers and resumption change nothing."""

    def __init__(self, clips: ClipDataset, config: PairConfig, sample_rate: int, seed: int):
        self.clips, self.config, self.sample_rate, self.seed = clips, config, sample_rate, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, address: tuple[int, int]) -> dict[str, Any]:
        epoch, row = address
        rng = np.random.default_rng(derive_seed("pairs", self.seed, epoch, row))
        sample = self.clips.clip(row, lambda count: self._choose(count, rng))
        frames = sample["frames"]  # (T, H, W, 3)
        waveform = self.clips.waveform(row, self.sample_rate)  # (S,)
        if self.config.augment:
            frames = augment_frames(frames, rng)
            waveform = augment_waveform(waveform, rng, self.config.gain_db)
        texts, keys = [], []
        for kind in self.config.captions:
            keys.append(text_key(kind, sample["transcript"], sample["labels"]))
            if kind == "transcript":
                texts.append(drop_words(sample["transcript"], self.config.word_dropout, rng))
            else:
                texts.append(label_caption(sample["labels"], self.clips.label_names, rng))
        return {"frames": frames, "waveform": waveform, "texts": texts, "keys": keys}

    def _choose(self, count: int, rng: np.random.Generator) -> list[int]:
        """One frame from each equal stretch of a clip of `count`; all when there are no more."""
        if count <= self.config.frames:
            return list(range(count))
        edges = np.linspace(0, count, self.config.frames + 1)
        return [int(rng.uniform(a, b)) for a, b in itertools.pairwise(edges)]


def collate(encoders: AlignedEncoders, samples: list[dict]) -> dict[str, Any]:
    """The input of each tower, and text_id int64 (n, b), equal for texts that say the same. The n texts of the b clips
    reach the text tower together, all of the first kind first: its input has n * b rows."""
    texts = [text for kind in zip(*(sample["texts"] for sample in samples), strict=True) for text in kind]
    ids = [derive_seed(key) for kind in zip(*(sample["keys"] for sample in samples), strict=True) for key in kind]
    return {
        "vision": encoders.vision.collate([sample["frames"] for sample in samples]),
        "audio": encoders.audio.collate([sample["waveform"] for sample in samples]),
        "text": encoders.text.collate(texts),
        "text_id": torch.tensor(ids).view(-1, len(samples)),  # (n, b)
    }


DEGREES = (
    (0.2, ("a little", "slight")),
    (0.45, ("some", "moderate")),
    (0.7, ("much", "clear")),
    (float("inf"), ("strong", "intense")),
)


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


def _degree(label: float) -> int:
    """Row of DEGREES for a label in [0, 1]; -1 for none worth a word, or not labelled."""
    if np.isnan(label) or label <= 0.02:
        return -1
    return next(row for row, (limit, _) in enumerate(DEGREES) if label <= limit)


def text_key(kind: str, transcript: str, labels: np.ndarray) -> str:
    """What a clip's text of this kind says, whatever words are left out or chosen in a step: clips of one key are
    positives of each other, and each is a right answer to the other in retrieval."""
    if kind == "transcript":
        return " ".join(transcript.lower().split())
    return "labels " + " ".join(str(_degree(label)) for label in labels)


def drop_words(text: str, share: float, rng: np.random.Generator) -> str:
    """Leave out each word with probability `share`, but never the last one that is left."""
    words = text.split()
    kept = [word for word, draw in zip(words, rng.random(len(words)), strict=True) if draw >= share]
    return " ".join(kept or words[:1])


def texts_of(clips: ClipDataset, kind: str) -> list[str]:
    """The text of one kind for every clip, the same at every call; "" where there is none."""
    if kind == "transcript":
        return clips.column("transcript")
    rng = np.random.default_rng(0)
    return [label_caption(labels, clips.label_names, rng) for labels in clips.labels()]


def keys_of(clips: ClipDataset, kind: str) -> list[str]:
    """`text_key` of every clip."""
    pairs = zip(clips.column("transcript"), clips.labels(), strict=True)
    return [text_key(kind, transcript, labels) for transcript, labels in pairs]


def caption_corpus(clips: ClipDataset, config: PairConfig) -> list[str]:
    """Every kind of text training will show, for the tokenizer to be trained on."""
    texts = [text for kind in config.captions for text in texts_of(clips, kind)]
    if "labels" in config.captions:
        texts += [f"{word} {name.lower()}" for _, words in DEGREES for word in words for name in clips.label_names]
    return texts
