"""Another tool's features for one modality of a clip dataset: read, matched and checked; a source of given features
(data/given.py).

Times come from the files. Rows without times are spread over the clip, and each covers its share of it (times.py): a
single row covers the whole clip. A row that is not finite, or in which the tool found nothing, is dropped: the clip has
no step there. Nothing is filled in.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

import numpy as np

from shared.dataset.clip_dataset import ClipDataset
from shared.errors import UserError
from shared.terminal.progress import track as progress
from shared.text import counted, first_few, one_line
from stage2_fusion.data.external.finding import find_files
from stage2_fusion.data.external.formats import make_format, split_spec
from stage2_fusion.data.external.matching import match
from stage2_fusion.data.external.problems import Problem, Problems
from stage2_fusion.data.external.times import begins_late, ends_late, hold, repeats, timing
from stage2_fusion.data.external.tracks import ExternalFormat, Track, Wanted
from stage2_fusion.data.feature_info import ExternalInfo, ExternalTool
from stage2_fusion.data.given import GivenSteps

CONFIDENCE = "confidence"
"""The quality signal that the tool's own confidence becomes."""
TOLERANCE = 1e-3
"""How far a confidence may be outside [0, 1]: networks say 1.0000001."""
MOST_HELD = 1 << 30
"""Most bytes of features kept in memory; other files are read again when they are needed."""


@dataclass(eq=False)
class _Held:
    """A track, or where to read it again."""

    file: int
    place: int
    """Its index in the file."""
    names: list[str]
    where: str
    columns: tuple[str, ...]
    rows: int
    width: int
    has_confidence: bool
    alive: frozenset[str | int]
    """Columns, or indices of channels without names, that have a finite value in a usable row."""
    track: Track | None


@dataclass(frozen=True)
class _Channels:
    """The channels that are read."""

    columns: tuple[str, ...]
    """C names; () for channels without names."""
    numbers: tuple[int, ...]
    """C indices of channels without names."""
    of: int
    """How many channels the files have."""
    confidence: bool
    """Whether the files state a confidence."""

    @property
    def width(self) -> int:
        """C."""
        return len(self.columns or self.numbers)

    def of_track(self, track: Track) -> np.ndarray:
        """(T, C)."""
        if tuple(track.columns) == self.columns and self.width == track.values.shape[1]:
            return track.values
        numbers = [track.columns.index(name) for name in self.columns] if self.columns else list(self.numbers)
        return track.values[:, numbers]

    def unlike(self, held: _Held) -> str:
        """Why a track does not fit these channels; "" if it does."""
        if self.confidence and not held.has_confidence:
            return "states no confidence, which most others do"
        if self.columns:
            lacking = [name for name in self.columns if name not in held.columns]
            return f"lacks {first_few(lacking)}, which most others have" if lacking else ""
        other = held.columns or held.width != self.of
        return f"{counted(held.width, 'channel')}, where most others have {self.of}" if other else ""


class _Rows:
    """The rows of a clip: which rows become steps, their times, and why the others are dropped."""

    def __init__(self, track: Track, channels: _Channels, duration: float, of_camera: bool):
        self.values = channels.of_track(track)  # (T, C)
        self.confidence = track.confidence if channels.confidence else None
        count, times = len(self.values), track.times
        again = np.zeros(count, bool) if times is None else repeats(times, self.values)  # (T,)
        if again.any() and (~again).sum() == 1:  # one row for the whole clip
            times = None
        spread = timing(None if times is None else times[~again], int((~again).sum()), duration, of_camera)
        self.remark, self.held, self.seconds = spread.remark, spread.held, np.full(count, np.nan)
        self.seconds[~again] = spread.seconds  # (T,)
        with np.errstate(over="ignore"):
            finite = np.isfinite(self.values.astype(np.float32)).all(axis=1) & np.isfinite(self.seconds)  # (T,)
        unsure = np.zeros(count, bool) if self.confidence is None else ~np.isfinite(self.confidence)  # (T,)
        self.kept, self.why = np.ones(count, bool), []
        for left_out, reason in (
            (~track.usable, track.unusable or "not usable"),
            (again, "the same as others: was the tool run twice?"),
            (~finite, "not finite"),
            (unsure, "whose confidence is no number"),
            (self.seconds < 0, "before the beginning"),
        ):
            if number := int((self.kept & left_out).sum()):
                self.why.append(f"{number:,} {reason}")
            self.kept &= ~left_out


