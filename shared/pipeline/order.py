"""Which steps of a run wait for which others.

A recipe does not declare this: a step waits for the earlier steps whose outputs it reads. It also waits for earlier
steps that read or write where it writes, so that parallel steps give the results of the written order.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from shared.pipeline.plan import PlannedStep, given_fields


def dependencies(steps: Sequence[PlannedStep]) -> list[set[int]]:
    """For each step, the numbers, from 0, of the earlier steps that must be done before it starts."""
    made = [_Places(path for output in step.outputs for path in (output.path, *output.beside)) for step in steps]
    read = [_Places(read_paths(step)) for step in steps]
    return [
        {j for j in range(i) if read[i].meet(made[j]) or made[i].meet(made[j]) or made[i].meet(read[j])}
        for i in range(len(steps))
    ]


def read_paths(step: PlannedStep) -> Iterator[str]:
    """Everything that a step may read: the paths and texts in its options at any depth, and the words of its command,
    which include the file of `--config`. A text that is not a path does no harm."""
    for value in given_fields(step.config).values():
        for part in _parts(value):
            if isinstance(part, Path) and not step.is_output(part):
                yield str(part)
            elif isinstance(part, str):
                yield from _named(part)
    for word in step.line.words[2:]:
        yield from _named(word)


def _parts(value: Any) -> Iterator[Any]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _parts(part)
    else:
        yield value


def _named(text: str) -> Iterator[str]:
    """The paths that a text may name: PATH, NAME=PATH or NAME:PATH."""
    yield from (part for part in (text, text.partition("=")[2], text.partition(":")[2]) if part)


class _Places:
    """Files and folders, with links resolved."""

    def __init__(self, paths: Iterable[str | Path]):
        self.places = {os.path.realpath(path) for path in paths if "\0" not in str(path)} - {os.sep}
        self.above = {os.fspath(folder) for place in self.places for folder in Path(place).parents}

    def meet(self, other: "_Places") -> bool:
        """Whether a path of one equals, contains or lies in a path of the other."""
        return not (
            self.places.isdisjoint(other.places)
            and self.places.isdisjoint(other.above)
            and self.above.isdisjoint(other.places)
        )
