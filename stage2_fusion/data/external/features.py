"""The features of another tool for one modality of a clip dataset: found, matched and checked; a source of given
features (data/given.py).

Times are those of the files, rows without times are spread over the clip. A row that is not finite, or in which the
tool found nothing, is left out: the clip has no step there. Nothing is filled in.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shared.dataset.clip_dataset import ClipDataset
from shared.dataset.media_files import files_under
from shared.errors import UserError
from shared.tables.formats import is_table
from shared.terminal.progress import track as progress
from shared.text import counted, first_few, one_line
from stage2_fusion.data.external.formats import FORMATS, make_format, recognize, split_spec
from stage2_fusion.data.external.matching import match
from stage2_fusion.data.external.sniff import SUFFIXES, Sniffed
from stage2_fusion.data.external.tracks import ExternalFormat, Track, Wanted
from stage2_fusion.data.feature_info import ExternalInfo, ExternalTool
from stage2_fusion.data.given import GivenSteps

CONFIDENCE = "confidence"
"""The quality signal that the tool's own confidence becomes."""
MOST_HELD = 1 << 30
"""Bytes of features that stay in memory; the files of the others are read again when they are needed."""
FASTEST = 240.0
"""Frames per second. Faster ones are no frames of a camera: OpenFace counts milliseconds where a file has no rate."""
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


@dataclass(eq=False)
class _Held:
    """A track, or where to read it again."""

    file: int
    place: int
    """Its number among those of the file."""
    names: list[str]
    where: str
    columns: tuple[str, ...]
    width: int
    has_confidence: bool
    alive: frozenset[str]
    """Columns with a finite value in a usable row."""
    track: Track | None


