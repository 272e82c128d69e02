"""Where pairs come from: one file per kind, all behind one registry.

`open_source` opens a source. Its items are row numbers (`TableSource`) or stream records (`StreamSource`) and open no
media; `sample` does, in the process that needs the item.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import UserError
from shared.registry import Registry

if TYPE_CHECKING:
    from stage1_align.config import SourceConfig
    from stage1_align.data.sources.base import PairSource

SOURCES = Registry(
    "source",
    {
        "clips": "stage1_align.data.sources.clips:open_clips",
        "csv": "stage1_align.data.sources.csv:open_csv",
        "hf": "stage1_align.data.sources.hf:open_hf",
        "webdataset": "stage1_align.data.sources.webdataset:open_webdataset",
    },
)
"""Each is `open(path: str, split: str, options: dict) -> PairSource`."""


def open_source(config: "SourceConfig", split: str) -> "PairSource":
    """One split of a source. UserError if its path does not exist, or it has no such split."""
    if not config.path:
        raise UserError(f"a source of kind {config.kind!r} has no path: say where its files are")
    return SOURCES.get(config.kind)(str(Path(config.path).expanduser()), split, config.options)
