"""Outputs are checked before the work: a command that cannot write its result fails at once.

The type of an option says what it writes: `out: OutputFile`, `run: OutputFolder`. `shared.config.parse` checks them. A
symbolic link is kept: its target is written.
"""

import contextlib
import dataclasses
import os
import stat
import typing
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from shared.dataset.media_files import MEDIA_SUFFIXES
from shared.errors import UserError
from shared.files import is_stream
from shared.saved.checksum import KINDS, read_sealed_json
from shared.text import one_line


@dataclass(frozen=True)
class Output:
    """What an option of type Path names: a file or a folder to write."""

    folder: bool = False
    beside: tuple[str, ...] = ()
    """Names of additional files; {} is the name of the first one without its suffix."""

    def __repr__(self) -> str:
        return "a folder to write" if self.folder else "a file to write"


OutputFile = Annotated[Path, Output()]
OutputFolder = Annotated[Path, Output(folder=True)]
OutputEvaluation = Annotated[Path, Output(beside=("{}_predictions.csv", "{}_labels.csv"))]
"""The JSON file of an evaluation, and its tables."""
BESIDE_PREDICTIONS = (
    "{}_timeline.csv",
    "{}_basis.csv",
    "{}_failures.csv",
    "{}_remarks.csv",
    "{}_explained.jsonl",
    "{}_made_from.json",
)
OutputPredictions = Annotated[Path, Output(beside=BESIDE_PREDICTIONS)]
"""The table of predictions, and the files beside it."""
OutputSubmission = Annotated[Path, Output(beside=("{}_filled.csv",))]
"""The file to submit, and its list of clips without a prediction."""
OutputRobustness = Annotated[Path, Output(beside=("{}.csv",))]
"""JSON, and its rows as a table."""


@dataclass(frozen=True)
class WrittenPath:
    """One output of a command."""

    option: str
    path: Path
    mark: Output

    @property
    def beside(self) -> list[Path]:
        """The additional files that may be written with it."""
        return [self.path.with_name(name.format(self.path.stem)) for name in self.mark.beside]


def paths_of(config: Any) -> tuple[list[WrittenPath], list[Path]]:
    """The outputs among the options, and the paths that may be inputs."""
    outputs, inputs = [], []
    for field, hint in typing.get_type_hints(type(config), include_extras=True).items():
        if not any(field == known.name for known in dataclasses.fields(config)):
            continue
        value = getattr(config, field)
        marks = list(_outputs_in(hint))
        values = value if isinstance(value, list | tuple) else [value]
        paths = [Path(each) for each in values if isinstance(each, Path) or (marks and isinstance(each, str))]
        if marks:
            outputs += [WrittenPath(f"--{field}", path, marks[0]) for path in paths]
        else:
            named = [Path(each.partition("=")[2] or each) for each in values if isinstance(each, str)]
            inputs += paths + (named if isinstance(value, list) else [])
    return outputs, inputs


def check_outputs(config: Any) -> None:
    """UserError for the first output among the options that cannot be written, or that would replace an input."""
    outputs, inputs = paths_of(config)
    files = []
    for output in outputs:
        option, path = output.option, output.path
        if output.mark.folder:
            check_output_folder(path, inputs, option)
        else:
            check_output_file(path, inputs, option)
        for each in output.beside:
            check_output_file(each, inputs, option)
        files += [(option, each) for each in (path, *output.beside)]
    _check_distinct(files)


def check_output_file(path: Path, inputs: Iterable[Path] = (), option: str = "--out") -> None:
    """UserError if the file cannot be written: it is a folder, a device or an input, its name is too long, or its
    folder is not writable."""
    with _as_one_line(f"{option} {path}"):
        target = Path(os.path.realpath(path))
        kind = "stream" if is_stream(path) else _kind(target)
        if kind == "folder":
            raise UserError(f"{option} {path}: is a folder; give the name of a file")
        if kind not in ("file", None):
            raise UserError(f"{option} {path}: is a {kind}, not a file; give the name of a file")
        _check_not_an_input(target, inputs, option, path)
        _check_not_saved(target, option, path)
        if kind == "file" and not os.access(target, os.W_OK):
            raise UserError(f"{option} {path}: is not writable; choose another name")
        _check_writable(target, option, path)