class ExternalFeatures:
    """The features at `spec` (PATH or FORMAT:PATH) as those of a modality of these clips; a GivenSource.

    patterns: the columns that are read, by name, with * and ?; by default those that the format takes for features.
    made_by: what made them, in a person's words, where the files do not tell.
    problems: what has no partner, cannot be read or is left out. UserError when no clip has features.
    """

    def __init__(self, spec: str, modality: str, clips: ClipDataset, patterns: Sequence[str] = (), made_by: str = ""):
        name, self.path = split_spec(spec)
        self.modality, self.ids = modality, clips.column("id")
        self.durations = [float(seconds) for seconds in clips.column("duration")]
        self.max_seconds = float(clips.info.recipe.max_seconds)
        self.wanted = Wanted(modality, tuple(patterns), tuple(clips.label_names))
        self.problems: list[Problem] = []
        self.format, self.files = self._choose(name)
        self.reader: ExternalFormat = make_format(self.format)
        self.title = made_by or self.reader.title
        self._again = lru_cache(maxsize=1)(self._tracks)
        held = self._read_all()
        matches = match([each.names for each in held], self.ids)
        for number, reason in matches.unmatched:
            self._report("unmatched", "", held[number].where, reason)
        self.columns, self.width, self.has_confidence = self._common([held[i] for i in matches.track_of.values()])
        self._held = {row: held[i] for row, i in matches.track_of.items() if self._fits(row, held[i])}
        self.rows = self.masked = 0
        self._check()

    # --- what a GivenSource has --------------------------------------------------------------------------------------

    @property
    def widths(self) -> dict[str, int]:
        """Channels."""
        return {self.modality: self.width}

    @property
    def signals(self) -> dict[str, list[str]]:
        """Confidence, where the tool states it."""
        return {self.modality: [CONFIDENCE] if self.has_confidence else []}

    @property
    def present(self) -> dict[str, np.ndarray]:
        """Whether each clip has features: bool (N,)."""
        return {self.modality: self._present}

    def read(self, row: int) -> dict[str, GivenSteps]:
        """The steps of the clip in this row."""
        signals = int(self.has_confidence)
        if not self._present[row]:
            empty = np.zeros((0, self.width), np.float32)
            return {self.modality: GivenSteps(empty, np.zeros(0, np.float32), np.zeros((0, signals), np.float32))}
        return {self.modality: self._steps(row, self._track(self._held[row]))}

    # --- what features.json says -------------------------------------------------------------------------------------

    def describe(self) -> ExternalInfo:
        """The files."""
        return ExternalInfo(str(self.path.resolve()), self.digest, int(self._present.sum()), self.rate)

    def tool(self) -> ExternalTool:
        """What made them: features of the same tool and columns count as features of the same encoder."""
        how = self.reader.how(self.modality)
        return ExternalTool(self.format, self.title, list(self.columns), self.signals[self.modality], how)

    def lines(self) -> list[str]:
        """What was read, and what was not."""
        names = f" ({first_few(list(self.columns))})" if self.columns else ""
        rate = f", {self.rate:.4g} steps per second" if self.rate else ""
        of = f"{int(self._present.sum()):,} of {counted(len(self.ids), 'clip')}"
        lines = [f"{self.modality}: {counted(self.width, 'channel')} of {self.title}{names}{rate}, for {of}"]
        count = Counter(each.kind for each in self.problems)
        parts = [
            f"{counted(count[kind], what)} {matter}".strip() for kind, (what, matter) in KINDS.items() if count[kind]
        ]
        parts += [f"{self.masked:,} of {counted(self.rows, 'row')} left out"] if self.masked else []
        if parts:
            lines.append(f"{self.modality}: {', '.join(parts)}, listed in external.csv, such as {self._example()}")
        return lines

    def _example(self) -> str:
        """The most serious problem."""
        worst = min(self.problems, key=lambda each: [*KINDS].index(each.kind))
        return ": ".join(filter(None, (worst.clip, worst.source, worst.reason)))

    # --- reading -----------------------------------------------------------------------------------------------------

    def _choose(self, name: str) -> tuple[str, list[Path]]:
        """The format of most files, and the files in it; any text may be a table, so that other formats come first.
        UserError when there are none."""
        if not self.path.exists():
            raise UserError(f"{self.path}: no such file or folder; --external {self.modality}=PATH names the features")
        if self.path.is_dir():
            own = bool(name) and name not in FORMATS.parts
            files = [self.path / each for each in files_under(self.path) if own or each.suffix.lower() in SUFFIXES]
        else:
            files = [self.path]
            if not name and self.path.suffix.lower() not in SUFFIXES:
                is_table(self.path)  # says what to do with spreadsheets and archives
        if name:
            return name, files
        formats = {each: make_format(each) for each in FORMATS.parts}
        kinds = {file: recognize(Sniffed(file), formats) for file in files}
        about = {kind: formats[kind].modalities for kind in kinds.values() if kind}
        fitting = Counter(kind for kind in kinds.values() if kind and self.modality in about[kind])
        chosen = max(fitting, key=lambda kind: (kind != "table", fitting[kind]), default="")
        for file, kind in kinds.items():
            if not kind:
                self._report(
                    "unread", "", str(file), "no file of features that is known here; remove it, or name its format"
                )
            elif self.modality not in about[kind]:
                reason = f"{formats[kind].title} makes features of {' and '.join(about[kind])}, not of {self.modality}"
                self._report("unread", "", str(file), f"{reason}; write --external {about[kind][0]}={self.path}")
            elif kind != chosen:
                reason = f"in the format of {formats[kind].title}, among files in that of {formats[chosen].title}"
                self._report("unread", "", str(file), f"{reason}; keep them in folders of their own")
        if not chosen:
            found = f", such as {self._example()}" if self.problems else ""
            raise UserError(f"{self.path}: holds no features of {self.modality} ({', '.join(FORMATS.parts)}){found}")
        return chosen, [file for file, kind in kinds.items() if kind == chosen]

    def _tracks(self, file: int) -> list[Track]:
        """The tracks of a file."""
        path = self.files[file]
        name = path.relative_to(self.path).with_suffix("").as_posix() if self.path.is_dir() else ""
        return self.reader.read(path, name, self.wanted)

    def _read_all(self) -> list[_Held]:
        """All tracks of all files; those of a file that cannot be read become a problem."""
        held, size = [], 0
        for file, path in enumerate(progress(self.files, f"read {self.modality} features", "files")):
            try:
                tracks = self._tracks(file)
            except UserError as error:
                self._report("unread", "", str(path), one_line(str(error).removeprefix(f"{path}: ")))
                continue
            for place, track in enumerate(tracks):
                with np.errstate(over="ignore"):  # what single precision cannot hold counts as not finite
                    track.values = track.values.astype(np.float32)
                if track.problem:
                    self._report("unread", "", track.where, track.problem)
                    continue
                size += track.values.nbytes
                keep = size <= MOST_HELD or len(tracks) > 1
                held.append(_held(file, place, track, keep))
            for note in dict.fromkeys(note for track in tracks for note in track.notes):
                self._report("remark", "", str(path), note)
        return held

    def _track(self, held: _Held) -> Track:
        return held.track or self._again(held.file)[held.place]

    def _common(self, held: list[_Held]) -> tuple[tuple[str, ...], int, bool]:
        """The columns and the number of channels that most tracks have, and whether they state a confidence. Columns
        without a value in any of them are left out. UserError when there are none."""
        if not held:
            self._fail()
        kinds = Counter((each.columns, each.width, each.has_confidence) for each in held)
        columns, width, has_confidence = kinds.most_common(1)[0][0]
        if not columns:
            return (), width, has_confidence
        alive = frozenset[str]().union(*(each.alive for each in held))
        if dead := [name for name in columns if name not in alive]:
            self._report(
                "remark",
                "",
                str(self.path),
                f"columns without a number in any usable row are left out: {first_few(dead)}",
            )
        columns = tuple(name for name in columns if name in alive)
        if not columns:
            self._fail()
        return columns, len(columns), has_confidence

    def _fits(self, row: int, held: _Held) -> bool:
        """Whether a track has the common columns."""
        if self.has_confidence and not held.has_confidence:
            reason = "states no confidence, which most others do"
        elif self.columns:
            lacking = [name for name in self.columns if name not in held.columns]
            reason = f"lacks {first_few(lacking)}, which most others have" if lacking else ""
        else:
            other = held.columns or held.width != self.width
            reason = f"{counted(held.width, 'channel')}, where most others have {self.width}" if other else ""
        if reason:
            self._report("unusable", self.ids[row], held.where, f"{reason}; make it as the others")
        return not reason

    # --- the steps of a clip -----------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Read the steps of all clips once: their digest, and what is left out."""
        self._present = np.zeros(len(self.ids), bool)
        content, rates = hashlib.sha256(), []
        for row, held in self._held.items():
            track = self._track(held)
            kept, times = self._kept(row, track)
            steps = self._steps(row, track)
            self.rows, self.masked = self.rows + len(kept), self.masked + int((~kept).sum())
            self._present[row] = len(steps.values) > 0
            self._remark(row, track, kept, times)
            if len(steps.times) > 1:
                rates.append(1 / max(float(np.median(np.diff(steps.times))), 1e-6))
            parts = (steps.values, steps.times, steps.signals)
            content.update(f"{self.ids[row]} {steps.values.shape};".encode() + b"".join(p.tobytes() for p in parts))
        if not self._present.any():
            self._fail()
        told = {each.clip for each in self.problems}
        for row, name in enumerate(self.ids):
            if row not in self._held and name not in told:
                self._report("missing", name, "", "no features; the modality is missing")
        self.rate = float(np.median(rates)) if rates and self.modality != "text" else None
        self.digest = content.hexdigest()[:16]

    def _kept(self, row: int, track: Track) -> tuple[np.ndarray, np.ndarray]:
        """Which rows become steps, bool (T,), and the seconds (T,) of all rows."""
        values, times = self._values(track), self._times(row, track)
        with np.errstate(over="ignore"):
            kept = track.usable & np.isfinite(values.astype(np.float32)).all(axis=1)
        kept &= np.isfinite(times) & (times >= 0)
        if track.confidence is not None and self.has_confidence:
            kept &= np.isfinite(track.confidence)
        return kept, times

    def _steps(self, row: int, track: Track) -> GivenSteps:
        kept, times = self._kept(row, track)
        chosen = np.flatnonzero(kept & (times < self.max_seconds))
        chosen = chosen[np.argsort(times[chosen], kind="stable")]
        signals = np.zeros((len(chosen), int(self.has_confidence)), np.float32)
        if self.has_confidence and track.confidence is not None:
            signals[:, 0] = np.clip(track.confidence[chosen], 0, 1)
        return GivenSteps(self._values(track)[chosen].astype(np.float32), times[chosen].astype(np.float32), signals)

    def _values(self, track: Track) -> np.ndarray:
        """(T, C) of the common columns."""
        if tuple(track.columns) == self.columns:
            return track.values
        return track.values[:, [track.columns.index(name) for name in self.columns]]

    def _times(self, row: int, track: Track) -> np.ndarray:
        """Seconds (T,) of the rows."""
        count = len(track.values)
        if track.times is not None and np.isfinite(track.times).any():
            times = track.times * (0.001 if self._in_milliseconds(row, track.times) else 1)
            if not self._too_fast(times):
                return times
        return (np.arange(count) + 0.5) * (self.durations[row] or count / 25) / max(count, 1)

    def _in_milliseconds(self, row: int, times: np.ndarray) -> bool:
        """Whether times are whole numbers far beyond the end of the clip, and within it as milliseconds."""
        known = times[np.isfinite(times)]
        last = float(known.max(initial=0))
        return (
            last > 20 * max(self.durations[row], 1)
            and last <= 1000 * (self.durations[row] + 1)
            and not (known % 1).any()
        )

    def _too_fast(self, times: np.ndarray) -> bool:
        """Whether times are no times of a camera."""
        steps = np.diff(times[np.isfinite(times)])
        return self.modality == "vision" and len(steps) > 2 and 0 <= float(np.median(steps)) < 1 / FASTEST

    def _remark(self, row: int, track: Track, kept: np.ndarray, times: np.ndarray) -> None:
        """Report what a person should know about the rows of a clip."""
        name, last = self.ids[row], float(np.max(times[kept], initial=0))
        if not kept.all():
            why = [f"{(~track.usable).sum():,} {track.unusable}"] if not track.usable.all() else []
            rest = int((track.usable & ~kept).sum())
            why += [f"{rest:,} not finite"] if rest else []
            left = "all" if not kept.any() else f"{(~kept).sum():,} of {len(kept):,}"
            self._report("rows", name, track.where, f"{left} rows left out: {', '.join(why)}")
        if kept.any() and not self._present[row]:
            first = f"{float(times[kept].min()):.6g} s"
            self._report(
                "unusable", name, track.where, f"its times begin at {first}, after the clip; count from its start"
            )
        if track.times is not None and self._in_milliseconds(row, track.times):
            self._report("remark", name, track.where, "its times are read as milliseconds")
        elif track.times is not None and self._too_fast(track.times):
            self._report(
                "remark", name, track.where, "its times are no times of a camera; the rows are spread over the clip"
            )
        cut = self.durations[row] >= self.max_seconds - 0.1
        if last > self.durations[row] + 1 and not cut:
            lasts = f"they last {last:.1f} s, the clip {self.durations[row]:.1f} s"
            self._report("remark", name, track.where, f"{lasts}: are they of this clip?")

    def _report(self, kind: str, clip: str, source: str, reason: str) -> None:
        self.problems.append(Problem(self.modality, clip, source, reason, kind))

    def _fail(self) -> None:
        example = f", such as {self._example()}" if self.problems else ""
        none = f"none of {counted(len(self.ids), 'clip')} has features of {self.modality} here"
        raise UserError(f"{self.path}: {none}{example}; ids of clips are as {first_few(self.ids, 2)}")


def _held(file: int, place: int, track: Track, keep: bool) -> _Held:
    usable = track.values[track.usable]
    finite = np.isfinite(usable).any(axis=0) if len(usable) else np.zeros(track.values.shape[1], bool)  # (C,)
    alive = frozenset(name for name, has in zip(track.columns, finite, strict=False) if has)
    kept = track if keep else None
    confident, width = track.confidence is not None, track.values.shape[1]
    return _Held(file, place, track.names, track.where, tuple(track.columns), width, confident, alive, kept)
