"""How the preparation of each clip went: verdicts, their tables, and the closing lines of `emit prepare`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.dataset.clip import MODALITIES, Clip, LeftOut
from shared.files import write_csv
from shared.media.quality import CLIP_QUALITY
from shared.media.transcribe import NOT_TRANSCRIBED
from shared.text import counted

EXAMPLES = 3
"""Clips of each kind named in the closing lines."""


@dataclass
class Verdict:
    """How the preparation of a clip went."""

    id: str
    media: str
    verdict: str
    """ok, partial (something is missing or damaged), or failed."""
    missing: list[str]
    """Modalities that the clip lacks."""
    detail: str
    """The reason of a failure, otherwise problems and notes."""
    digest: str = ""
    """Digest of the row."""
    quality: list[float | None] = field(default_factory=list)
    """The columns of CLIP_QUALITY; empty for a failed clip."""
    content: str = ""
    """Digest of only frames and waveform, the same for clips with equal content; "" without either."""
    longer: bool = False
    """Whether the recording is longer than `max_seconds`."""
    has_remarks: bool = False
    """Whether something of its media was repaired, chosen or left out; `detail` says what."""


def failed(clip: Clip, reason: str) -> Verdict:
    """The verdict on a clip without a row."""
    detail = "; ".join([reason, *clip.problems])
    return Verdict(clip.id, str(clip.media or ""), "failed", list(MODALITIES), detail)


def require_transcripts(verdicts: list[Verdict]) -> None:
    """Mark clips without a transcript as partial if others have one. Without any transcript, no clip is partial."""
    if any("text" not in verdict.missing for verdict in verdicts):
        for verdict in verdicts:
            if verdict.verdict != "failed" and "text" in verdict.missing:
                verdict.verdict = "partial"


def note_unknown_words(verdicts: list[Verdict], ids: list[str]) -> None:
    """Note for these clips that their words are mostly of letters that no training clip has."""
    unknown = set(ids)
    for verdict in verdicts:
        if verdict.id in unknown:
            note = "words mostly of letters that the words for training lack"
            verdict.detail = "; ".join(filter(None, [verdict.detail, note]))


def write_tables(out: Path, verdicts: list[Verdict], left_out: Sequence[LeftOut] = ()) -> None:
    """Write failures.csv, verdicts.csv and quality.csv. left_out: rows of the source that are no clips; they count as
    failures, named by their position in the source."""
    failures = [[v.id, v.media, v.detail] for v in verdicts if v.verdict == "failed"]
    failures += [[row.row, row.media, row.reason] for row in left_out]
    write_csv(out / "failures.csv", ["id", "media", "reason"], failures)
    rows = [[v.id, v.verdict, " ".join(v.missing), v.detail] for v in verdicts]
    rows += [[row.row, "failed", " ".join(MODALITIES), row.reason] for row in left_out]
    write_csv(out / "verdicts.csv", ["id", "verdict", "missing", "detail"], rows)
    write_csv(out / "quality.csv", ["id", *CLIP_QUALITY], [[v.id, *v.quality] for v in verdicts if v.quality])


def count_clips(verdicts: list[Verdict], clips: list[Clip]) -> dict[str, Any]:
    """The "counts" of dataset.json."""
    kept = [(verdict, clip) for verdict, clip in zip(verdicts, clips, strict=True) if verdict.verdict != "failed"]
    splits = Counter(clip.split for _, clip in kept)
    return {
        "clips": len(kept),
        **{word: sum(verdict.verdict == word for verdict in verdicts) for word in ("ok", "partial", "failed")},
        "missing": {name: sum(name in verdict.missing for verdict, _ in kept) for name in MODALITIES},
        "splits": dict(sorted(splits.items())),
    }


def summary(out: Path, verdicts: list[Verdict], digest: str, left_out: Sequence[LeftOut] = ()) -> str:
    """The closing lines: the number of clips per verdict, and examples to look at."""
    groups = {word: [v for v in verdicts if v.verdict == word] for word in ("ok", "partial", "failed")}
    lines = [f"{out}: " + ", ".join(f"{len(group)} {word}" for word, group in groups.items()) + f"; digest {digest}"]
    for word, table in (("partial", "verdicts.csv"), ("failed", "failures.csv")):
        lines += [f"  {word}: {verdict.id}: {verdict.detail}" for verdict in groups[word][:EXAMPLES]]
        if len(groups[word]) > EXAMPLES:
            lines.append(f"  {word}: and {len(groups[word]) - EXAMPLES} more in {table}")
    if left_out:
        rows = counted(len(left_out), "row", "of the source gives no clip", "give no clip")
        lines.append(f"  {rows}, such as {left_out[0].row}: {left_out[0].reason}; all in failures.csv")
    silent = sum(NOT_TRANSCRIBED in verdict.detail for verdict in verdicts)
    if silent:
        lines.append(f"  the sound of {counted(silent, 'clip')} could not be transcribed; verdicts.csv says why")
    remarked = sum(verdict.has_remarks for verdict in verdicts)
    if remarked:
        lines.append(f"  the media of {counted(remarked, 'clip')} needed a repair or a choice; verdicts.csv says which")
    longer = sum(verdict.longer for verdict in verdicts)
    if longer:
        lines.append(f"  {counted(longer, 'clip', 'is', 'are')} longer than max_seconds; the rest is left out")
    return "\n".join(lines + _equal_content(verdicts))


def _equal_content(verdicts: list[Verdict]) -> list[str]:
    """A line about clips with equal frames and sound, if there are any."""
    ids: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.content:
            ids.setdefault(verdict.content, []).append(verdict.id)
    sets = [group for group in ids.values() if len(group) > 1]
    if not sets:
        return []
    kind = "pair" if all(len(group) == 2 for group in sets) else "set"
    subject = counted(len(sets), kind, "of clips has", "of clips have")
    examples = "; ".join(" = ".join(group[:3]) + (" = ..." if len(group) > 3 else "") for group in sets[:EXAMPLES])
    more = f" and {len(sets) - EXAMPLES} more" if len(sets) > EXAMPLES else ""
    return [f"  {subject} equal content: {examples}{more}"]
