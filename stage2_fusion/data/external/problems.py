"""Features of another tool that cannot be used or matched, and what else the user should know: external.csv."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from shared.text import counted

KINDS = {
    "unread": ("file", "not read"),
    "unmatched": ("source", "without a clip"),
    "unusable": ("clip", "with features that do not fit"),
    "missing": ("clip", "without features"),
    "rows": ("clip", "with rows left out"),
    "remark": ("remark", ""),
}
"""{kind of problem: (what is counted, what is wrong with it)}, the most serious first."""


class Problem(NamedTuple):
    """A line of external.csv."""

    modality: str
    clip: str
    """Its id; "" for features without a clip."""
    source: str
    """The file and the part of it; "" for a clip without features."""
    reason: str
    kind: str
    """One of KINDS."""


@dataclass
class Problems:
    """The problems of one modality."""

    modality: str
    found: list[Problem] = field(default_factory=list)

    def report(self, kind: str, clip: str, source: str, reason: str) -> None:
        self.found.append(Problem(self.modality, clip, source, reason, kind))

    def example(self) -> str:
        """The most serious one; "" without any."""
        worst = min(self.found, key=lambda each: [*KINDS].index(each.kind), default=None)
        return ": ".join(filter(None, (worst.clip, worst.source, worst.reason))) if worst else ""

    def such_as(self) -> str:
        """ ", such as ..." with the example."""
        return f", such as {example}" if (example := self.example()) else ""

    def counts(self) -> list[str]:
        """The number of problems of each kind, in words."""
        count = Counter(each.kind for each in self.found)
        return [
            f"{counted(count[kind], what)} {matter}".strip() for kind, (what, matter) in KINDS.items() if count[kind]
        ]
