"""From clips to the windows that the encoders take, in this process or in isolated worker processes."""

from collections.abc import Iterable, Iterator

from shared.dataset.clip import Clip, ClipSource
from shared.dataset.clip_dataset import ClipSample, decode_row
from shared.dataset.decode_clip import DecodedClip
from shared.dataset.prepare_clip import Row, clip_row, prepare_from_transcript, prepare_windows
from shared.dataset.prepare_dataset import describe
from shared.dataset.recipe import Recipe
from shared.media.inputs import ClipArrays, array_windows
from shared.text import one_line

Prepared = tuple[Clip, ClipSample | None, str]
"""A clip with one of its windows and "", or with None and the reason why it, or the rest of it, cannot be used."""


def prepare_here(clips: Iterable[tuple[Clip, ClipArrays | None]], recipe: Recipe) -> Iterator[Prepared]:
    """Prepare clips one after the other in this process. Arrays, where given, take the place of the clip's files.

    Results are those of `prepare_each`. A file that crashes or hangs its reader takes this process along.
    """
    info = describe(ClipSource([]), recipe)
    for clip, arrays in clips:
        for start, row, reason in _rows(clip, arrays, recipe):
            yield clip, None if row is None else decode_row(row, info, start=start), reason


def _rows(clip: Clip, arrays: ClipArrays | None, recipe: Recipe) -> Iterator[tuple[float, Row | None, str]]:
    """Windows of a clip; whatever exception a damaged file causes in a library becomes a reason."""
    windows = 0
    try:
        for window in prepare_windows(clip, recipe) if arrays is None else _array_rows(clip, arrays, recipe):
            yield window
            windows += 1
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)}"[:300]
        row = None if windows else prepare_from_transcript(clip, recipe, reason)[0]
        if row is not None:
            yield 0.0, row, ""
        yield 0.0, None, reason


def _array_rows(clip: Clip, arrays: ClipArrays, recipe: Recipe) -> Iterator[tuple[float, Row | None, str]]:
    windows = 0
    for media in array_windows(arrays, recipe.frame_rate, recipe.max_seconds, recipe.max_side):
        yield media.start, clip_row(clip, DecodedClip(media), recipe)[0], ""
        windows += 1
    if not windows:
        row, _ = prepare_from_transcript(clip, recipe, "")
        yield 0.0, row, "" if row else "neither frames nor sound nor text are given"


def collect_failures(prepared: Iterable[Prepared], failures: dict[str, str]) -> Iterator[ClipSample]:
    """Pass windows on; note in `failures` (id to reason) which clips could not be read, or from where on."""
    read_until: dict[str, float] = {}
    for clip, sample, reason in prepared:
        if sample is None:
            until = read_until.get(clip.id)  # 0 for text alone
            where = "" if until is None else f"from {until:.1f} s on: " if until else "predicted by its words alone: "
            failures[clip.id] = where + reason
        else:
            read_until[clip.id] = sample.start + sample.duration
            yield sample
