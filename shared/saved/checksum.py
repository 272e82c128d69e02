"""The checksum of a saved folder: any change after saving is detected on loading.

A saved folder has a JSON file that describes it. This file lists the other relevant files with their digests and ends
with a checksum over all of it. The checksum detects damage and edits; it is not a signature, because whoever edits a
folder can write a new checksum, as `emit seal` does. Model cards and reports are not covered.
"""

import functools
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from shared.errors import UserError
from shared.files import digest, is_digest, write_json

MAX_DESCRIPTION = 2**28
"""Bytes. A description of a million clips has a tenth of this size."""


@dataclass(frozen=True)
class FolderKind:
    """One kind of saved folder."""

    what: str
    """Its name in messages."""
    description: str
    """The JSON file."""
    format: str
    """Its `format`."""
    unsealed: str
    """The previous format, which only lacked the checksum. Digests of a dataset's content still include its name, so
    that equal content keeps its digest."""
    covers: tuple[str, ...]
    """Patterns of the files that the checksum covers, in the order of their digests."""
    how: str
    """How to create such a folder."""


ENCODERS = FolderKind(
    "exported encoders",
    "config.json",
    "emit-encoders/2",
    "emit-encoders/1",
    ("model.safetensors", "tokenizer/*"),
    "make them with `emit export RUN --out DIR`",
)
FUSION = FolderKind(
    "fusion model",
    "config.json",
    "emit-fusion/3",
    "emit-fusion/2",
    ("model.safetensors", "metrics.json", "calibration.safetensors", "training_clips.safetensors"),
    "give the `model` folder of an `emit fuse` run",
)
CLIPS = FolderKind(
    "clip dataset",
    "dataset.json",
    "emit-clips/2",
    "emit-clips/1",
    ("data/data-*.arrow", "splits.csv"),
    "make it with `emit prepare`",
)
FEATURES = FolderKind(
    "feature dataset",
    "features.json",
    "emit-features/2",
    "emit-features/1",
    ("data/data-*.arrow", "splits.csv"),
    "make it with `emit encode`",
)
KINDS = (ENCODERS, FUSION, CLIPS, FEATURES)


# --- writing ---------------------------------------------------------------------------------------------------------


def write_description(folder: Path, kind: FolderKind, content: dict[str, Any]) -> dict[str, Any]:
    """Write the description of a folder after all its other files, with their digests and the checksum. Returns the
    written content."""
    content = {name: value for name, value in content.items() if name not in ("files", "checksum")}
    content = _finite({**content, "format": kind.format, "files": file_digests(folder, kind)})
    content["checksum"] = checksum(content)
    write_json(folder / kind.description, content)
    return content


def _finite(value: Any) -> Any:
    """The value with null in place of non-finite numbers, such as the score of a constant prediction."""
    if isinstance(value, dict):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def checksum(content: dict[str, Any]) -> str:
    """Checksum of the description as JSON, without the checksum itself."""
    return digest(json.loads(json.dumps({name: value for name, value in content.items() if name != "checksum"})))


def file_digests(folder: Path, kind: FolderKind) -> dict[str, str]:
    """{name: digest} of the files that the checksum covers."""
    names = [
        path.relative_to(folder).as_posix()
        for pattern in kind.covers
        for path in sorted(Path(folder).glob(pattern))
        if not path.name.startswith(".")
    ]
    return {name: _file_digest(inside(folder, name)) for name in names}


def _file_digest(path: Path) -> str:
    """Cached digest of an unchanged file: one command opens the same dataset several times."""
    status = path.stat()
    return _digest_of(path.absolute(), (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))


@functools.lru_cache(maxsize=4096)
def _digest_of(path: Path, status: tuple[int, ...]) -> str:
    return digest(path)


# --- reading ---------------------------------------------------------------------------------------------------------


def read_description(folder: Path, kind: FolderKind, again: str = "") -> dict[str, Any]:
    """The description of an unchanged saved folder. UserError if it is missing, damaged, of another format, or if it or
    a covered file has changed; `again` says how to get an undamaged one, by default how to create one."""
    folder, again = Path(folder), again or kind.how
    content = read_sealed_json(folder, kind.description, kind.what, kind.how)
    format_name = content.get("format")
    if format_name == kind.unsealed:
        raise UserError(
            f"{folder}: {kind.what} of an earlier version, without a checksum; if they are yours, run "
            f"`emit seal {folder}`, else {again}"
        )
    if format_name != kind.format:
        raise UserError(f"{folder}: format {str(format_name)[:60]!r} where {kind.format!r} is read; {kind.how}")
    _refuse_links(folder)
    files = content.get("files")
    if not isinstance(files, dict) or content.get("checksum") != checksum(content):
        _changed(folder, kind.description, again)
    stored = file_digests(folder, kind)
    for name in sorted(files.keys() | stored.keys()):
        if files.get(name) != stored.get(name):
            what = "is missing" if name not in stored else "changed" if name in files else "is new"
            _changed(folder, name, again, what)
    return content


