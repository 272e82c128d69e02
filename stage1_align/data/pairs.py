"""Items to training pairs: which frames, which stretch of sound, which words; augmented. A sample is a pure function of
(seed, epoch, address), so workers, processes and resumption change nothing."""

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared.errors import UserError
from shared.files import digest
from shared.training.loader import SigtermSafeDataLoader
from shared.training.sampling import derive_seed
from stage1_align.data.augment import augment_frames, augment_waveform
from stage1_align.data.captions import check_template, degree_phrases, draw_text, text_key
from stage1_align.config import PairConfig, SourceConfig
from stage1_align.encoders import AlignedEncoders
from stage1_align.data.mixture import Address, Mixture
from stage1_align.data.sources import open_source
from stage1_align.data.sources.base import Choose, Damage, Sample, Source, Table

CORPUS = 20_000
"""Records of a stream whose texts the tokenizer is trained on at most."""


class PairData:
    """All data of a run.

    >>> data = PairData(PairConfig(), batch_size=64, seed=0, clips="runs/demo/clips")
    >>> batches = data.loader(epoch=0, first_step=0, rank=0, world=1, encoders=encoders, workers=2)
    """

    def __init__(self, config: PairConfig, batch_size: int, seed: int, clips: Path | str = ""):
        """batch_size: rows of all processes together; clips: the clip dataset that is used where `config` names no
        sources. UserError for whatever cannot be opened, or cannot give any text of the kinds in `config`."""
        check_template(config.label_template)
        self.config, self.seed = config, seed
        specs = config.sources or [SourceConfig("clips", str(clips))]
        self.sources = [open_source(spec, spec.split) for spec in specs]
        self._valid = [(spec, spec.valid_split) for spec in specs if spec.valid_split]
        for source in self.sources:
            if not source.kinds & set(config.captions):
                has, asked = " and ".join(sorted(source.kinds)), ", ".join(config.captions)
                raise UserError(f"{source.name}: has {has} alone, but pairs.captions is [{asked}]; add it there")
        weights = [spec.weight for spec in specs]
        self.mixture = Mixture(self.sources, weights, batch_size, config.samples_per_epoch, seed)
        self.label_names = list(dict.fromkeys(name for source in self.sources for name in source.label_names))
        self.digest = self.sources[0].digest
        if config.sources:
            self.digest = digest(
                [[spec.kind, spec.weight, s.digest] for spec, s in zip(specs, self.sources, strict=True)]
            )
        self.damage = Damage()

    @property
    def steps_per_epoch(self) -> int:
        return self.mixture.steps_per_epoch

    def __len__(self) -> int:
        """Items of all tables together; records of streams are not counted."""
        return sum(len(source) for source in self.sources if isinstance(source, Table))

    def loader(
        self, epoch: int, first_step: int, rank: int, world: int, encoders: AlignedEncoders, workers: int = 0
    ) -> "PairLoader":
        """This process's share of each global batch, collated, from `first_step` to the end of the epoch."""
        rate = encoders.audio.sample_rate if encoders.audio is not None else None
        pairs = Pairs(self.sources, self.label_names, self.config, rate, self.seed)

        def report(k: int, what: str) -> None:
            if rank == 0:  # every process reads every stream
                self.damage.add(self.sources[k].name, what)

        addresses = self.mixture.addresses(epoch, first_step, rank, world, report)
        steps = _Steps(addresses, self.steps_per_epoch - first_step)
        return PairLoader(pairs, steps, encoders, workers, self.damage)

    def corpus(self) -> list[str]:
        """Every kind of text training will show, for a tokenizer to be trained on."""
        rng, config = np.random.default_rng(0), self.config
        texts = []
        for source in self.sources:
            items = source.first(len(source) if isinstance(source, Table) else CORPUS)
            said = [source.words(item) for item in items]
            for kind in config.captions:
                if kind == "caption":
                    texts += [caption for words in said for caption in words.captions]
                else:
                    texts += [draw_text(kind, words, source.label_names, rng, config.label_template) for words in said]
        if "labels" in config.captions:
            texts += degree_phrases(self.label_names)
        return [text for text in texts if text]

    def sounds(self, rate: int, count: int = 256) -> list[np.ndarray]:
        """The sound of the first `count` items of each source: float32 (S,) each, S = 0 where there is none."""
        length = int(self.config.max_seconds * rate)
        return [
            source.sample(item, rate, None).waveform[:length] for source in self.sources for item in source.first(count)
        ]

    def valid(self) -> "ValidationSet":
        """The validation items of all sources that have some. UserError when none has."""
        if not self._valid:
            raise UserError("no source has a validation split: set valid_split of one of them")
        return ValidationSet([open_source(spec, split) for spec, split in self._valid], self.config)


