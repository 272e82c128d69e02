"""Remarks about a decoded file: what is repaired, left out or chosen, counted by kind. Verdicts repeat them."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from shared.text import counted

NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class Remark:
    """A kind of remark. Remarks with the same text are one kind; their amounts add up over tracks and windows."""

    text: str
    """One line, with "{}" in place of the amount if it has one; "(s)" is dropped if the amount is 1."""
    is_problem: bool = False
    """Whether something of the recording is missing or damaged, so that the clip is partial."""

    def say(self, amount: float) -> str:
        """The line for an amount: a count, or seconds."""
        number = f"{amount:.0f}" if amount >= 1000 else f"{amount:.4g}"
        return self.text.replace("{}", number).replace("(s)", "" if amount == 1 else "s")


class Remarks(dict[Remark, float]):
    """The amount of each kind, 0 for a missing one; 1 for a kind without an amount."""

    def __missing__(self, remark: Remark) -> float:
        return 0.0

    def __add__(self, other: "Remarks") -> "Remarks":
        total = Remarks(self)
        for remark, amount in other.items():
            total[remark] = total[remark] + amount if "{}" in remark.text else 1
        return total


def problem_lines(remarks: Remarks) -> list[str]:
    """One line for each remark that makes a clip partial."""
    return [remark.say(amount) for remark, amount in remarks.items() if remark.is_problem]


def note_lines(remarks: Remarks) -> list[str]:
    """One line for each other remark."""
    return [remark.say(amount) for remark, amount in remarks.items() if not remark.is_problem]


def all_lines(remarks: Remarks) -> list[str]:
    """One line for each remark, problems first."""
    return problem_lines(remarks) + note_lines(remarks)


def summarize(remarks: Mapping[str, Remarks]) -> list[str]:
    """One line for each kind of remark: the first clip (by name) with it, and how many others have it. Kinds that
    differ only in numbers are one."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for name in sorted(remarks):
        ordered = sorted(remarks[name], key=lambda remark: not remark.is_problem)
        kinds = {NUMBER.sub("#", remark.text.replace("{}", "#")): remark for remark in ordered}
        counts.update(kinds.keys())
        for kind, remark in kinds.items():
            first.setdefault(kind, f"{name}: {remark.say(remarks[name][remark])}")
    return [
        line + (f" (and {counted(more, 'more clip')} like it)" if (more := counts[kind] - 1) else "")
        for kind, line in first.items()
    ]
