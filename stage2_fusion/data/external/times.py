"""The times of a clip's rows: as the tool wrote them if they are plausible, otherwise spread over the clip.

A tool that does not know a file's frame rate still writes times: OpenFace counts milliseconds, others write 0.
"""

from typing import NamedTuple

import numpy as np

FASTEST = 240.0
"""Most frames per second of a camera."""
LATE = 1.0
"""Seconds that rows may lie after the end of a clip; containers and tools do not agree on the end."""
USUAL_RATE = 25.0
"""Rows per second of a clip without times and without a known duration."""
HELD = 2.0
"""Seconds between the steps of a row that covers more time: dual_stage treats a modality as missing when its nearest
step is more than a second away."""
SPREAD = "the rows are spread over the clip"


class Timing(NamedTuple):
    """The times of the T rows of a clip."""

    seconds: np.ndarray
    """float64 (T,), from the beginning of the clip; NaN = not known."""
    remark: str = ""
    """What was done to the times of the file, or is unusual about them."""
    held: float = 0.0
    """Seconds of the clip that each row covers, if the file has no times; 0 = unknown."""


def timing(times: np.ndarray | None, count: int, duration: float, of_camera: bool) -> Timing:
    """times: of the file (T,), T = `count`, NaN = unknown; or None. duration: of the clip, 0 = unknown. of_camera:
    whether the rows are frames of a video."""
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
        return Timing(_spread(count, duration), f"its times are too close together for a camera; {SPREAD}", held)
    remarks = ["its times are read as milliseconds"] if in_milliseconds else []
    remarks += ["its times go backwards: are the rows of several files or faces?"] if (steps < 0).any() else []
    return Timing(seconds, "; ".join(remarks))


def repeats(seconds: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Which rows at `seconds` (T,) with `values` (T, C) repeat an earlier one, bool (T,), in a file to which a second
    run of the tool appended: its times go backwards, or are all the same. In other files equal rows are not repeats."""
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
    """The steps of rows at `seconds` (R,) that cover `held` seconds each: the row of each step, int (T,), and its time
    (T,). Steps are at most HELD apart."""
    count = max(1, int(np.ceil(held / HELD)))
    offsets = ((np.arange(count) + 0.5) / count - 0.5) * held  # (count,)
    return np.repeat(np.arange(len(seconds)), count), (seconds[:, None] + offsets).ravel()


def begins_late(first: float, duration: float) -> str:
    """Why rows that begin at `first` cannot belong to a clip of this duration; "" if they can."""
    if not duration or first <= duration + LATE:
        return ""
    return f"its times begin at {first:.6g} s, after the clip of {duration:.1f} s; count from its start"


def ends_late(last: float, duration: float) -> str:
    """What to ask about rows that continue until `last`; "" if they end with the clip."""
    if not duration or last <= duration + LATE:
        return ""
    return f"they last {last:.1f} s, the clip {duration:.1f} s: are they of this clip?"


def _spread(count: int, duration: float) -> np.ndarray:
    return (np.arange(count) + 0.5) * (duration or count / USUAL_RATE) / max(count, 1)  # (T,)


def _in_milliseconds(known: np.ndarray, duration: float) -> bool:
    """Whether times are whole numbers far beyond the end of the clip, but lie within it as milliseconds."""
    last = float(known.max())
    return last > 20 * max(duration, 1) and last <= 1000 * (duration + 1) and not (known % 1).any()
