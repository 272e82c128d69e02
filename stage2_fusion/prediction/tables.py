"""Tables of predictions (`emit predict`, `emit evaluate`, `emit submit`), and their mean."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shared.dataset.label_scale import LabelScale
from shared.errors import UserError
from shared.files import read_object, write_json
from shared.saved.typed import read_typed
from shared.tables.columns import ROW_NUMBERS
from shared.tables.formats import read_records
from shared.text import counted
from stage2_fusion.evaluation.ensembling import average_ranks
from stage2_fusion.evaluation.results import Evaluation
from stage2_fusion.evaluation.stacks import Combiner, Stack

KEY = "Filename"
HOW = "give a table of `emit predict` or `emit submit`"
PREDICT = "give a table of `emit predict`"
UNIT_ROUNDING = 1e-6
FAR = 4
"""Largest values that differ by more than this factor are on different scales, such as 1 to 7 and 0 to 100."""


@dataclass
class PredictionTable:
    """Predictions of N clips, sorted by id."""

    path: Path
    ids: list[str]
    names: list[str]
    """The K dimensions."""
    values: np.ndarray
    """float64 (N, K)."""
    scale: LabelScale | None
    """The range of each dimension, if the table lies beside the description that `emit predict` wrote."""

    def by_clip(self) -> dict[str, np.ndarray]:
        """{id: float64 (K,)}."""
        return dict(zip(self.ids, self.values, strict=True))

    @property
    def is_unit(self) -> bool:
        """Whether all values lie in [0, 1]."""
        low, high = float(self.values.min(initial=0)), float(self.values.max(initial=0))
        return low >= -UNIT_ROUNDING and high <= 1 + UNIT_ROUNDING


@dataclass
class TableDescription:
    """The JSON file beside a table of predictions."""

    label_names: list[str]
    label_ranges: dict[str, list[float]] | None = None
    """Lowest and highest value of each dimension; None means [0, 1]."""
    scale_known: bool = True
    """False for the mean of tables that do not say their ranges."""
    made_from: dict[str, Any] = field(default_factory=dict)
    """Model, clips, options."""

    def write(self, table: Path) -> None:
        write_json(description_path(table), asdict(self))

    @classmethod
    def beside(cls, table: Path) -> "TableDescription | None":
        """The description of a table, if there is one. UserError when it is damaged."""
        path = description_path(table)
        return read_typed(cls, read_object(path, "description", "delete it"), str(path)) if path.is_file() else None


def description_path(table: Path) -> Path:
    """The path of the description of a table of predictions."""
    return table.with_name(f"{table.stem}_made_from.json")


def read_prediction_table(path: Path) -> PredictionTable:
    """A table of predictions. UserError when it has no column Filename, a clip twice, or a cell that is not a
    number."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; {HOW}")
    rows = read_records(path)
    if KEY not in rows[0]:
        raise UserError(f"{path}: no column {KEY}, only {', '.join(rows[0])[:80]}; {HOW}")
    ids = [row[KEY] for row in rows]
    if repeated := [name for name, count in Counter(ids).items() if count > 1]:
        raise UserError(
            f"{path}: {counted(len(repeated), 'clip', 'occurs', 'occur')} twice, such as "
            f"{repeated[0]}; {HOW}, not its timeline"
        )
    names = [name for name in rows[0] if name != KEY and not _is_end(name, rows[0]) and not ROW_NUMBERS.fullmatch(name)]
    about = TableDescription.beside(Path(path))
    if about is not None and set(names) != set(about.label_names):
        raise UserError(f"{path}: has other columns than {description_path(Path(path)).name} says; delete that file")
    values = np.array([[_number(path, row[KEY], name, row[name]) for name in names] for row in rows])  # (N, K)
    order = sorted(range(len(ids)), key=lambda i: ids[i])
    scale = LabelScale.of(names, about.label_ranges) if about and about.scale_known else None
    return PredictionTable(
        Path(path), [ids[i] for i in order], names, values[order].reshape(len(ids), len(names)), scale
    )


def _is_end(name: str, columns: Iterable[str]) -> bool:
    """Whether a column is an interval bound of another column; means of members have no intervals."""
    base, _, end = name.rpartition("_")
    return end in ("low", "high") and base in columns


