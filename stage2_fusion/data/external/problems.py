"""What of the features of another tool cannot be used, has no partner, or a person should know: external.csv."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from shared.text import counted

KINDS = {
    "unread": ("file", "not read"),
    "unmatched": ("source", "without a clip"),
    "unusable": ("clip", "whose features do not fit"),
    "missing": ("clip", "without features"),
    "rows": ("clip", "with rows left out"),
    "remark": ("remark", ""),
}
"""Kinds of problems, the most serious ones first: what is counted, and what is the matter with it."""


class Problem(NamedTuple):
    """A line of external.csv."""

    modality: str
    clip: str
    """Its id; "" for features without a clip."""
    source: str
    """The file, and what of it; "" for a clip without features."""
    reason: str
    kind: str
    """One of KINDS."""


@dataclass
class Problems:
    """Those of one modality."""

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
        """How many there are of each kind."""
        count = Counter(each.kind for each in self.found)
        return [
            f"{counted(count[kind], what)} {matter}".strip() for kind, (what, matter) in KINDS.items() if count[kind]
        ]
