"""When the rows of a clip are: the times that a tool wrote, where they can be believed, or spread over the clip.

A tool that does not know a file's frame rate writes times all the same: OpenFace counts milliseconds, others write 0.
"""

from typing import NamedTuple

import numpy as np

FASTEST = 240.0
"""Frames per second. Faster ones are no frames of a camera."""
LATE = 1.0
"""Seconds that rows may lie after the end of a clip: containers and tools do not agree on it."""
USUAL_RATE = 25.0
"""Rows per second of a clip whose duration is not known, and that has no times."""
HELD = 2.0
"""Seconds between the steps of a row that holds for longer: dual_stage takes a modality for missing where it is more
than a second from any step of it."""
SPREAD = "the rows are spread over the clip"


class Timing(NamedTuple):
    """The times of the T rows of a clip."""

    seconds: np.ndarray
    """float64 (T,), from the beginning of the clip; NaN = not known."""
    remark: str = ""
    """What was done to the times of the file, or is strange about them."""
    held: float = 0.0
    """Seconds of the clip that each row stands for, where the file does not tell when it is; 0 = unknown."""


def timing(times: np.ndarray | None, count: int, duration: float, of_camera: bool) -> Timing:
    """times: those of the file (T,), T = `count`, NaN = not known; or None. duration: of the clip, 0 = not known.
    of_camera: whether the rows are frames of a video."""
    held = duration / max(count, 1)
    if times is None:
        return Timing(_spread(count, duration), held=held)
    known = times[np.isfinite(times)]
    if not len(known):
        return Timing(_spread(count, duration), f"none of its times is a number; {SPREAD}" if count else "", held)
    in_milliseconds = _in_milliseconds(known, duration)
    seconds = times * 0.001 if in_milliseconds else times
    steps = np.diff(seconds[np.isfinite(seconds)])
    if len(steps) and not steps.any():
        return Timing(_spread(count, duration), f"all its times are {known[0]:.6g} s; {SPREAD}", held)
    if of_camera and len(steps) > 2 and 0 <= float(np.median(steps)) < 1 / FASTEST:
        return Timing(_spread(count, duration), f"its times are no times of a camera; {SPREAD}", held)
    remarks = ["its times are read as milliseconds"] if in_milliseconds else []
    remarks += ["its times go backwards: are the rows of several files or faces?"] if (steps < 0).any() else []
    return Timing(seconds, "; ".join(remarks))


def repeats(seconds: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Which rows (T,), (T, C) are the same as an earlier one, bool (T,), in files to which a tool that ran again has
    added its rows: their times go backwards, or are all the same. Others may well have equal rows."""
    repeated = np.zeros(len(seconds), bool)
    steps = np.diff(seconds[np.isfinite(seconds)])
    if not len(steps) or (steps.any() and not (steps < 0).any()):
        return repeated
    seen: set[tuple[float, bytes]] = set()
    for row, (time, row_values) in enumerate(zip(seconds.tolist(), values, strict=True)):
        key = (time, row_values.tobytes())
        repeated[row] = key in seen
        seen.add(key)
    return repeated


def hold(seconds: np.ndarray, held: float) -> tuple[np.ndarray, np.ndarray]:
    """The steps of rows at `seconds` (R,) that each stand for `held` seconds: which row each is of, int (T,), and when
    it is, (T,); steps are HELD apart at most."""
    count = max(1, int(np.ceil(held / HELD)))
    offsets = ((np.arange(count) + 0.5) / count - 0.5) * held  # (count,)
    return np.repeat(np.arange(len(seconds)), count), (seconds[:, None] + offsets).ravel()


def begins_late(first: float, duration: float) -> str:
    """Why rows that begin at `first` are not of a clip of this duration; "" if they may be."""
    if not duration or first <= duration + LATE:
        return ""
    return f"its times begin at {first:.6g} s, after the clip of {duration:.1f} s; count from its start"


def ends_late(last: float, duration: float) -> str:
    """What to ask about rows that go on until `last`; "" if they end with the clip."""
    if not duration or last <= duration + LATE:
        return ""
    return f"they last {last:.1f} s, the clip {duration:.1f} s: are they of this clip?"


def _spread(count: int, duration: float) -> np.ndarray:
    return (np.arange(count) + 0.5) * (duration or count / USUAL_RATE) / max(count, 1)  # (T,)


def _in_milliseconds(known: np.ndarray, duration: float) -> bool:
    """Whether times are whole numbers far beyond the end of the clip, and within it as milliseconds."""
    last = float(known.max())
    return last > 20 * max(duration, 1) and last <= 1000 * (duration + 1) and not (known % 1).any()