def check_output_folder(path: Path, inputs: Iterable[Path] = (), option: str = "--out") -> None:
    """UserError if the folder cannot be written or created, likewise. Its writer checks what it may contain."""
    with _as_one_line(f"{option} {path}"):
        target = Path(os.path.realpath(path))
        kind = _kind(target)
        if kind not in ("folder", None):
            raise UserError(f"{option} {path}: is a {kind}, not a folder; give the name of a folder")
        _check_not_an_input(target, inputs, option, path)
        if kind is None:
            _check_writable(target, option, path)


def _outputs_in(hint: Any) -> Iterator[Output]:
    """The marks in a type such as `OutputFile | None` or `list[OutputFile]`."""
    if typing.get_origin(hint) is Annotated:
        yield from (mark for mark in hint.__metadata__ if isinstance(mark, Output))
    else:
        for part in typing.get_args(hint):
            yield from _outputs_in(part)


def _kind(path: Path) -> str | None:
    """What exists at a path, in words; None for nothing."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    for is_kind, name in (
        (stat.S_ISREG, "file"),
        (stat.S_ISDIR, "folder"),
        (stat.S_ISFIFO, "pipe"),
        (stat.S_ISSOCK, "socket"),
    ):
        if is_kind(mode):
            return name
    return "device"


def _check_writable(target: Path, option: str, shown: Path) -> None:
    """Create and remove a file with a name of the same length in the nearest existing folder: permissions alone do not
    cover root, a read-only disk or a full one."""
    place = target.parent
    while not os.path.lexists(place):
        place = place.parent
    if _kind(place) != "folder":
        raise UserError(f"{option} {shown}: {place} is a {_kind(place) or 'dangling link'}, not a folder")
    longest = os.pathconf(place, "PC_NAME_MAX")
    for part in target.relative_to(place).parts:
        if len(os.fsencode(part)) > longest:
            raise UserError(f"{option} {shown}: a name is longer than {longest} bytes; choose a shorter one")
    probe = place / f".{uuid.uuid4().hex}.partial"
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except OSError as error:
        raise UserError(f"{option} {shown}: {place} cannot be written ({error.strerror}); choose another") from None
    probe.unlink(missing_ok=True)


def _check_not_an_input(target: Path, inputs: Iterable[Path], option: str, shown: Path) -> None:
    for other in inputs:
        if os.path.exists(target) and os.path.exists(other) and os.path.samefile(target, other):
            raise UserError(f"{option} {shown}: is an input, which it would replace; choose another name")
        if target.is_file() and _is_input_in(Path(os.path.realpath(other)), target):
            raise UserError(f"{option} {shown}: is a file of the input {other}; choose another name")


def _is_input_in(folder: Path, target: Path) -> bool:
    """Whether a file in an input folder is a clip or the table of the clips."""
    is_read = target.suffix.lower() in MEDIA_SUFFIXES or target.stem.lower() in ("labels", "metadata")
    return is_read and target.is_relative_to(folder)


def _check_not_saved(target: Path, option: str, shown: Path) -> None:
    """UserError for a file of a saved model, encoders or a dataset, even if they are no input: their checksum covers
    the file."""
    for folder in list(target.parents)[:2]:
        for kind in KINDS:
            names = (kind.description, *kind.covers)
            if (folder / kind.description).is_file() and any(target.match(str(folder / name)) for name in names):
                try:
                    content = read_sealed_json(folder, kind.description, kind.what, kind.how)
                except UserError:
                    continue
                if content.get("format") in (kind.format, kind.unsealed):
                    raise UserError(f"{option} {shown}: belongs to the {kind.what} in {folder}; choose another name")


def _check_distinct(outputs: list[tuple[str, Path]]) -> None:
    """UserError when two outputs are the same file."""
    seen: dict[str, str] = {}
    for option, path in outputs:
        place = os.path.realpath(path)
        if place in seen:
            raise UserError(f"{option} {path}: given twice ({seen[place]}); give each output its own path")
        seen[place] = option


@contextlib.contextmanager
def _as_one_line(where: str) -> Iterator[None]:
    """Turn the system's error about an invalid path into a UserError that begins with `where`."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: not a valid path
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"{where}: cannot be written ({reason}); choose another") from None
