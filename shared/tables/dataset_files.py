"""The files of a Hugging Face dataset on disk, with the split each belongs to."""

import re
from collections.abc import Collection
from pathlib import Path

from shared.errors import UserError
from shared.files import read_json
from shared.tables.cells import split_name


def saved_splits(source: Path) -> list[tuple[Path, str]]:
    """(folder, split) of each dataset saved by `save_to_disk` at `source`; split "" for a single dataset; [] if there
    is none."""
    if (source / "dataset_dict.json").is_file():
        folders = sorted(folder for folder in source.iterdir() if (folder / "state.json").is_file())
        return [(folder, split_name(folder.name)) for folder in folders]
    return [(source, "")] if (source / "state.json").is_file() else []


def saved_files(folder: Path) -> list[Path]:
    """The Arrow files of a saved dataset. UserError if its state.json names none."""
    state = read_json(folder / "state.json", "saved dataset", "write it again with save_to_disk")
    try:
        return [folder / file["filename"] for file in state["_data_files"]]
    except (KeyError, TypeError):
        raise UserError(f"{folder}/state.json: names no files, unlike that of a saved dataset") from None


def data_files(folder: Path, suffixes: Collection[str]) -> list[tuple[Path, str]]:
    """(file, split) of all files under a folder with these suffixes. The split is "" if neither the file's name nor
    that of its folder says one."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return [(path, _split_of(path)) for path in files]


def _split_of(path: Path) -> str:
    """The split that starts the file's name (train-00000-of-00002.parquet) or is the name of its folder."""
    for name in (re.split(r"[-_.]", path.stem)[0], path.parent.name):
        if split_name(name) in ("train", "valid", "test"):
            return split_name(name)
    return ""
