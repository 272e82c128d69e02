"""The precomputed features of Hume-Vidmimic2, one pickled NumPy array per clip. Code in a pickle is never executed.

vit/00000.pkl (T, 384), one row per face crop; wav2vec2/00000.pkl (T, 768), about 50 rows per second.
"""

import codecs
import io
import math
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from shared.media.decode import MediaError
from shared.text import one_line

WIDTHS = {"vit": 384, "wav2vec2": 768}
"""Folder -> columns of its features."""
FEATURE_FOLDERS = {"vision": "vit", "audio": "wav2vec2"}
AUDIO_HZ = 50.0
"""Steps of wav2vec 2.0 per second: one per 320 samples at 16 kHz."""
MAX_BYTES = 1 << 30
"""Larger pickles are refused: the longest clip of the dataset has 62,495 steps, 192 MB."""


class _ArrayType:
    """Replaces `numpy.ndarray`, which could create arrays of any shape from uninitialized memory."""


class _DType:
    """Replaces `numpy.dtype`. It uses only the byte order of the pickled state: the rest follows from the name, and a
    different state could make an array larger than its bytes."""

    objects = False
    """Whether arrays of Python values are allowed, which are pickled as a list."""

    def __init__(self, name: str, align: bool = False, copy: bool = True):
        self.dtype = np.dtype(name)
        if self.dtype.hasobject and not (self.objects and self.dtype == object):
            raise pickle.UnpicklingError("object arrays are not allowed")

    def of_bytes(self) -> np.dtype:
        """The type of an array given as bytes; not objects, because their bytes would be read as pointers."""
        if self.dtype.hasobject:
            raise pickle.UnpicklingError("object arrays are not allowed")
        return self.dtype

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _DTypeOrObject(_DType):
    objects = True


class _Array(np.ndarray):
    """Filled from a pickle, which must have exactly the bytes of the array."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, fortran, data = state
        if dtype.dtype.hasobject and not (type(data) is list and len(data) == math.prod(shape)):
            raise pickle.UnpicklingError("malformed array of objects")  # NumPy reads as many as the shape says
        super().__setstate__((version, shape, dtype.dtype, fortran, data))


def _reconstruct(kind: type, shape: tuple, code: bytes) -> _Array:
    """The array to fill afterwards; NumPy always requests an empty one."""
    if kind is not _ArrayType or shape != (0,):
        raise pickle.UnpicklingError("malformed array constructor")
    return np.empty(0, np.int8).view(_Array)


def _frombuffer(data: bytes, dtype: _DType, shape: tuple, order: Literal["C", "F"]) -> np.ndarray:
    return np.frombuffer(data, dtype.of_bytes()).reshape(shape, order=order)


def _scalar(dtype: _DType, data: bytes) -> np.generic:
    return np.frombuffer(data, dtype.of_bytes(), 1)[0]


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as encoded in old pickles."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"unsupported encoding {encoding}")
    return codecs.encode(text, "latin1")


REPLACEMENTS = {
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
}
"""{everything a pickled array needs: its safe replacement}."""


class _ArraysOnly(pickle.Unpickler):
    """Builds only NumPy arrays and plain Python values; nothing else is called."""

    replacements = REPLACEMENTS

    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 renamed the module; its arrays are pickled the same way.
        module = module.replace("numpy._core", "numpy.core", 1) if module.startswith("numpy._core") else module
        if (module, name) not in self.replacements:
            raise pickle.UnpicklingError(f"refused: pickle references {module}.{name}; only NumPy arrays are allowed")
        return self.replacements[module, name]


def _dictionary(*_: Any) -> dict:
    """Replaces an OrderedDict or a defaultdict, and is filled afterwards."""
    return {}


class _ArraysOfObjects(_ArraysOnly):
    """Also builds arrays of plain Python values, such as ids and transcripts, and the dictionaries of collections."""

    replacements = REPLACEMENTS | {
        ("numpy", "dtype"): _DTypeOrObject,
        ("collections", "OrderedDict"): _dictionary,
        ("collections", "defaultdict"): _dictionary,
        ("builtins", "dict"): _dictionary,  # the default factory of a defaultdict; never called
        ("builtins", "list"): _dictionary,
    }


def read_pickle(path: Path, max_bytes: int = MAX_BYTES, objects: bool = False) -> Any:
    """The arrays and plain values in a pickle, including Python 2 pickles. objects: allow arrays of plain values.
    MediaError, in one line, if the file cannot be read, is larger than `max_bytes` or contains anything else."""
    path = Path(path)
    try:
        if path.stat().st_size > max_bytes:
            raise MediaError(f"{path}: larger than {max_bytes >> 30} GiB")
        data = path.read_bytes()
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror or error}") from None
    if not data:
        raise MediaError(f"{path}: the file is empty")
    try:
        return (_ArraysOfObjects if objects else _ArraysOnly)(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise any exception
        reason = one_line(error, 160)
        raise MediaError(f"{path}: not a readable pickle ({reason})") from None


def read_features(path: Path, width: int | None = None) -> np.ndarray:
    """float32 (T, C) from a pickled array, list of rows, or {"...": array}; T may be 0. MediaError, in one line, when
    the file cannot be read, contains something else, does not have `width` columns, or has values that are not
    finite."""
    path = Path(path)
    value = read_pickle(path)
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    try:
        if isinstance(value, np.ndarray) and value.dtype.kind not in "fiu":
            raise ValueError(f"an array of {value.dtype}")
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        reason = one_line(error, 100)
        raise MediaError(f"{path}: has no array of numbers ({reason})") from None
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 1 and len(array):
        array = array[None]  # (1, C)
    if array.size == 0:
        return np.zeros((0, width or array.shape[-1]), np.float32)
    if array.ndim != 2 or (width is not None and array.shape[1] != width):
        wanted = f"(T, {width or 'C'})"
        raise MediaError(f"{path}: an array of shape {array.shape}; expected {wanted}")
    if not np.isfinite(array).all():
        raise MediaError(f"{path}: {int((~np.isfinite(array)).any(axis=1).sum())} of {len(array)} rows are not finite")
    return np.ascontiguousarray(array)


@dataclass
class ClipFeatures:
    """The features of a clip. A missing or unreadable modality has T = 0 and a problem that says why."""

    vision: np.ndarray
    """float32 (T, 384), one row per face crop."""
    audio: np.ndarray
    """float32 (T, 768), AUDIO_HZ rows per second."""
    problems: list[str] = field(default_factory=list)


def read_clip_features(root: Path, clip_id: str, split: str = "") -> ClipFeatures:
    """The features of a clip of Hume-Vidmimic2 at `root`. Test clips may have them in test_data/."""
    features: dict[str, np.ndarray] = {}
    problems: list[str] = []
    for modality, folder in FEATURE_FOLDERS.items():
        path = Path(root) / folder / f"{clip_id}.pkl"
        test_path = Path(root) / "test_data" / folder / path.name
        if split == "test" and test_path.exists():
            path = test_path
        try:
            features[modality] = read_features(path, WIDTHS[folder])
            problems += [f"{path}: has no steps"] if not len(features[modality]) else []
        except MediaError as error:
            features[modality] = np.zeros((0, WIDTHS[folder]), np.float32)
            problems.append(str(error))
    return ClipFeatures(features["vision"], features["audio"], problems)