class ExternalFeatures:
    """The features at `spec` (PATH or FORMAT:PATH) for one modality of these clips; a GivenSource.

    patterns: names of the columns to read, with * and ?; by default the columns that the format treats as features.
    made_by: the name of the tool, if the files do not tell it. problems: what cannot be matched or read, or is left
    out. UserError when no clip has features.
    """

    def __init__(self, spec: str, modality: str, clips: ClipDataset, patterns: Sequence[str] = (), made_by: str = ""):
        self._asked_format, self.path = split_spec(spec)
        self._made_by = made_by
        self.modality, self.ids = modality, clips.column("id")
        self.durations = [float(seconds) for seconds in clips.column("duration")]
        self.max_seconds = float(clips.info.recipe.max_seconds)
        self.wanted = Wanted(modality, tuple(patterns), tuple(clips.label_names), self.ids)
        self._problems = Problems(modality)
        self.format, self.files = find_files(self.path, self._asked_format, self._problems)
        self.reader: ExternalFormat = make_format(self.format)
        self.title = made_by or self.reader.title
        self._again = lru_cache(maxsize=1)(self._tracks)
        held = self._read_all()
        matches = match([each.names for each in held], self.ids)
        for number, reason in matches.unmatched:
            self._problems.report("unmatched", "", held[number].where, reason)
        matched = {row: held[i] for row, i in matches.track_of.items()}
        if respelled := matches.respelled:
            example = f"such as {matched[respelled[0]].where} for {self.ids[respelled[0]]}"
            how = "by other zeros or separators, or without an ending that most names have"
            self._problems.report(
                "remark", "", str(self.path), f"{counted(len(respelled), 'clip')} found {how}, {example}"
            )
        self._channels = self._common([*matched.values()])
        self._held = {row: each for row, each in matched.items() if self._fits(row, each)}
        transposed = _transposed([*matched.values()])
        if transposed or 2 * len(self._held) < len(matched):
            share = f"{len(self._held):,} of {counted(len(matched), 'clip')} have features alike"
            raise UserError(f"{self.path}: only {share}{self._problems.such_as()}{transposed}")
        self.rows = self.masked = 0
        self._check()

    @property
    def problems(self) -> list[Problem]:
        """What cannot be used or matched, and what the user should know."""
        return self._problems.found

    # --- the interface of GivenSource --------------------------------------------------------------------------------

    @property
    def width(self) -> int:
        """Channels."""
        return self._channels.width

    @property
    def columns(self) -> tuple[str, ...]:
        """Their names; () without names."""
        return self._channels.columns

    @property
    def widths(self) -> dict[str, int]:
        """Channels of the modality."""
        return {self.modality: self.width}

    @property
    def signals(self) -> dict[str, list[str]]:
        """The confidence, if the tool states one."""
        return {self.modality: [CONFIDENCE] if self._channels.confidence else []}

    @property
    def present(self) -> dict[str, np.ndarray]:
        """Whether each clip has features: bool (N,)."""
        return {self.modality: self._present}

    def read(self, row: int) -> dict[str, GivenSteps]:
        """The steps of the clip in this row."""
        if not self._present[row]:
            signals = len(self.signals[self.modality])
            empty = np.zeros((0, self.width), np.float32)
            return {self.modality: GivenSteps(empty, np.zeros(0, np.float32), np.zeros((0, signals), np.float32))}
        return {self.modality: self._steps(self._rows(row, self._track(self._held[row])))}

    # --- entries of features.json ------------------------------------------------------------------------------------

    def describe(self) -> ExternalInfo:
        """The files."""
        return ExternalInfo(
            path=str(self.path.resolve()),
            digest=self.digest,
            clips=int(self._present.sum()),
            rate=self.rate,
            format=self._asked_format,
            columns=list(self.wanted.patterns),
            made_by=self._made_by,
        )

    def tool(self) -> ExternalTool:
        """The tool: features of the same tool and columns count as features of the same encoder."""
        how = self.reader.how(self.modality)
        return ExternalTool(self.format, self.title, list(self.columns), self.signals[self.modality], how)

    def lines(self) -> list[str]:
        """What was read, and what was not."""
        names = f" ({first_few(list(self.columns))})" if self.columns else ""
        rate = f", {self.rate:.4g} steps per second" if self.rate else ""
        of = f"{int(self._present.sum()):,} of {counted(len(self.ids), 'clip')}"
        lines = [f"{self.modality}: {counted(self.width, 'channel')} of {self.title}{names}{rate}, for {of}"]
        parts = self._problems.counts()
        parts += [f"{self.masked:,} of {counted(self.rows, 'row')} left out"] if self.masked else []
        if parts:
            lines.append(f"{self.modality}: {', '.join(parts)}, listed in external.csv{self._problems.such_as()}")
        return lines

    # --- reading -----------------------------------------------------------------------------------------------------

    def _tracks(self, file: int) -> list[Track]:
        """The tracks of a file."""
        path = self.files[file]
        name = path.relative_to(self.path).with_suffix("").as_posix() if self.path.is_dir() else ""
        return self.reader.read(path, name, self.wanted)

    def _read_all(self) -> list[_Held]:
        """All tracks of all files; a file that cannot be read becomes a problem."""
        held, size = [], 0
        for file, path in enumerate(progress(self.files, f"read {self.modality} features", "files")):
            try:
                tracks = self._tracks(file)
            except UserError as error:
                self._problems.report("unread", "", str(path), one_line(str(error).removeprefix(f"{path}: ")))
                continue
            for place, track in enumerate(tracks):
                with np.errstate(over="ignore"):  # what single precision cannot hold counts as not finite
                    track.values = track.values.astype(np.float32)
                if problem := track.problem or _wrong_confidence(track):
                    self._problems.report("unread", "", track.where, problem)
                    continue
                size += track.values.nbytes
                keep = size <= MOST_HELD or len(tracks) > 1
                held.append(_held(file, place, track, keep))
            for note in dict.fromkeys(note for track in tracks for note in track.notes):
                self._problems.report("remark", "", str(path), note)
        return held

    def _track(self, held: _Held) -> Track:
        return held.track or self._again(held.file)[held.place]

    def _common(self, held: list[_Held]) -> _Channels:
        """The channels that most tracks have, and whether these state a confidence. Channels without a value in any
        track are dropped. UserError when there are no tracks."""
        if not held:
            self._fail()
        kinds = Counter((each.columns, each.width, each.has_confidence) for each in held)
        columns, width, has_confidence = kinds.most_common(1)[0][0]
        alive = frozenset[str | int]().union(*(each.alive for each in held if each.columns or each.width == width))
        numbers = [i for i in range(width) if (columns[i] if columns else i) in alive]
        if not numbers:
            numbers = [*range(width)]  # no clip has a usable row; a problem of each clip says so
        if dead := [columns[i] if columns else f"channel {i}" for i in range(width) if i not in numbers]:
            reason = f"columns without a number in any usable row are left out: {first_few(dead)}"
            self._problems.report("remark", "", str(self.path), reason)
        names = tuple(columns[i] for i in numbers) if columns else ()
        return _Channels(names, () if columns else tuple(numbers), width, has_confidence)

    def _fits(self, row: int, held: _Held) -> bool:
        """Whether a track has the common channels."""
        reason = self._channels.unlike(held)
        if reason:
            self._problems.report("unusable", self.ids[row], held.where, f"{reason}; make it like the others")
        return not reason

    def _fail(self) -> NoReturn:
        none = f"none of {counted(len(self.ids), 'clip')} has features of {self.modality} here"
        ids = f"clip ids look like {first_few(self.ids, 2)}"
        raise UserError(f"{self.path}: {none}{self._problems.such_as()}; {ids}")

    # --- the steps of a clip -----------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Read the steps of all clips once, for the digest and the numbers of dropped rows."""
        self._present = np.zeros(len(self.ids), bool)
        content, rates = hashlib.sha256(), []
        for row, held in self._held.items():
            rows = self._rows(row, self._track(held))
            self.rows, self.masked = self.rows + len(rows.kept), self.masked + int((~rows.kept).sum())
            if not self._is_of_clip(row, held.where, rows):
                continue
            steps = self._steps(rows)
            self._present[row] = True
            gaps = np.diff(np.sort(rows.seconds[rows.kept]))
            rates += [1 / float(np.median(gaps))] if len(gaps) and np.median(gaps) > 0 else []
            parts = (steps.values, steps.times, steps.signals)
            content.update(f"{self.ids[row]} {steps.values.shape};".encode() + b"".join(p.tobytes() for p in parts))
        if not self._present.any():
            self._fail()
        reported = {problem.clip for problem in self.problems}
        for row, name in enumerate(self.ids):
            if row not in self._held and name not in reported:
                self._problems.report("missing", name, "", "no features; the modality is missing")
        self.rate = float(np.median(rates)) if rates and self.modality != "text" else None
        self.digest = content.hexdigest()[:16]

    def _rows(self, row: int, track: Track) -> _Rows:
        return _Rows(track, self._channels, self.durations[row], self.modality == "vision")

    def _steps(self, rows: _Rows) -> GivenSteps:
        chosen = np.flatnonzero(rows.kept)
        chosen = chosen[np.argsort(rows.seconds[chosen], kind="stable")]
        # Words have no times.
        which, seconds = hold(rows.seconds[chosen], 0.0 if self.modality == "text" else rows.held)
        chosen, seconds = chosen[which][seconds < self.max_seconds], seconds[seconds < self.max_seconds]
        signals = np.zeros((len(chosen), int(self._channels.confidence)), np.float32)
        if rows.confidence is not None:
            signals[:, 0] = np.clip(rows.confidence[chosen], 0, 1)
        return GivenSteps(rows.values[chosen].astype(np.float32), seconds.astype(np.float32), signals)

    def _is_of_clip(self, row: int, where: str, rows: _Rows) -> bool:
        """Whether these rows can belong to the clip; reports what the user should know about them."""
        name, duration = self.ids[row], self.durations[row]
        seconds = rows.seconds[rows.kept]
        if not rows.kept.all():
            left = f"{(~rows.kept).sum():,} of {len(rows.kept):,}" if len(seconds) else "all"
            self._problems.report("rows", name, where, f"{left} rows left out: {', '.join(rows.why)}")
        if not len(seconds):
            if not len(rows.kept):
                self._problems.report("missing", name, where, "no rows; the modality is missing")
            return False
        if rows.remark:
            self._problems.report("remark", name, where, rows.remark)
        is_cut = duration >= self.max_seconds - 0.1
        if reason := begins_late(float(seconds.min()), self.max_seconds if is_cut else duration):
            self._problems.report("unusable", name, where, reason)
            return False
        if not is_cut and (question := ends_late(float(seconds.max()), duration)):
            self._problems.report("remark", name, where, question)
        return True