def _number(path: Path, clip: str, name: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise UserError(f"{path}: {name} of {clip} is {cell!r}, not a number; {HOW}")
    return value


def combine_tables(paths: Sequence[Path], method: str) -> PredictionTable:
    """The mean ("average") of predictions of the same clips, or their mean rank ("rank") in (0, 1). Rows and columns
    may be in any order. UserError, naming both files, when clips, dimensions or scales differ."""
    tables, stacked = _stack_tables(paths, of_one_scale=method == "average")
    values = stacked.mean(axis=2) if method == "average" else average_ranks(stacked)
    scale = next((table.scale for table in tables if table.scale), None)
    if method == "rank":
        values = values if scale is None else scale.values(values)
    return PredictionTable(Path(), tables[0].ids, tables[0].names, values, scale)


def are_of_one_source(paths: Sequence[Path]) -> bool:
    """Whether the descriptions beside all tables name the same media or features, and the same split of them."""
    abouts = [TableDescription.beside(path) for path in paths]
    sources = [[about.made_from.get(key) for key in ("clips", "data", "split")] for about in abouts if about]
    return len(sources) == len(paths) and any(sources[0]) and all(source == sources[0] for source in sources)


def weigh_tables(
    paths: Sequence[Path],
    fit: Sequence[Evaluation],
    learn: Callable[[list[str]], tuple[Combiner, Callable[[np.ndarray], Stack]]],
    allow_common_ids: bool = False,
) -> PredictionTable:
    """Combine the predictions of the same clips by several systems with weights that `learn`, given their ids, learned
    from evaluations of the same systems, in the same order. UserError, naming both files, when tables and evaluations
    differ in systems, dimensions or scale, or share ids, unless that is allowed: a table does not tell whether equal
    ids are the same clips."""
    tables, stacked = _stack_tables(paths, of_one_scale=True)
    first = tables[0]
    for table, evaluation in zip(tables, fit, strict=True):
        _check_same_system(table, evaluation)
    if (common := set(first.ids) & set(fit[0].ids)) and not allow_common_ids:
        raise UserError(
            f"{fit[0].path}: {len(common)} of its clips are in {first.path}, such as {min(common)!r}, or others have "
            "their ids; give evaluations of other clips, or continue with --allow_unknown_training true"
        )
    order = [first.names.index(name) for name in fit[0].names]
    scale = fit[0].scale
    if first.scale is not None and LabelScale({name: first.scale.ranges[name] for name in fit[0].names}) != scale:
        raise UserError(f"{first.path}: on a scale of {first.scale}, but {fit[0].path} on one of {scale}")
    combine, stack_of = learn(first.ids)
    fractions = np.stack([scale.fractions(stacked[:, order, m]) for m in range(stacked.shape[2])], axis=2)
    return PredictionTable(Path(), first.ids, fit[0].names, scale.values(combine(stack_of(fractions))), scale)


def _stack_tables(paths: Sequence[Path], of_one_scale: bool) -> tuple[list[PredictionTable], np.ndarray]:
    """The tables, and their values with the rows and columns of the first one, (N, K, M)."""
    first, *others = tables = [read_prediction_table(path) for path in paths]
    members = [first.values]  # (N, K) each
    for other in others:
        _check_same(first, other)
        if of_one_scale:
            _check_same_scale(first, other)
        values = other.values[:, [other.names.index(name) for name in first.names]]  # (N, K)
        if same := [path for path, known in zip(paths, members, strict=False) if np.array_equal(known, values)]:
            raise UserError(f"{other.path}: the same predictions as {same[0]}; give each once")
        members.append(values)
    return tables, np.stack(members, axis=2)


def _check_same_system(table: PredictionTable, evaluation: Evaluation) -> None:
    """UserError when the evaluation is of another system than the table, or when that is unknown."""
    about = TableDescription.beside(table.path)
    made_from = about.made_from if about else {}
    if made_from.get("system") is None:
        raise UserError(f"{table.path}: does not say which model made it, so no weights fit it; {PREDICT}")
    ours, theirs = (
        (made_from["system"], made_from.get("configuration")),
        (evaluation.info.model, evaluation.info.configuration),
    )
    if ours != theirs:
        raise UserError(
            f"{evaluation.path}: of another system than {table.path}; give --fit in the order of the tables"
        )
    own, fitted = made_from.get("model_digest"), evaluation.info.made_from.get("model_digest")
    if own and fitted and own != fitted:  # merged folds come from other models of the system
        raise UserError(f"{evaluation.path}: of another model than {table.path}; evaluate the one that predicts")
    if set(table.names) != set(evaluation.names):
        raise UserError(f"{evaluation.path}: of other dimensions than {table.path}")


def _check_same(first: PredictionTable, other: PredictionTable) -> None:
    for what, of_first, of_other in (("clips", first.ids, other.ids), ("dimensions", first.names, other.names)):
        missing, extra = sorted(set(of_first) - set(of_other)), sorted(set(of_other) - set(of_first))
        if missing or extra:
            parts = [f"lacks {len(missing)} of them, such as {missing[0]}"] if missing else []
            parts += [f"has {len(extra)} others, such as {extra[0]}"] if extra else []
            raise UserError(f"{other.path}: not of the {what} of {first.path}: it {' and '.join(parts)}")


def _check_same_scale(first: PredictionTable, other: PredictionTable) -> None:
    advice = "predict with models of one scale, or take --method rank"
    if first.scale is not None and other.scale is not None:
        ours, theirs = first.scale, LabelScale({name: other.scale.ranges[name] for name in first.names})
        if ours != theirs:
            raise UserError(f"{other.path}: on a scale of {theirs}, but {first.path} on one of {ours}; {advice}")
        return
    largest = [float(np.abs(table.values).max()) for table in (first, other)]
    if first.is_unit != other.is_unit or (not first.is_unit and max(largest) > FAR * min(largest)):
        low, high = (f"from {table.values.min():g} to {table.values.max():g}" for table in (first, other))
        raise UserError(f"{other.path}: holds values {high}, but {first.path} {low}: their scales differ; {advice}")
