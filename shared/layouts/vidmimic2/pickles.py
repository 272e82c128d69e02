"""Features that came with a dataset, as pickles of one NumPy array a clip: read without running what is in them.

Hume-Vidmimic2: vit/00000.pkl (T, 384), one row a face crop; wav2vec2/00000.pkl (T, 768), about 50 rows a second.
"""

import codecs
import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.media.decode import MediaError
from shared.text import one_line

WIDTHS = {"vit": 384, "wav2vec2": 768}
"""Folder -> columns of its features."""
FOLDERS = {"vision": "vit", "audio": "wav2vec2"}
AUDIO_HZ = 50.0
"""Steps of wav2vec 2.0 a second: 320 samples at 16 kHz."""
LARGEST = 1 << 30
"""Bytes of a pickle that are read: the longest clip distributed has 62,495 steps, 192 MB."""


class _ArrayType:
    """Stands for `numpy.ndarray`, which if called makes arrays of any shape, of whatever was in memory."""


class _Kind:
    """Stands for `numpy.dtype`. Of what a pickle sets in one only the byte order is taken: the rest follows from the
    name, and set otherwise would make an array larger than its bytes."""

    def __init__(self, name: str, align: bool = False, copy: bool = True):
        self.dtype = np.dtype(name)
        if self.dtype.hasobject:  # bytes would be taken for pointers
            raise pickle.UnpicklingError("an array of objects; it is not run")

    def __setstate__(self, state: tuple):
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """Filled by a pickle with as many bytes as it needs."""

    def __setstate__(self, state: tuple):
        version, shape, kind, fortran, data = state
        super().__setstate__((version, shape, kind.dtype, fortran, data))


def _reconstruct(kind: type, shape: tuple, code: bytes) -> _Array:
    """The array that is filled afterwards; NumPy asks for an empty one always."""
    if kind is not _ArrayType or shape != (0,):
        raise pickle.UnpicklingError("it wants an array of something else than it holds")
    return np.empty(0, np.int8).view(_Array)


def _frombuffer(data: bytes, kind: _Kind, shape: tuple, order: str) -> np.ndarray:
    return np.frombuffer(data, kind.dtype).reshape(shape, order=order)


def _scalar(kind: _Kind, data: bytes):
    return np.frombuffer(data, kind.dtype, 1)[0]


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as old pickles spell them."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it wants to encode as {encoding}; it is not run")
    return codecs.encode(text, "latin1")


STANDS_FOR = {
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _Kind,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
}
"""All that a pickled array needs, and what it gets."""


class _ArraysOnly(pickle.Unpickler):
    """Builds NumPy arrays and Python's plain values, and calls nothing else."""

    def find_class(self, module: str, name: str):
        # NumPy 2 renamed the module; arrays it pickled are the same.
        module = module.replace("numpy._core", "numpy.core", 1) if module.startswith("numpy._core") else module
        if (module, name) not in STANDS_FOR:
            raise pickle.UnpicklingError(f"it wants {module}.{name}, which features do not need; it is not run")
        return STANDS_FOR[module, name]


def read_features(path: Path, width: int | None = None) -> np.ndarray:
    """float32 (T, C) from a pickled array, list of rows, or {"...": array}; T may be 0. MediaError, in one line, when
    the file cannot be read, holds something else, is not of `width` columns, or has values that are not finite."""
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST:
            raise MediaError(f"{path}: larger than {LARGEST >> 30} GiB")
        data = path.read_bytes()
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror or error}") from None
    if not data:
        raise MediaError(f"{path}: the file is empty")
    try:
        value = _ArraysOnly(io.BytesIO(data)).load()
    except Exception as error:  # a damaged pickle raises what its garbled commands happen to raise
        reason = one_line(error, 160)
        raise MediaError(f"{path}: not a readable pickle ({reason})") from None
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    try:
        if isinstance(value, np.ndarray) and value.dtype.kind not in "fiu":
            raise ValueError(f"an array of {value.dtype}")
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        reason = one_line(error, 100)
        raise MediaError(f"{path}: holds no array of numbers ({reason})") from None
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 1 and len(array):
        array = array[None]  # (1, C)
    if array.size == 0:
        return np.zeros((0, width or array.shape[-1]), np.float32)
    if array.ndim != 2 or (width is not None and array.shape[1] != width):
        wanted = f"(T, {width or 'C'})"
        raise MediaError(f"{path}: an array of shape {array.shape} where {wanted} is needed")
    if not np.isfinite(array).all():
        raise MediaError(f"{path}: {int((~np.isfinite(array)).any(axis=1).sum())} of {len(array)} rows are not finite")
    return np.ascontiguousarray(array)


@dataclass
class ClipFeatures:
    """The features of a clip. What is missing or unreadable has T = 0, and says why."""

    vision: np.ndarray
    """float32 (T, 384), one row a face crop."""
    audio: np.ndarray
    """float32 (T, 768), AUDIO_HZ rows a second."""
    troubles: list[str] = field(default_factory=list)


def read_clip_features(root: Path, clip_id: str, split: str = "") -> ClipFeatures:
    """The features of a clip of Hume-Vidmimic2 at `root`; of the test split from test_data/ where they lie there."""
    found, troubles = {}, []
    for modality, folder in FOLDERS.items():
        path = Path(root) / folder / f"{clip_id}.pkl"
        of_test = Path(root) / "test_data" / folder / path.name
        if split == "test" and of_test.exists():
            path = of_test
        try:
            found[modality] = read_features(path, WIDTHS[folder])
            troubles += [f"{path}: no steps in it"] if not len(found[modality]) else []
        except MediaError as error:
            found[modality] = np.zeros((0, WIDTHS[folder]), np.float32)
            troubles.append(str(error))
    return ClipFeatures(found["vision"], found["audio"], troubles)
