"""Pickles through the restricted reader (shared/layouts/vidmimic2/pickles.py): no code in them runs.

MMSA's features (github.com/thuiar/MMSA, and what MMSA-FET writes for it):

    {"train": {"id": N names, "vision": (N, T, C), "audio": ..., "text": ..., "vision_lengths": N, "audio_lengths": N,
               "text_bert": (N, 3, T), "raw_text": ..., "regression_labels": ...}, "valid": ..., "test": ...}

Rows behind the length are padding; without lengths, rows of zeros at both ends are. A file may also hold one clip, an
array or {"vision": (T, C), ...}; or several by their names, {"clip": (T, C), ...} or {"clip": {"vision": ...}, ...}.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import UserError
from shared.layouts.vidmimic2.pickles import read_pickle
from shared.media.decode import MediaError
from shared.text import first_few
from stage2_fusion.data.external.arrays import as_rows, clip_of, one_of_several
from stage2_fusion.data.external.sniff import Sniffed
from stage2_fusion.data.external.tracks import ANY, KEYS, Track, Wanted

SPLITS = ("train", "valid", "test", "val", "dev")
MOST_BYTES = 32 << 30
"""unaligned_50.pkl of MOSEI takes 4 GiB."""


class Pickles:
    title = "MMSA"
    modalities: Sequence[str] = ANY

    def recognizes(self, file: Sniffed) -> bool:
        return file.suffix in (".pkl", ".pickle", ".p")

    def read(self, path: Path, name: str, wanted: Wanted) -> list[Track]:
        wanted.refuse_columns(path)
        try:
            content = read_pickle(path, MOST_BYTES, objects=True)
        except MediaError as error:
            raise UserError(str(error)) from None
        if not isinstance(content, dict):
            return [clip_of(_plain(content, str(path)), [name or path.stem], str(path), {})]
        splits = {str(key): part for key, part in content.items() if str(key) in SPLITS and isinstance(part, dict)}
        if splits:
            return [track for key, part in splits.items() for track in _split(part, f"{path}: {key}", wanted.modality)]
        has_ids = isinstance(content.get("id"), list | tuple | np.ndarray)
        if has_ids and _key(content, wanted.modality):  # somebody has taken the splits together
            return _split(content, str(path), wanted.modality)
        if clips := _clips(content, wanted.modality):
            places = {key: f"{path}: {str(key)[:80]}" for key in clips}
            return [
                one_of_several(partial(_plain, each, places[key]), _names(key), places[key])
                for key, each in clips.items()
            ]
        if len(content) > 1 or _key(content, wanted.modality):
            value = content[_found(content, wanted.modality, str(path))]
        else:
            value = next(iter(content.values()), [])
        return [clip_of(_plain(value, str(path)), [name or path.stem], str(path), {})]

    def how(self, modality: str) -> str:
        return ""


def _clips(content: Mapping[Any, Any], modality: str) -> dict[Any, Any]:
    """The array of each clip, in a dictionary of clips; {} for any other."""
    if any(_key(content, name) for name in KEYS):
        return {}
    parts = {key: value for key, value in content.items() if isinstance(value, dict)}
    if parts and len(parts) == len(content):
        return {key: part[own] for key, part in parts.items() if (own := _key(part, modality))}
    arrays = len(content) > 1 and all(_is_array(value) for value in content.values())
    return dict(content) if arrays else {}


def _is_array(value: Any) -> bool:
    """Whether this may be an array, or a list of rows."""
    if isinstance(value, list | tuple):
        return bool(value) and isinstance(value[0], list | tuple | np.ndarray)
    return isinstance(value, np.ndarray) and value.ndim > 0


def _split(part: Mapping[Any, Any], where: str, modality: str) -> list[Track]:
    """The clips of a split. UserError when it lacks the modality or the ids, or has others in number."""
    key = _found(part, modality, where)
    sequences = part[key]
    if "id" not in part:
        raise UserError(f"{where}: has no id, so that nobody knows which clip is which; add the names of its clips")
    for name, value in (("id", part["id"]), (key, sequences)):
        if not isinstance(value, list | tuple | np.ndarray) or (isinstance(value, np.ndarray) and not value.ndim):
            raise UserError(f"{where}: {name} is no list, with an entry for each clip; write it again")
    names = [_names(each) for each in part["id"]]
    if len(sequences) != len(names):
        raise UserError(f"{where}: {len(sequences)} sequences of {key} for {len(names)} ids; write it again")
    lengths = _lengths(part, key, modality, len(names), where)

    def rows(i: int, place: str) -> np.ndarray:
        return without_padding(as_rows(_plain(sequences[i], place), place), None if lengths is None else lengths[i])

    places = [f"{where} {own[0][:80]}" for own in names]
    return [one_of_several(partial(rows, i, place), names[i], place) for i, place in enumerate(places)]


def _lengths(part: Mapping[Any, Any], key: str, modality: str, count: int, where: str) -> np.ndarray | None:
    """Rows of each clip that are no padding (N,); None when nothing says them."""
    found = next((part[name] for name in (f"{key}_lengths", f"{modality}_lengths") if name in part), None)
    if found is None and modality == "text" and "text_bert" in part:
        tokens = _plain(part["text_bert"], where)  # (N, 3, T): numbers, attention masks, segments
        found = tokens[:, 1].sum(axis=-1) if tokens.ndim == 3 and tokens.shape[1] == 3 else None  # (N,)
    if found is None:
        return None
    lengths = np.asarray(_plain(found, where))
    if lengths.dtype.kind not in "fiu" or lengths.size != count or not np.isfinite(lengths).all():
        raise UserError(f"{where}: {lengths.size} lengths of {key} for {count} ids; write it again")
    return lengths.astype(np.int64).ravel()


def without_padding(values: np.ndarray, length: int | None) -> np.ndarray:
    """The rows of (T, C) that are no padding: `length` of them, which MMSA-FET may put at the end, behind zeros;
    without a length, those between the rows of zeros at both ends."""
    real = np.flatnonzero((values != 0).any(axis=1))
    first, last = (int(real[0]), int(real[-1]) + 1) if len(real) else (0, 0)
    if length is None:
        return values[first:last]
    length = min(max(length, 0), len(values))
    is_behind = last > length and first >= len(values) - length
    return values[len(values) - length :] if is_behind else values[:length]


def _names(value: Any) -> list[str]:
    """What a clip may be called by its id: MMSA joins the video and the number of the segment by $_$."""
    if isinstance(value, list | tuple | np.ndarray) and np.ndim(value):
        name = "$_$".join(_text(part) for part in value)
    else:
        name = _text(value)
    return [name, name.replace("$_$", "/"), name.replace("$_$", "_")] if "$_$" in name else [name]


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def _key(content: Mapping[Any, Any], modality: str) -> str | None:
    return next((key for key in KEYS[modality] if key in content), None)


def _found(content: Mapping[Any, Any], modality: str, where: str) -> str:
    key = _key(content, modality)
    if key is not None:
        return key
    if modality == "text" and "text_bert" in content:
        raise UserError(f"{where}: holds token numbers (text_bert), no features of the words")
    raise UserError(f"{where}: holds no {modality}, but {first_few([str(each) for each in content], 6) or 'nothing'}")


def _plain(value: Any, where: str) -> np.ndarray:
    """An array of numbers from an array or lists. UserError for anything else."""
    try:
        return np.asarray(value) if not isinstance(value, np.ndarray) or value.dtype != object else np.stack([*value])
    except (TypeError, ValueError):
        raise UserError(f"{where}: holds no array of numbers (T, channels); write it again") from None
