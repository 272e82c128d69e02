"""The layouts for a source of clips, and the function that reads a source in any of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from shared import config as configuration
from shared.dataset.clip import ClipSource
from shared.errors import UserError
from shared.files import NO_FILE, is_special
from shared.layouts.folder_tables import folder_table
from shared.layouts.ravdess import is_manifest
from shared.registry import Registry
from shared.tables.cells import clean
from shared.tables.formats import is_table

LAYOUTS = Registry(
    "layout",
    {
        "csv": "shared.layouts.csv:Csv",
        "folder": "shared.layouts.folder:Folder",
        "goemotions": "shared.layouts.goemotions:GoEmotions",
        "hf": "shared.layouts.hf:HuggingFace",
        "ravdess": "shared.layouts.ravdess:Ravdess",
        "vidmimic2": "shared.layouts.vidmimic2.layout:Vidmimic2",
    },
)
"""Each layout is a dataclass with the layout's options as fields and `read(source: Path) -> ClipSource`."""


def read_source(source: Path, layout: str | None = None, options: dict[str, Any] | None = None) -> ClipSource:
    """All clips of a file or folder. options: options of the layout, see its class.

    Default layout: "csv" for a table or a folder with a labels.csv or metadata.csv, "vidmimic2" for a folder with a
    train_split.csv, "ravdess" for its manifest.csv, "hf" for files written by Hugging Face datasets, otherwise
    "folder". UserError if `source` does not exist or has no clips, if two clips share an id, or if the layout has no
    such option.
    """
    source = Path(source)
    require_source(source)
    layout = layout or guess_layout(source)
    for name in [name for name in ("label_range", "missing_labels") if name in (options or {})]:
        value = (options or {})[name]
        shown = ",".join(map(str, value)) if isinstance(value, list) else str(value).replace("'", "")
        shown = f"'{shown}'" if " " in shown else shown
        raise UserError(f"--layout_options {name}: labels are not layout options; write --{name}={shown}")
    reader = configuration.build(LAYOUTS.get(layout), options or {}, f"layout {layout!r}")
    clip_source = reader.read(source)
    if not clip_source.clips:
        why = f": {'; '.join(clip_source.notes)}" if clip_source.notes else ""
        raise UserError(f"{source}: no clips here (read with layout {layout!r}){why}")
    # A file name on disk need not be valid Unicode; an id is.
    clip_source.clips = [
        replace(clip, id=clean(clip.id.encode(errors="backslashreplace").decode())) for clip in clip_source.clips
    ]
    ids: set[str] = set()
    for clip in clip_source.clips:
        if clip.id in ids:
            raise UserError(f"{source}: two clips are called {clip.id!r}; ids must be unique")
        ids.add(clip.id)
    return clip_source


def require_source(path: Path) -> None:
    """UserError if there is no file or folder."""
    if is_special(path):
        raise UserError(f"{path}: {NO_FILE}")
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")


def guess_layout(source: Path) -> str:
    """The layout of an existing file or folder, guessed from its file names. UserError for a table in an unsupported
    format, and for a folder with tables if it is not clear which one to read."""
    if source.is_file():
        if is_manifest(source):
            return "ravdess"
        if is_table(source):
            return "csv"
        return "hf" if source.suffix.lower() in (".parquet", ".arrow") else "folder"
    if (source / "labels.csv").is_file():
        return "csv"
    if (source / "train_split.csv").is_file():
        return "vidmimic2"
    if is_manifest(source / "manifest.csv"):
        return "ravdess"
    saved = (source / "dataset_dict.json").is_file() or (source / "state.json").is_file()
    if saved or any(source.glob("*.parquet")) or any(source.glob("data/*.parquet")):
        return "hf"
    return "folder" if folder_table(source) is None else "csv"
