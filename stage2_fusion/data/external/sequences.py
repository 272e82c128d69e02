"""One sequence per row: Arrow and parquet tables with a column of lists of lists of numbers, as Hugging Face datasets
and pandas write them.

    id: "clip", features: [[...], ...] (T, C), times: [...] (T,), ...

Columns have the names of the arrays of a .npz (arrays.py), and a column of ids or paths names the clips. If several
columns hold sequences, the one named features or after its modality is read. If the sequences have another name and
there are columns of decimal numbers, the file is read as a table of these columns.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.errors import UserError
from shared.tables.arrow import open_table, read_columns
from shared.tables.columns import Header
from shared.text import first_few, one_line
from stage2_fusion.data.external.arrays import FEATURES, ROLES, called, is_alone, one_of_several, row_attributes
from stage2_fusion.data.external.sniff import ARROW, Sniffed
from stage2_fusion.data.external.tool_csv import naming_column
from stage2_fusion.data.external.tracks import ANY, KEYS, Track, Wanted

if TYPE_CHECKING:
    import pyarrow as pa


class Sequences:
    title = "sequences in a table"
    modalities: Sequence[str] = ANY

    def recognizes(self, file: Sniffed) -> bool:
        if file.suffix not in ARROW:
            return False
        try:
            schema = open_table(file.path).schema
        except Exception:  # Arrow raises errors of many types; reading the file as a table says which
            return False
        held = _nested(schema)
        named = called(held, (*FEATURES, *(key for keys in KEYS.values() for key in keys)))
        return bool(held) and (named is not None or not _decimals(schema))

    def read(self, path: Path, name: str, wanted: Wanted) -> list[Track]:
        wanted.refuse_columns(path)
        try:
            table = read_columns(path)
        except Exception as error:  # Arrow raises errors of many types
            raise UserError(f"{path}: not a readable table ({one_line(error, 120)}); write it again") from None
        held = _nested(table.schema)
        main = called(held, (*FEATURES, *KEYS[wanted.modality])) or (held[0] if is_alone(held, wanted) else None)
        if main is None:
            raise UserError(
                f"{path}: sequences in {first_few(held) or 'no column'}; name the column of features 'features'"
            )
        texts = {
            each: ["" if cell is None else str(cell) for cell in table[each].to_pylist()]
            for each in _names(table.schema)
        }
        named = naming_column(Header([*texts], str(path)), [*texts.values()].__getitem__)
        if named is None and table.num_rows > 1:
            raise UserError(f"{path}: {table.num_rows} sequences and no column of ids; add one")
        ids = [name or path.stem] if named is None else [*texts.values()][named]
        beside = [each for each in table.column_names if called([each], ROLES)]
        rest = [each for each in _decimals(table.schema) if each not in beside and not wanted.is_label(each)]
        notes = [f"columns not read: {first_few(rest, 6)}"] if rest else []

        def track(i: int) -> Track:
            others = row_attributes({each: table[each][i].as_py() for each in beside})
            return one_of_several(partial(_matrix, table[main][i]), [ids[i]], f"{path}: {ids[i][:80]}", others)

        tracks = [track(i) for i in range(len(ids))]
        for each in tracks:
            each.notes = notes
        return tracks

    def how(self, modality: str) -> str:
        return ""


def _nested(schema: "pa.Schema") -> list[str]:
    """The columns of lists of lists of numbers; Hugging Face's Array2D is an extension type of these."""
    import pyarrow as pa

    def inside(kind: "pa.DataType") -> "pa.DataType | None":
        kind = getattr(kind, "storage_type", kind)
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        return kind.value_type if lists else None

    def is_nested(kind: "pa.DataType") -> bool:
        rows = inside(kind)
        numbers = rows and inside(rows)
        return bool(numbers) and (pa.types.is_floating(numbers) or pa.types.is_integer(numbers))

    return [name for name in schema.names if is_nested(schema.field(name).type)]


def _names(schema: "pa.Schema") -> list[str]:
    """The columns that may name clips."""
    import pyarrow as pa

    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer)
    return [name for name in schema.names if any(is_kind(schema.field(name).type) for is_kind in kinds)]


def _decimals(schema: "pa.Schema") -> list[str]:
    """The columns of decimal numbers."""
    import pyarrow as pa

    return [name for name in schema.names if pa.types.is_floating(schema.field(name).type)]


def _matrix(cell: "pa.Scalar") -> np.ndarray:
    """(T, C). UserError when rows are missing or differ in their number of channels."""
    import pyarrow as pa
    import pyarrow.compute as pc

    cell = cell.value if isinstance(cell, pa.ExtensionScalar) else cell
    if not cell.is_valid or not len(cell.values):
        raise UserError("holds nothing")
    rows = cell.values
    widths = pc.list_value_length(rows).unique().to_pylist()
    if len(widths) > 1 or widths == [None]:
        raise UserError("rows of different lengths; write (T, channels)")
    return rows.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), widths[0])