class PairLoader(SigtermSafeDataLoader):
    """Collated batches; what could not be decoded is counted and told on the way."""

    def __init__(self, pairs: "Pairs", steps: "_Steps", encoders: AlignedEncoders, workers: int, damage: Damage):
        self.damage = damage
        super().__init__(
            pairs,
            batch_sampler=steps,
            collate_fn=partial(collate, encoders),
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),  # a copy to a GPU then runs beside its work
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in super().__iter__():
            for source, what in batch.pop("damage"):
                self.damage.add(source, what)
            yield batch


class Pairs(torch.utils.data.Dataset):
    """Training samples by their Address."""

    def __init__(
        self, sources: list[Source], label_names: list[str], config: PairConfig, sample_rate: int | None, seed: int
    ):
        """label_names: those of all sources; a sample's labels are in this order. sample_rate: None without sound."""
        self.sources, self.label_names = sources, label_names
        self.config, self.sample_rate, self.seed = config, sample_rate, seed

    def __getitem__(self, address: Address) -> dict[str, Any]:
        epoch, k, position, item = address
        rng = np.random.default_rng(derive_seed("pairs", self.seed, epoch, k, position))
        config, source = self.config, self.sources[k]
        sample = source.sample(item, self.sample_rate, lambda count: _one_of_each_stretch(count, config.frames, rng))
        frames = sample.frames  # (T, H, W, 3)
        length = int(config.max_seconds * (self.sample_rate or 0))
        waveform = _stretch(sample.waveform, length, rng)  # (S,)
        if config.augment:
            frames = augment_frames(frames, rng)
            waveform = augment_waveform(waveform, rng, config.gain_db)
        names, template = source.label_names, config.label_template
        labels = np.full(len(self.label_names), np.nan, np.float32)  # (K,)
        labels[[self.label_names.index(name) for name in names]] = sample.words.labels
        return {
            "frames": frames,
            "waveform": waveform,
            "texts": [
                draw_text(kind, sample.words, names, rng, template, config.word_dropout) for kind in config.captions
            ],
            # A clip without a text of a kind equals no other: two silent clips are no positives of each other.
            "keys": [text_key(kind, sample.words, names) or f"none {epoch} {k} {position}" for kind in config.captions],
            "labels": labels,
            "damage": [(source.name, sample.damage)] if sample.damage else [],
        }


def collate(encoders: AlignedEncoders, samples: list[dict]) -> dict[str, Any]:
    """The input of each tower there is; text_id int64 (n, b), equal for texts that say the same; "labels" float32
    (b, K), NaN = unknown, where any source has labels; "damage", a list of (source, what). The n texts of the b clips
    reach the text tower together, all of the first kind first: its input has n * b rows."""
    texts = [text for kind in zip(*(sample["texts"] for sample in samples), strict=True) for text in kind]
    ids = [derive_seed(key) for kind in zip(*(sample["keys"] for sample in samples), strict=True) for key in kind]
    items = {
        "vision": [sample["frames"] for sample in samples],
        "audio": [sample["waveform"] for sample in samples],
        "text": texts,
    }
    batch = {modality: tower.collate(items[modality]) for modality, tower in encoders.towers().items()}
    batch["text_id"] = torch.tensor(ids).view(-1, len(samples))  # (n, b)
    batch["damage"] = [what for sample in samples for what in sample["damage"]]
    if len(samples[0]["labels"]):
        batch["labels"] = torch.from_numpy(np.stack([sample["labels"] for sample in samples]))  # (b, K)
    return batch


