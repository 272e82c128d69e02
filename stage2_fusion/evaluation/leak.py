"""How much of the labels the words alone give away.

Clips of one seed video share its words and its raters' labels, so a split that keeps people apart may still have every
seed video on both sides.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from shared.errors import UserError
from shared.text import words


def probe(features: Path, info: dict, ids: list[str], labels: np.ndarray, trained_on: list[str] | None) -> dict:
    """What the training clips give away of the clips `ids` with labels (N, K), by transcripts and groups alone.

    info: the features.json of the folder `features`; trained_on: ids of the training clips, where they are not known
    (None) those of split train. Returns "pcc", the scores of predicting each clip's labels by those of the training
    clip with the nearest transcript; "same_transcript", the share of clips whose very words occur in training;
    "shared_groups", per kind of group the share of clips whose group does; "why", in words, when there is nothing to
    compare: then what could not be is None.
    """
    from stage2_fusion.data.features import read_clips

    nothing = {"pcc": None, "same_transcript": None, "shared_groups": None}
    clips = {clip["id"]: clip for clip in read_clips(features)}
    in_train = [name for name, clip in clips.items() if clip["split"] == "train"]
    train = in_train if trained_on is None else [name for name in trained_on if name in clips]
    train = [name for name in train if not np.isnan(clips[name]["labels"]).all()]
    if not train:
        return {**nothing, "why": "the feature dataset holds no labelled training clips"}
    shared = {kind: _shared(clips, kind, ids, train) for kind in info["group_names"]}
    try:
        transcripts = read_transcripts(info["data"])
    except UserError as error:
        return {**nothing, "shared_groups": shared, "why": f"no transcripts: {error}"}
    if not any(transcripts.get(name) for name in train):
        return {**nothing, "shared_groups": shared, "why": "no training clip has a transcript"}
    said, known = [transcripts.get(name, "") for name in ids], [transcripts.get(name, "") for name in train]
    given = np.stack([clips[name]["labels"] for name in train])
    guess = nearest_labels(said, known, given, np.array(ids)[:, None] != np.array(train)[None])
    elsewhere = {}
    for name, text in zip(train, known, strict=True):
        elsewhere.setdefault(tuple(words(text)), set()).add(name)
    same = [
        bool(words(text)) and bool(elsewhere.get(tuple(words(text)), set()) - {name})
        for name, text in zip(ids, said, strict=True)
    ]
    return {
        "pcc": _scores(guess, labels, info["label_names"]),
        "same_transcript": float(np.mean(same)),
        "shared_groups": shared,
        "why": None,
    }


def seen_by_encoders(features: Path, info: dict, ids: list[str]) -> int | None:
    """How many of the clips `ids` the encoders were aligned on, which `emit split` of a feature dataset does not undo:
    those that were in split train when they were encoded. None where the encoders were trained on something else."""
    from stage2_fusion.data.features import read_clips

    training = info["encoders"]["config"].get("training", {})
    sources = training.get("config", {}).get("pairs", {}).get("sources")
    if training.get("data_digest") != info["data"]["digest"] or sources:
        return None
    aligned = {clip["id"] for clip in read_clips(features, stored=True) if clip["split"] == "train"}
    return len(aligned & set(ids))


def read_transcripts(data: dict) -> dict[str, str]:
    """{id: words} of the clip dataset that a features.json names as its `data`; UserError when it is not there."""
    from shared.dataset.clip_dataset import ClipDataset

    clips = ClipDataset.open(Path(data["path"]))
    if clips.digest != data["digest"]:
        raise UserError(f"{data['path']} holds other clips by now (digest {clips.digest}, not {data['digest']})")
    return dict(zip(clips.column("id"), clips.column("transcript"), strict=True))


def nearest_labels(texts: list[str], train: list[str], labels: np.ndarray, allowed: np.ndarray | None = None):
    """For each of N texts the mean labels of those of M training texts that are nearest by TF-IDF cosine (several when
    they tie); where no word is shared, the mean of all. labels (M, K), NaN = not labelled; allowed bool (N, M): pairs
    that may be compared. Returns (N, K)."""
    bag = _tf_idf([*texts, *train], len(train))
    mine, theirs = bag[: len(texts)], bag[len(texts) :]
    overall = np.array([np.nanmean(c) if not np.isnan(c).all() else 0.0 for c in labels.T])  # (K,)
    guess = np.tile(overall, (len(texts), 1))  # (N, K)
    for start in range(0, len(texts), 256):  # a block at a time: N x M similarities may outgrow memory
        similarity = (mine[start : start + 256] @ theirs.T).toarray()  # (n, M)
        if allowed is not None:
            similarity[~allowed[start : start + 256]] = 0
        for row, values in enumerate(similarity, start):
            best = values.max()
            if best > 0:
                near = labels[values > best - 1e-9]  # (m, K)
                known = ~np.isnan(near).all(axis=0)
                guess[row, known] = np.nanmean(near[:, known], axis=0)
    return guess


def _tf_idf(texts: list[str], train: int):
    """Rows of unit length (0 without a known word), sparse (len(texts), V); the last `train` texts decide the inverse
    document frequency ln((1 + n) / (1 + df)) + 1, and which words are known."""
    from scipy import sparse

    counts = [Counter(words(text)) for text in texts]
    frequency = Counter(word for count in counts[len(texts) - train :] for word in count)
    place = {word: i for i, word in enumerate(frequency)}
    idf = {word: np.log((1 + train) / (1 + n)) + 1 for word, n in frequency.items()}
    rows, columns, values = [], [], []
    for row, count in enumerate(counts):
        weights = {word: n * idf[word] for word, n in count.items() if word in place}
        length = np.sqrt(sum(value**2 for value in weights.values()))
        for word, value in weights.items():
            rows.append(row)
            columns.append(place[word])
            values.append(value / length)
    return sparse.csr_matrix((values, (rows, columns)), shape=(len(texts), max(1, len(place))))


def _shared(clips: dict[str, dict], kind: str, ids: list[str], train: list[str]) -> float:
    """The share of clips `ids` with a group of this kind that another training clip is of."""
    members: dict[str, set[str]] = {}
    for name in train:
        members.setdefault(clips[name]["groups"][kind], set()).add(name)
    groups = [clips[name]["groups"][kind] for name in ids]
    return float(
        np.mean([bool(g) and bool(members.get(g, set()) - {name}) for name, g in zip(ids, groups, strict=True)])
    )


def _scores(guess: np.ndarray, labels: np.ndarray, names: list[str]) -> dict:
    from shared.metrics import score

    pcc = score(guess, labels, names, resamples=0).pcc
    return {"mean": pcc.mean, "per_dimension": pcc.per_dimension}
