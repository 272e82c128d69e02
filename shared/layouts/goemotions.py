"""Layout "goemotions": the texts of GoEmotions (Demszky et al. 2020, arXiv 2005.00547) in the files of its repository.

train.tsv, dev.tsv, test.tsv: lines with a text, the numbers of its emotions (2,14) and the comment id, without a
header. emotions.txt: the names of the emotions by number, one per line. File names may have a prefix, as in
goemotions_train.tsv.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from shared.dataset.clip import Clip, ClipSource, LeftOut
from shared.errors import UserError
from shared.options.ranges import CheckedOptions
from shared.text import counted

SPLITS = {"train": "train.tsv", "valid": "dev.tsv", "test": "test.tsv"}
NAMES = ("emotions.txt", "labels.txt")
WHERE = "they are in goemotions/data of github.com/google-research/google-research"
SENTIMENTS = {
    "positive": "admiration amusement approval caring desire excitement gratitude joy love optimism pride relief",
    "negative": """anger annoyance disappointment disapproval disgust embarrassment fear grief nervousness remorse
    sadness""",
}
"""The paper's grouping. Confusion, curiosity, realization and surprise are ambiguous."""


@dataclass
class GoEmotions(CheckedOptions):
    """Labels: 1 for each emotion of a text, 0 for the others."""

    sentiments: bool = True
    """Add the labels positive and negative: 1 if one of the text's emotions is positive or negative."""

    def read(self, source: Path) -> ClipSource:
        """The texts of a folder. UserError if the names of the emotions or all splits are missing."""
        files = {split: path for split, ending in SPLITS.items() if (path := _file(source, (ending,)))}
        named = _file(source, NAMES)
        if not files or named is None:
            missing = "emotions.txt, the names of the emotions" if files else ", ".join(SPLITS.values())
            raise UserError(f"{source}: no GoEmotions here: it lacks {missing} ({WHERE})")
        emotions = tuple(line.strip() for line in _lines(named) if line.strip())
        clips: list[Clip] = []
        left_out: list[LeftOut] = []
        for split, path in files.items():
            for number, line in enumerate(_lines(path), start=1):
                text, *others = line.rsplit("\t", 2)
                if len(others) == 2 and others[1].strip():
                    clips.append(self._clip(text, others[0], others[1], split, emotions))
                elif line.strip():
                    left_out.append(LeftOut(f"{path.name} line {number}", "", "has no text, emotions and comment"))
        notes = [f"{counted(len(left_out), 'line')} without text, emotions and comment left out"] if left_out else []
        names = (*emotions, *SENTIMENTS) if self.sentiments else emotions
        return ClipSource(clips, names, notes=notes, label_ranges={}, left_out=left_out)

    def _clip(self, text: str, numbers: str, comment: str, split: str, emotions: tuple[str, ...]) -> Clip:
        cells = [cell.strip() for cell in numbers.split(",")]
        known = all(cell.isdecimal() and int(cell) < len(emotions) for cell in cells)
        has = {emotions[int(cell)] for cell in cells} if known else set()
        values = [float(name in has) for name in emotions]
        if self.sentiments:
            values += [float(not has.isdisjoint(group.split())) for group in SENTIMENTS.values()]
        return Clip(
            id=comment.strip(),
            media=None,
            transcript=text.strip() or None,
            labels=tuple(values) if known else (math.nan,) * len(values),
            split=split,
            problems=() if known else (f"its emotions {numbers!r} are not numbers below {len(emotions)}",),
            words_alone=True,
        )


def _file(source: Path, endings: tuple[str, ...]) -> Path | None:
    """The file of a folder with one of these endings. UserError if there are several."""
    paths = sorted(path for path in source.glob("*") if path.name.endswith(endings)) if source.is_dir() else []
    if len(paths) > 1:
        raise UserError(f"{source}: {paths[0].name} and {paths[1].name} both match: remove one of them")
    return paths[0] if paths else None


def _lines(path: Path) -> list[str]:
    """The lines of a file, split only at newlines and not at other characters that may end lines."""
    try:
        return path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}: save it as UTF-8") from None
