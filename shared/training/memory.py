"""Freed memory stays with the process."""

import ctypes
import sys

TRIM, MMAP = -1, -3
"""glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD."""
LARGEST_BLOCK = 2**25
"""Bytes of the largest block on the heap; larger blocks, which are rare in a step, are still returned."""
KEPT = 2**30
"""Most bytes that the heap keeps at its end."""


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next step, which needs blocks of the same sizes.

    By default, large blocks are returned to the system and come back as pages of zeros: ten thousand page faults and
    more in a step of the small towers. Has no effect with another C library."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MMAP, LARGEST_BLOCK)
        mallopt(TRIM, KEPT)