def _wrong_confidence(track: Track) -> str:
    """What is wrong with the confidence of a track; "" if nothing."""
    confidence = np.empty(0) if track.confidence is None else track.confidence[track.usable]
    known = confidence[np.isfinite(confidence)]
    low, high = float(known.min(initial=0)), float(known.max(initial=0))
    if low >= -TOLERANCE and high <= 1 + TOLERANCE:
        return ""
    return f"its confidence is from {low:.4g} to {high:.4g}; give it from 0 to 1, or leave it out"


def _held(file: int, place: int, track: Track, keep: bool) -> _Held:
    usable = track.values[track.usable]
    width = track.values.shape[1]
    finite = np.isfinite(usable).any(axis=0) if len(usable) else np.zeros(width, bool)  # (C,)
    alive = frozenset(track.columns[i] if track.columns else int(i) for i in np.flatnonzero(finite))
    kept, columns = track if keep else None, tuple(track.columns)
    has_confidence = track.confidence is not None
    return _Held(file, place, track.names, track.where, columns, len(track.values), width, has_confidence, alive, kept)


def _transposed(held: list[_Held]) -> str:
    """What to do about arrays that all have the same number of rows, but different numbers of channels; "" for others.
    If all clips have the same length, channels cannot be told from steps."""
    widths = {each.width for each in held}
    if any(each.columns for each in held) or len({each.rows for each in held}) != 1 or len(widths) < 3:
        return ""
    return f"; all have {counted(held[0].rows, 'row')}: save them as (T, channels), not (channels, T)"