def _changed(folder: Path, name: str, again: str, what: str = "changed") -> NoReturn:
    raise UserError(
        f"{folder}: {name} {what} since the folder was saved; {again}, or, if you changed it on purpose, run "
        f"`emit seal {folder}`"
    )


def read_sealed_json(folder: Path, name: str, what: str, how: str) -> dict[str, Any]:
    """A JSON object in a saved folder, without numbers such as NaN. UserError if it is missing or damaged."""
    path = Path(folder) / name
    try:
        if not path.is_file():
            raise FileNotFoundError
        text = inside(folder, name).read_bytes()[: MAX_DESCRIPTION + 1]
        if len(text) > MAX_DESCRIPTION:
            raise UserError(f"{path}: damaged {what} (longer than {MAX_DESCRIPTION} bytes); {how}")
        content = json.loads(text.decode("utf-8"), parse_constant=_reject_constant)
    except OSError:
        raise UserError(_missing(Path(folder), name, what, how)) from None
    except (ValueError, RecursionError) as error:
        if "null byte" in str(error):  # no file can have this name
            raise UserError(f"{folder!r}: no {what} here; {how}") from None
        raise UserError(f"{path}: damaged {what} ({str(error)[:100]}); {how}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: damaged {what} (it holds {type(content).__name__}, not an object); {how}")
    return content


def _missing(folder: Path, name: str, what: str, how: str) -> str:
    """The message that the folder does not exist, or that it is inside the given one, as after `emit run`."""
    places = ("encoders",) if what == ENCODERS.what else ("fuse/model", "model")
    inside = next((folder / place for place in places if (folder / place / name).is_file()), None)
    if inside is not None:
        return f"{folder}: no {what} here; give {inside}"
    return (
        f"{folder}: no {what} here (no such folder); {how}"
        if not folder.exists()
        else f"{folder / name}: no {what} here; {how}"
    )


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def inside(folder: Path, name: str) -> Path:
    """The file `name` of a folder. UserError if a link, or the name itself, leads out of the folder; the hub's cache
    may keep its files in `blobs` next to its snapshots."""
    target = _within(folder, name)
    if not target.is_file():
        raise UserError(f"{folder}: {name} is no file; put the file itself there")
    return target


def _refuse_links(folder: Path) -> None:
    """UserError if a link in the folder or its subfolders leads out: its target belongs to others."""
    for place, folders, files in os.walk(folder):
        for path in (Path(place) / name for name in sorted([*folders, *files])):
            if path.is_symlink():
                _within(folder, path.relative_to(folder).as_posix())


def _within(folder: Path, name: str) -> Path:
    """The target of `name` in a folder. UserError if it is outside the folder."""
    root = Path(folder).resolve()
    allowed = [root, *(path.parents[1] / "blobs" for path in (root, *root.parents) if path.parent.name == "snapshots")]
    target = (root / name).resolve()
    if not any(target.is_relative_to(place) for place in allowed):
        raise UserError(f"{folder}: {name} leads out of the folder, to {target}; put what it leads to itself there")
    return target


# --- sealing ---------------------------------------------------------------------------------------------------------


def seal(folder: Path) -> str:
    """Write the digests and the checksum of a folder that was edited on purpose, or written by an earlier version.
    Returns a line that says so. UserError if it is not a saved folder."""
    folder = Path(folder)
    kind, content = _find(folder)
    stored, old_digest = content.get("checksum"), content.get("digest")
    if kind is ENCODERS:
        content["digest"] = encoder_digest(content.get("towers"), file_digests(folder, kind))
    if kind in (CLIPS, FEATURES) and not is_digest(old_digest):
        raise UserError(f"{folder}/{kind.description}: digest is {old_digest!r:.40}: no digest; {kind.how}")
    sealed = write_description(folder, kind, content)
    if kind in (CLIPS, FEATURES) and stored not in (None, sealed["checksum"]):  # what was made of it is now stale
        sealed = write_description(folder, kind, {**content, "digest": digest([old_digest, sealed["checksum"]])})
    note = f", digest {sealed['digest']} (was {old_digest})" if sealed.get("digest") != old_digest else ""
    return f"{folder}: {kind.what} {'unchanged' if sealed['checksum'] == stored else 'sealed'}{note}"


def _find(folder: Path) -> tuple[FolderKind, dict[str, Any]]:
    """The kind of a saved folder and its description."""
    for kind in KINDS:
        if (folder / kind.description).is_file():
            content = read_sealed_json(folder, kind.description, kind.what, kind.how)
            if content.get("format") in (kind.format, kind.unsealed):
                return kind, content
    formats = ", ".join(kind.format for kind in KINDS)
    raise UserError(f"{folder}: no saved folder; give one with a description of a format {formats}")


def encoder_digest(towers: Any, files: dict[str, str]) -> str:
    """Identifies encoders by their towers and the digests of their files, independent of the training record."""
    return digest([towers, list(files.values())])
