"""Which process of a distributed run prints."""

import os

_RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
"""Set by torchrun and Accelerate, by Open MPI, and by MPICH and Intel MPI."""


def is_main_process() -> bool:
    """Whether this is the only process of a run, or the first one."""
    return next((os.environ[name] for name in _RANKS if os.environ.get(name)), "0") == "0"
