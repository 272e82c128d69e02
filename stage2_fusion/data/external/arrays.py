"""Arrays: .npy, .npz or .safetensors, one file per clip; or one .npz or .safetensors with an array named after each
clip; or an .npz with features (N, C) or (N, T, C) and N ids. Rows beyond one of N lengths are padding; without lengths,
rows of zeros at both ends are padding.

A file of one clip holds a single array, (T, C) or (C,) for one step; or an array named features or after its modality
and, beside it, times (T,) in seconds or rate in Hz, and confidence (T,) in [0, 1]. Without times, the rows are spread
over the clip. Other arrays are not read; a note names them.

Arrays (C, T) are refused if clips differ in length, since all have the same number of rows. If there are fewer than
three shapes, (C, T) cannot be told from (T, C), and the arrays are read as (T, C).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import UserError
from shared.media.arrays import to_array
from shared.tables.columns import normalize_name
from shared.text import first_few, one_line
from stage2_fusion.data.external.sniff import Sniffed
from stage2_fusion.data.external.tracks import ANY, KEYS, Track, Wanted

FEATURES = ("features", "feature", "embeddings", "embedding", "values", "x", "arr0")
NAMELESS = ""
"""The name given to the array of a .npy."""
TIMES = ("times", "timestamps", "time", "timestamp")
RATES = ("rate", "hz", "fps", "framerate")
LENGTHS = ("lengths", "length", "seqlens", "seqlengths")
CONFIDENCE = ("confidence", "confidences", "score")
ROLES = (*TIMES, *RATES, *CONFIDENCE)
"""Arrays that describe the rows of another one."""
IDS = ("ids", "id", "names", "clips", "clipids", "filenames", "files", "paths")


class Arrays:
    title = "arrays"
    modalities: Sequence[str] = ANY

    def recognizes(self, file: Sniffed) -> bool:
        return file.suffix in (".npy", ".npz", ".safetensors")

    def read(self, path: Path, name: str, wanted: Wanted) -> list[Track]:
        wanted.refuse_columns(path)
        arrays = read_arrays(path)
        names = (*FEATURES, *KEYS[wanted.modality])
        main = called(arrays, names)
        rest = [key for key in arrays if normalize_name(key) not in ROLES]
        if is_of_clips := len(rest) > 1 and wanted.name_clips(rest):
            main = None
        if main is not None and (ids := called(arrays, IDS)):
            return _clips_in_rows(arrays, main, ids, str(path))
        if not name and {"arr_0", "arr_1"} <= {*rest}:
            raise UserError(f"{path}: {len(rest)} arrays without names; np.savez(path, **{{clip: array}}) gives them")
        if main is not None or is_alone(rest, wanted):
            own = [name or path.stem, *(rest if len(rest) == 1 and not (main and name) else [])]
            track = clip_of(arrays[main or rest[0]], [*filter(None, own)], str(path), arrays)
            others = {key for names in KEYS.values() for key in names}
            if unread := [key for key in rest if key != main and key not in others] if main else []:
                track.notes.append(f"arrays not read: {first_few(unread)}; times are called times, or rate in Hz")
            return [track]
        if len(rest) < 2 or (name and not is_of_clips):
            raise UserError(f"{path}: holds {first_few(rest) or 'no array'}; call the one with the features 'features'")
        return [one_of_several(partial(arrays.get, key), [key], f"{path}: {key}") for key in rest]

    def how(self, modality: str) -> str:
        return ""


def is_alone(keys: Sequence[str], wanted: Wanted) -> bool:
    """Whether there is only one array, and it is not named after another modality."""
    others = [key for name, own in KEYS.items() if name != wanted.modality for key in own]
    return len(keys) == 1 and (called(keys, others) is None or wanted.name_clips(keys))


def _clips_in_rows(arrays: Mapping[str, np.ndarray], main: str, ids: str, path: str) -> list[Track]:
    """The clips of (N, C) or (N, T, C) with N names. UserError when these numbers differ."""
    values, names, where = arrays[main], [str(name) for name in np.ravel(arrays[ids])], f"{path}: {ids}"
    if values.ndim not in (2, 3) or len(values) != len(names):
        raise UserError(f"{where}: {len(names)} names for an array of shape {values.shape}; give one for each clip")
    lengths = _beside(arrays, LENGTHS, len(names), path)

    def rows(i: int) -> np.ndarray:
        row = as_rows(values[i], f"{where} {names[i][:80]}")
        return row if values.ndim == 2 else without_padding(row, None if lengths is None else int(lengths[i]))

    return [one_of_several(partial(rows, i), [name], f"{where} {name[:80]}") for i, name in enumerate(names)]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name, NAMELESS for a .npy. UserError, in one line, when it cannot be read or holds Python
    objects."""
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:  # NumPy has no bfloat16
                return {key: np.asarray(to_array(file.get_tensor(key))) for key in file.keys()}  # noqa: SIM118
        with path.open("rb") as content:  # closed even if NumPy finds no archive in it
            loaded = np.load(content, allow_pickle=False)
            return {NAMELESS: loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except Exception as error:  # damaged files raise errors of many types
        objects = "object arrays" in str(error).lower() or "pickled" in str(error).lower()
        what = (
            "holds Python objects, which are not read" if objects else f"not a readable file ({one_line(error, 120)})"
        )
        raise UserError(f"{path}: {what}; save it again as numbers (T, channels)") from None


def clip_of(values: Any, names: list[str], where: str, beside: Mapping[str, np.ndarray]) -> Track:
    """The track of one array. beside: the other arrays of its file. UserError when it is not (T, C) of numbers."""
    values = as_rows(values, where)
    times = _beside(beside, TIMES, len(values), where)
    own = called(beside, RATES)
    if times is None and own is not None:
        rate = np.asarray(beside[own]).ravel()
        if rate.dtype.kind not in "fiu" or rate.size != 1 or not 0 < rate[0] < np.inf:
            raise UserError(f"{where}: its rate is {rate.tolist()!s:.60}; give one number of Hz above 0")
        times = (np.arange(len(values)) + 0.5) / rate[0]
    return Track(
        names=names,
        where=where,
        values=values,
        columns=[],
        times=times,
        usable=np.ones(len(values), bool),
        confidence=_beside(beside, CONFIDENCE, len(values), where),
    )


def one_of_several(
    values: Callable[[], Any], names: list[str], where: str, beside: Mapping[str, np.ndarray] | None = None
) -> Track:
    """The track of one of several arrays in a file; its problem does not affect the others."""
    try:
        return clip_of(values(), names, where, beside or {})
    except UserError as error:
        return unread(names, where, str(error).removeprefix(f"{where}: "))


def unread(names: list[str], where: str, problem: str) -> Track:
    """A placeholder for a track that cannot be read, with the reason."""
    return Track(names, where, np.zeros((0, 0)), [], None, np.zeros(0, bool), problem=problem)


def row_attributes(content: Mapping[Any, Any]) -> dict[Any, Any]:
    """The entries of a clip that describe its rows: lists of times and confidence, and a rate. A single score or time
    describes the clip."""
    own = {True: (*TIMES, *CONFIDENCE), False: RATES}
    return {key: value for key, value in content.items() if value is not None and called([key], own[is_list(value)])}


def is_list(value: Any) -> bool:
    """Whether this is a list or an array."""
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def as_rows(value: Any, where: str) -> np.ndarray:
    """float (T, C) of an array of numbers; (C,) is one step, and (1, T, C) a batch of one. UserError for others."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise UserError(f"{where}: an array of {array.dtype}, not of numbers; save it again as numbers (T, channels)")
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 1 and array.size:
        array = array[None]  # (1, C)
    if array.ndim != 2 or not array.shape[1]:
        raise UserError(f"{where}: an array of shape {array.shape}; save it as (T, channels)")
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def called(keys: Iterable[Any], names: Sequence[str]) -> Any:
    """The first key with one of these names, ignoring case; None without one."""
    keys = list(keys)
    return next((key for name in names for key in keys if normalize_name(str(key)) == name), None)


def without_padding(values: np.ndarray, length: int | None) -> np.ndarray:
    """The rows of (T, C) without padding: `length` of them, which MMSA-FET may put at the end, after zeros; without a
    length, the rows between zeros at both ends."""
    real = np.flatnonzero((values != 0).any(axis=1))
    first, last = (int(real[0]), int(real[-1]) + 1) if len(real) else (0, 0)
    if length is None:
        return values[first:last]
    length = min(max(length, 0), len(values))
    is_behind = last > length and first >= len(values) - length
    return values[len(values) - length :] if is_behind else values[:length]


def _beside(arrays: Mapping[str, np.ndarray], keys: Sequence[str], count: int, where: str) -> np.ndarray | None:
    """(T,), the first array with one of these names; None without one. UserError when it is not `count` numbers."""
    key = called(arrays, keys)
    if key is None:
        return None
    values = np.asarray(arrays[key])
    if values.dtype.kind not in "fiu" or values.size != count:
        raise UserError(f"{where}: {key} holds {values.size} values for {count} rows; give one number for each row")
    return values.astype(np.float64).ravel()
