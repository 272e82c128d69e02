"""Leakage between training and scored clips: what transcripts and groups alone reveal about the labels.

Clips of one seed video share its words and its raters' labels, and a split by person may have every seed video on both
sides.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.errors import UserError
from shared.metrics import DimensionScores, score
from shared.text import words
from stage2_fusion.data.feature_info import DataInfo, FeatureInfo, read_info
from stage2_fusion.data.features import ClipLabels, read_clips

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


BLOCK = 256
"""Texts that are compared with all training texts in one step."""


@dataclass(frozen=True)
class LeakProbe:
    """What the training clips reveal about the scored clips; None if there is nothing to compare."""

    pcc: DimensionScores | None = None
    """PCC of predicting each clip's labels from the training clips with the nearest transcript."""
    same_transcript: float | None = None
    """Fraction of the clips with exactly the same words as a training clip."""
    shared_groups: dict[str, float] | None = None
    """For each kind of group, the fraction of the clips with a group that occurs in training."""
    why: str | None = None
    """Why there is nothing to compare."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "LeakProbe":
        return cls(**{**values, "pcc": values["pcc"] and DimensionScores(**values["pcc"])})


def probe_leak(
    features: Path, info: FeatureInfo, ids: list[str], labels: np.ndarray, trained_on: list[str] | None
) -> LeakProbe:
    """Probe the clips `ids` with labels (N, K).

    features: folder of the feature dataset; info: its features.json, for all or some dimensions; trained_on: ids of the
    training clips in it; None if unknown.
    """
    if trained_on is None:
        return LeakProbe(why="it is not known which clips are training clips")
    columns = [read_info(features).label_names.index(name) for name in info.label_names]
    clips = {clip.id: replace(clip, labels=clip.labels[columns]) for clip in read_clips(features)}
    train = [name for name in trained_on if name in clips and not np.isnan(clips[name].labels).all()]
    if not train:
        return LeakProbe(why="the feature dataset holds no labeled training clips")
    shared = {kind: _shared_fraction(clips, kind, ids, train) for kind in info.group_names}
    try:
        transcripts = read_transcripts(info.data)
    except UserError as error:
        return LeakProbe(shared_groups=shared, why=f"no transcripts: {error}")
    if not any(transcripts.get(name) for name in train):
        return LeakProbe(shared_groups=shared, why="no training clip has a transcript")
    texts, train_texts = ([transcripts.get(name, "") for name in names] for names in (ids, train))
    train_labels = np.stack([clips[name].labels for name in train])  # (M, K)
    place = {name: i for i, name in enumerate(train)}
    itself = np.array([place.get(name, -1) for name in ids])  # (N,)
    predictions = nearest_labels(texts, train_texts, train_labels, itself)
    pcc = score(predictions, labels, info.label_names, resamples=0).pcc
    same = _same_text_fraction(dict(zip(ids, texts, strict=True)), dict(zip(train, train_texts, strict=True)))
    return LeakProbe(DimensionScores(pcc.mean, pcc.per_dimension), same, shared)


def read_transcripts(data: DataInfo) -> dict[str, str]:
    """{id: transcript} of the clip dataset in the `data` of a features.json. UserError when it is missing, or holds
    other clips."""
    from shared.dataset.clip_dataset import ClipDataset

    clips = ClipDataset.open(Path(data.path))
    if clips.digest != data.digest:
        raise UserError(f"{data.path} now holds other clips (digest {clips.digest}, not {data.digest})")
    return dict(zip(clips.column("id"), clips.column("transcript"), strict=True))


def nearest_labels(
    texts: list[str], train_texts: list[str], train_labels: np.ndarray, itself: np.ndarray | None = None
) -> np.ndarray:
    """The labels of the training text nearest to each text, by cosine similarity of TF-IDF vectors: (N, K).

    train_labels (M, K), NaN = not labeled; itself int (N,): the training text of the same clip, which is not compared,
    -1 = none. Ties give the mean of the nearest; a text without any training word gives the mean of all training
    labels.
    """
    vectors = _tf_idf([*texts, *train_texts], len(train_texts))
    queries, keys = vectors[: len(texts)], vectors[len(texts) :]
    overall = np.array([np.nanmean(c) if not np.isnan(c).all() else 0.0 for c in train_labels.T])  # (K,)
    predictions = np.tile(overall, (len(texts), 1))  # (N, K)
    for start in range(0, len(texts), BLOCK):  # in blocks: N x M similarities may not fit in memory
        similarity = (queries[start : start + BLOCK] @ keys.T).toarray()  # (n, M)
        if itself is not None:
            own = itself[start : start + BLOCK]  # (n,)
            similarity[own >= 0, own[own >= 0]] = 0
        for row, values in enumerate(similarity, start):
            best = values.max()
            if best > 0:
                nearest = train_labels[values > best - 1e-9]  # (m, K)
                known = ~np.isnan(nearest).all(axis=0)
                predictions[row, known] = np.nanmean(nearest[:, known], axis=0)
    return predictions


def _tf_idf(texts: list[str], train: int) -> "csr_matrix":
    """TF-IDF vectors of unit length (0 without a known word), sparse (len(texts), V). The last `train` texts define the
    vocabulary and the inverse document frequency ln((1 + n) / (1 + df)) + 1."""
    from scipy import sparse

    counts = [Counter(words(text)) for text in texts]
    frequency = Counter(word for count in counts[len(texts) - train :] for word in count)
    column_of = {word: i for i, word in enumerate(frequency)}
    idf = {word: np.log((1 + train) / (1 + n)) + 1 for word, n in frequency.items()}
    rows, columns, values = [], [], []
    for row, count in enumerate(counts):
        weights = {word: n * idf[word] for word, n in count.items() if word in column_of}
        length = np.sqrt(sum(value**2 for value in weights.values()))
        for word, value in weights.items():
            rows.append(row)
            columns.append(column_of[word])
            values.append(value / length)
    return sparse.csr_matrix((values, (rows, columns)), shape=(len(texts), max(1, len(column_of))))


def _same_text_fraction(texts: dict[str, str], train_texts: dict[str, str]) -> float:
    """The fraction of the texts {id: text} with exactly the same words as a training text of another clip."""
    clips_of: dict[tuple[str, ...], set[str]] = {}
    for name, text in train_texts.items():
        clips_of.setdefault(tuple(words(text)), set()).add(name)
    keys = {name: tuple(words(text)) for name, text in texts.items()}
    return float(np.mean([bool(key) and bool(clips_of.get(key, set()) - {name}) for name, key in keys.items()]))


def _shared_fraction(clips: dict[str, ClipLabels], kind: str, ids: list[str], train: list[str]) -> float:
    """The fraction of the clips `ids` with another clip of their group (of this kind) in training."""
    members: dict[str, set[str]] = {}
    for name in train:
        members.setdefault(clips[name].groups[kind], set()).add(name)
    group_of = {name: clips[name].groups[kind] for name in ids}
    return float(np.mean([bool(g) and bool(members.get(g, set()) - {name}) for name, g in group_of.items()]))
