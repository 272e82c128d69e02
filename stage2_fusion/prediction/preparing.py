"""Turn clips into windows for the encoders, in this process or in isolated worker processes."""

from collections.abc import Iterable, Iterator

from shared.dataset.clip import Clip, ClipSource
from shared.dataset.clip_dataset import ClipSample, decode_row
from shared.dataset.decode_clip import DecodedClip
from shared.dataset.prepare_clip import PreparedWindow, prepare_from_transcript, prepare_windows, window_row
from shared.dataset.prepare_dataset import describe
from shared.dataset.recipe import Recipe
from shared.media.inputs import ClipArrays, array_windows
from shared.media.remarks import Remarks
from shared.text import one_line

NOTHING_GIVEN = "neither frames nor sound nor text are given"
Prepared = tuple[Clip, ClipSample | None, str]
"""A clip with one of its windows and "", or with None and the reason why the clip, or its rest, cannot be used."""


def prepare_here(clips: Iterable[tuple[Clip, ClipArrays | None]], recipe: Recipe) -> Iterator[Prepared]:
    """Prepare clips one after the other in this process. Arrays, if given, replace the clip's files.

    Results are the same as from `prepare_each`. A file that crashes or hangs its reader crashes or hangs this process.
    """
    info = describe(ClipSource([]), recipe)
    for clip, arrays in clips:
        for start, row, reason, remarks in _rows(clip, arrays, recipe):
            yield clip, None if row is None else decode_row(row, info, start=start, remarks=remarks), reason


def _rows(clip: Clip, arrays: ClipArrays | None, recipe: Recipe) -> Iterator[PreparedWindow]:
    """Windows of a clip; any exception that a damaged file causes in a library becomes a reason."""
    windows = 0
    try:
        for window in prepare_windows(clip, recipe) if arrays is None else _array_rows(clip, arrays, recipe):
            yield window
            windows += 1
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)}"[:300]
        row = None if windows else prepare_from_transcript(clip, recipe, reason)[0]
        if row is not None:
            yield PreparedWindow(0.0, row, "")
        yield PreparedWindow(0.0, None, reason)


def _array_rows(clip: Clip, arrays: ClipArrays, recipe: Recipe) -> Iterator[PreparedWindow]:
    windows = 0
    for media in array_windows(arrays, recipe.frame_rate, recipe.max_seconds, recipe.max_side):
        row, remarks = window_row(clip, DecodedClip(media), recipe)
        yield PreparedWindow(media.start, row, "", remarks)
        windows += 1
    if not windows:
        words, _ = prepare_from_transcript(clip, recipe, "")
        text = (clip.transcript or "").strip()
        without = f"the text {text!r:.60} has no letter, digit or symbol" if text else NOTHING_GIVEN
        yield PreparedWindow(0.0, words, "" if words else without)


def collect_failures(
    prepared: Iterable[Prepared], failures: dict[str, str], remarks: dict[str, Remarks]
) -> Iterator[ClipSample]:
    """Pass windows on; record in `failures` (id to reason) which clips could not be read, or from where on, and collect
    in `remarks` (by id) what was repaired, chosen or left out."""
    read_until: dict[str, float] = {}
    for clip, sample, reason in prepared:
        if sample is None:
            until = read_until.get(clip.id)  # 0 if there is only text
            where = "" if until is None else f"from {until:.1f} s on: " if until else "predicted by its words alone: "
            failures[clip.id] = where + reason
        else:
            read_until[clip.id] = sample.start + sample.duration
            if sample.remarks:
                remarks[clip.id] = remarks.get(clip.id, Remarks()) + sample.remarks
            yield sample
