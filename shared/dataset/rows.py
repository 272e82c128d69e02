"""Read the rows of a dataset folder: Arrow files with the expected columns, memory-mapped, and nothing else.

The files are written by `save_to_disk` of Hugging Face datasets. Its state.json, dataset_info.json and the types in the
schema may name other files and media to open, so they are not read.
"""

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import UserError
from shared.saved.checksum import inside
from shared.text import one_line

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

NUMBERED = re.compile(r"data-(\d{5})-of-(\d{5})\.arrow")


def load_rows(folder: Path, columns: "pa.Schema", how: str, optional: Collection[str] = ()) -> "datasets.Dataset":
    """The rows of FOLDER/data with these columns. Columns in `optional` may be missing, because earlier versions did
    not write them. UserError if a file is missing or damaged, if another column is missing, or if a column has another
    type or an empty cell; `how` says how to repair the dataset."""
    import datasets
    from datasets.table import MemoryMappedTable, concat_tables

    try:
        table = concat_tables([MemoryMappedTable.from_file(str(path)) for path in _files(folder)])
        table = table.replace_schema_metadata(None)
        present = [each for each in columns if each.name not in optional or each.name in table.column_names]
        _check(table, present)
        table.validate(full=True)
        return datasets.Dataset(table.select([each.name for each in present]), fingerprint="rows")
    except UserError as error:
        raise UserError(f"{folder}: damaged rows ({error}); {how}") from None
    except Exception as error:  # Arrow and datasets raise errors of many types
        raise UserError(f"{folder}: damaged rows ({one_line(error, 200)}); {how}") from None


def _files(folder: Path) -> list[Path]:
    """The Arrow files, in order."""
    names = sorted(path.name for path in (Path(folder) / "data").glob("data-*.arrow"))
    matches = [NUMBERED.fullmatch(name) for name in names]
    numbers = [(int(match[1]), int(match[2])) for match in matches if match]
    if not names or numbers != [(number, len(names)) for number in range(len(names))]:
        raise UserError(f"data holds {', '.join(names[:3]) or 'no Arrow file'}, which are not all files of a dataset")
    return [inside(folder, f"data/{name}") for name in names]


def _check(table: "pa.Table", columns: Iterable["pa.Field"]) -> None:
    for field in columns:
        if field.name not in table.column_names:
            raise UserError(f"no column {field.name}")
        kind = table.schema.field(field.name).type
        if _plain(kind) != _plain(field.type):
            raise UserError(f"column {field.name} is {kind}, not {field.type}")
        if table.column(field.name).null_count:
            raise UserError(f"column {field.name} has empty cells")


def _plain(kind: "pa.DataType") -> str:
    """The type in words, independent of the item names of lists."""
    import pyarrow as pa

    return f"list of {_plain(kind.value_type)}" if pa.types.is_list(kind) else str(kind)
