"""Pickles through the restricted reader (shared/layouts/vidmimic2/pickles.py): no code in them runs.

MMSA's features (github.com/thuiar/MMSA, and what MMSA-FET writes for it):

    {"train": {"id": N names, "vision": (N, T, C), "audio": ..., "text": ..., "vision_lengths": N, "audio_lengths": N,
               "text_bert": (N, 3, T), "raw_text": ..., "regression_labels": ...}, "valid": ..., "test": ...}

Rows beyond the length are padding; without lengths, rows of zeros at both ends are padding. A file may also hold one
clip, an array or {"vision": (T, C), ...}; several clips by name, {"clip": (T, C), ...} or {"clip": {"vision": ...},
...}; or a list of clips, [{"id": "clip", "vision": (T, C), ...}, ...]. A single array may be named features.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import UserError
from shared.layouts.vidmimic2.pickles import read_pickle
from shared.media.decode import MediaError
from shared.text import counted, first_few
from stage2_fusion.data.external.arrays import (
    FEATURES,
    ROLES,
    as_rows,
    called,
    clip_of,
    is_list,
    one_of_several,
    row_attributes,
    unread,
    without_padding,
)
from stage2_fusion.data.external.sniff import Sniffed
from stage2_fusion.data.external.tracks import ANY, KEYS, Track, Wanted

IDS = ("id", "ids", "name", "names", "clip", "clip_id", "video_id", "segment_id", "filename", "file", "path")
"""Keys of the names of the clips."""
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
            how = "; save arrays with NumPy, and tables as CSV or parquet" if "refused" in str(error) else ""
            raise UserError(f"{error}{how}") from None
        if columns := _columns(content):
            return _split(columns, str(path), wanted.modality)
        if not isinstance(content, dict):
            return [clip_of(_plain(content, str(path)), [name or path.stem], str(path), {})]
        if splits := _splits(content):
            return _of_splits(splits, path, wanted.modality)
        is_of_clips = wanted.name_clips(content)
        if not is_of_clips and _ids(content) and _key(content, wanted.modality):  # splits taken together
            return _split(content, str(path), wanted.modality)
        if clips := _clips(content, wanted.modality, is_of_clips):
            places = {key: f"{path}: {str(key)[:80]}" for key in clips}
            attributes = {key: row_attributes(content[key]) if isinstance(content[key], dict) else {} for key in clips}
            return [
                one_of_several(partial(_plain, each, places[key]), _names(key), places[key], attributes[key])
                for key, each in clips.items()
            ]
        if len(content) > 1 or any(_key(content, name) for name in KEYS):
            value = content[_found(content, wanted.modality, str(path))]
        else:
            value = next(iter(content.values()), [])
        return [clip_of(_plain(value, str(path)), [name or path.stem], str(path), row_attributes(content))]

    def how(self, modality: str) -> str:
        return ""


def _columns(content: Any) -> dict[Any, list[Any]] | None:
    """A list of dictionaries, one per clip, as a dictionary of lists, with None for entries that a clip lacks; None for
    anything else."""
    if not isinstance(content, list | tuple | np.ndarray) or not len(content):
        return None
    if not all(isinstance(each, dict) for each in content):
        return None
    return {key: [each.get(key) for each in content] for key in dict.fromkeys(key for each in content for key in each)}


def _splits(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The splits of a file, with lists of dictionaries as dictionaries; {} for a file without splits."""
    parts = {str(key): _columns(part) or part for key, part in content.items() if str(key) in SPLITS}
    are_all = 1 < len(parts) == len(content)
    return {key: part for key, part in parts.items() if are_all or isinstance(part, dict)}


def _of_splits(splits: Mapping[str, Any], path: Path, modality: str) -> list[Track]:
    """The clips of all splits; a split that cannot be read does not affect the others. UserError when none can be
    read."""
    tracks: list[Track] = []
    errors = []
    for key, part in splits.items():
        where = f"{path}: {key}"
        try:
            tracks += _split(part, where, modality)
        except UserError as error:
            errors.append(error)
            own = _ids(part)
            clips = f" (for {counted(len(part[own]), 'clip')})" if own else ""
            tracks.append(unread([], where, str(error).removeprefix(f"{where}: ") + clips))
    if len(errors) == len(splits):
        raise errors[0]
    return tracks


def _clips(content: Mapping[Any, Any], modality: str, certain: bool) -> dict[Any, Any]:
    """The array of each clip in a dictionary of clips; {} for any other dictionary. certain: whether its keys are known
    to name clips, even if they look like modalities."""
    if not certain and any(_key(content, name) for name in KEYS):
        return {}
    parts = {key: value for key, value in content.items() if isinstance(value, dict)}
    if parts and len(parts) == len(content):
        return {key: part[own] for key, part in parts.items() if (own := _key(part, modality))}
    arrays = len(content) > 1 and all(value is None or _is_array(value) for value in content.values())
    return dict(content) if arrays else {}