class ValidationSet:
    """Up to `valid_limit` items of each source, evenly spaced; of a stream the first ones. Media are decoded
    whenever they are asked for."""

    def __init__(self, sources: list[Source], config: PairConfig):
        self.max_seconds, self.items = config.max_seconds, []
        for source in sources:
            limit = config.valid_limit
            if isinstance(source, Table):
                count = len(source)
                items = np.linspace(0, count - 1, min(count, limit)).round().astype(int).tolist()
            else:
                items = list(source.first(limit))
            self.items += [(source, item) for item in items]
        rng, template = np.random.default_rng(0), config.label_template
        said = [(source.words(item), source.label_names) for source, item in self.items]
        pairs = [
            [(text, i) for i, (words, names) in enumerate(said) for text in _texts(kind, words, names, rng, template)]
            for kind in config.captions
        ]
        self.texts = [[text for text, _ in several] for several in pairs]
        """n lists of M_k: the texts of each kind; an item has none, one, or several captions."""
        self.owners = [[owner for _, owner in several] for several in pairs]
        """n lists of M_k: the item each text belongs to."""
        self.label_names = list(dict.fromkeys(name for source in sources for name in source.label_names))
        self.labels = np.full((len(said), len(self.label_names)), np.nan, np.float32)
        """float32 (N, K), NaN = not labelled."""
        for row, (words, names) in zip(self.labels, said, strict=True):
            row[[self.label_names.index(name) for name in names]] = words.labels
        self.keys = [[text_key(kind, words, names) for words, names in said] for kind in config.captions]
        """n lists of N: texts of one key are right answers to each other's items."""

    def __len__(self) -> int:
        return len(self.items)

    def clip(self, index: int, choose: Choose) -> dict[str, np.ndarray]:
        """ "frames": the pictures that `choose` picks, uint8 (T, H, W, 3)."""
        return {"frames": self._sample(index, None, choose).frames}

    def waveform(self, index: int, rate: int) -> np.ndarray:
        """float32 (S,) at `rate` Hz, of `max_seconds` at most."""
        return self._sample(index, rate, None).waveform[: int(self.max_seconds * rate)]

    def _sample(self, index: int, rate: int | None, choose: Choose | None) -> Sample:
        source, item = self.items[index]
        return source.sample(item, rate, choose)


class _Steps:
    """A batch sampler of known length, drawn as it is read: streams are read no further than batches are wanted."""

    def __init__(self, addresses: Iterator[list[Address]], count: int):
        self.addresses, self.count = addresses, count

    def __iter__(self) -> Iterator[list[Address]]:
        return self.addresses

    def __len__(self) -> int:
        return self.count


def _one_of_each_stretch(count: int, wanted: int, rng: np.random.Generator) -> list[int]:
    """One frame from each of `wanted` equal stretches of a clip of `count`; all when there are no more."""
    if count <= wanted:
        return list(range(count))
    edges = np.linspace(0, count, wanted + 1)
    return [int(rng.uniform(a, b)) for a, b in itertools.pairwise(edges)]


def _stretch(waveform: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """A random stretch of `length` samples of a longer waveform (S,)."""
    if len(waveform) <= length:
        return waveform
    start = int(rng.integers(len(waveform) - length + 1))
    return waveform[start : start + length]  # (length,)


def _texts(kind: str, words, names: list[str], rng: np.random.Generator, template: str) -> list[str]:
    texts = words.captions if kind == "caption" else [draw_text(kind, words, names, rng, template)]
    return [text for text in texts if text]
