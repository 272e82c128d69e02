"""Freed memory stays with the process."""

import ctypes
import sys

TRIM, MMAP = -1, -3
"""glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD."""
LARGEST_BLOCK = 2**25
"""Bytes of the largest block that comes from the heap; a larger one, of which a step has few, still goes back."""
KEPT = 2**30
"""Bytes that the heap keeps at its end at most."""


def keep_freed_memory() -> None:
    """Make glibc keep what is freed for the next step, of which every block has the same size.

    By default large blocks go back to the system and come again as pages of zeros: ten thousand page faults and more in
    a step of the small towers. Nothing happens with another C library."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MMAP, LARGEST_BLOCK)
        mallopt(TRIM, KEPT)