def _is_array(value: Any) -> bool:
    """Whether this may be an array, or a list of rows."""
    if isinstance(value, list | tuple):
        return bool(value) and isinstance(value[0], list | tuple | np.ndarray)
    return isinstance(value, np.ndarray) and value.ndim > 0


def _split(part: Any, where: str, modality: str) -> list[Track]:
    """The clips of a split. UserError when it lacks the modality or the ids, or their numbers differ."""
    if not isinstance(part, dict):
        raise UserError(f"{where}: no dictionary of id, {modality}, ..., nor a list of such; write one")
    key = _found(part, modality, where)
    sequences = part[key]
    named = next((name for name in IDS if name in part), None)
    if named is None:
        raise UserError(f"{where}: has no id, so the clips cannot be identified; add the names of its clips")
    for name, value in ((named, part[named]), (key, sequences)):
        if not is_list(value):
            raise UserError(f"{where}: {name} is no list, with an entry for each clip; write it again")
    names = [_names(each) for each in part[named]]
    if len(sequences) != len(names):
        raise UserError(f"{where}: {len(sequences)} sequences of {key} for {len(names)} ids; write it again")
    lengths = _lengths(part, key, modality, len(names), where)

    def rows(i: int, place: str) -> np.ndarray:
        if sequences[i] is None:
            raise UserError(f"{place}: holds no {modality}")
        return without_padding(as_rows(_plain(sequences[i], place), place), None if lengths is None else lengths[i])

    places = [f"{where} {own[0][:80]}" for own in names]
    beside = {
        name: part[name]
        for name in part
        if called([name], ROLES) and is_list(part[name]) and len(part[name]) == len(names)
    }

    def track(i: int, place: str) -> Track:
        attributes = row_attributes({name: values[i] for name, values in beside.items()})
        return one_of_several(partial(rows, i, place), names[i], place, attributes)

    return [track(i, place) for i, place in enumerate(places)]


def _lengths(part: Mapping[Any, Any], key: str, modality: str, count: int, where: str) -> np.ndarray | None:
    """The rows of each clip without padding (N,); None if the file does not say."""
    stored = next((part[name] for name in (f"{key}_lengths", f"{modality}_lengths") if name in part), None)
    if stored is None and modality == "text" and "text_bert" in part:
        tokens = _plain(part["text_bert"], where)  # (N, 3, T): numbers, attention masks, segments
        stored = tokens[:, 1].sum(axis=-1) if tokens.ndim == 3 and tokens.shape[1] == 3 else None  # (N,)
    if stored is None:
        return None
    lengths = np.asarray(_plain(stored, where))
    if lengths.dtype.kind not in "fiu" or lengths.size != count or not np.isfinite(lengths).all():
        raise UserError(f"{where}: {lengths.size} lengths of {key} for {count} ids; write it again")
    return lengths.astype(np.int64).ravel()


def _names(value: Any) -> list[str]:
    """The names that a clip may have by its id: MMSA joins the video and the number of the segment by $_$."""
    if isinstance(value, list | tuple | np.ndarray) and np.ndim(value):
        name = "$_$".join(_text(part) for part in value)
    else:
        name = _text(value)
    return [name, name.replace("$_$", "/"), name.replace("$_$", "_")] if "$_$" in name else [name]


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def _ids(content: Any) -> str | None:
    """The key under which a dictionary lists the names of clips; None for none."""
    named = next((name for name in IDS if name in content), None) if isinstance(content, dict) else None
    return named if named and is_list(content[named]) else None


def _key(content: Mapping[Any, Any], modality: str) -> str | None:
    """The key of the features of a modality; in a dictionary that names no modality, features may be of any."""
    own = next((key for key in KEYS[modality] if key in content), None)
    if own or any(key in content for keys in KEYS.values() for key in keys):
        return own
    return next((key for key in FEATURES if key in content), None)


def _found(content: Mapping[Any, Any], modality: str, where: str) -> str:
    key = _key(content, modality)
    if key is not None:
        return key
    if modality == "text" and "text_bert" in content:
        raise UserError(f"{where}: holds token numbers (text_bert), no features of the words")
    raise UserError(f"{where}: holds no {modality}, but {first_few([str(each) for each in content], 6) or 'nothing'}")


def _plain(value: Any, where: str) -> np.ndarray:
    """An array of numbers from an array or lists. UserError for anything else."""
    if value is None:
        raise UserError(f"{where}: holds nothing")
    try:
        return np.asarray(value) if not isinstance(value, np.ndarray) or value.dtype != object else np.stack([*value])
    except (TypeError, ValueError):
        raise UserError(f"{where}: holds no array of numbers (T, channels); write it again") from None
