"""Where pairs come from: one file a kind, all behind one registry.

A source is opened by `open_source` and gives items: places in a table (`Table`), or records of a stream (`Stream`).
Neither opens media; `sample` does, in whichever process the item is needed.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import UserError
from shared.registry import Registry

if TYPE_CHECKING:
    from stage1_align.config import SourceConfig
    from stage1_align.data.sources.base import Source

SOURCES = Registry(
    "source",
    {
        "clips": "stage1_align.data.sources.clips:open_clips",
        "csv": "stage1_align.data.sources.csv:open_csv",
        "hf": "stage1_align.data.sources.hf:open_hf",
        "webdataset": "stage1_align.data.sources.webdataset:open_webdataset",
    },
)
"""Each is `open(path: str, split: str, options: dict) -> Source`."""


def open_source(config: "SourceConfig", split: str) -> "Source":
    """One split of a source; UserError when there is nothing at its path, or no such split."""
    if not config.path:
        raise UserError(f"a source of kind {config.kind!r} has no path: say where its files are")
    return SOURCES.get(config.kind)(str(Path(config.path).expanduser()), split, config.options)
