"""A folder has one writer at a time: a second process gets a one-line error that names the first.

The locks are operating system locks (fcntl). They also work between machines that share a disk, and end with the
process, however it ends. A process may take the same lock again. A disk without lock support has no locks.
"""

import errno
import fcntl
import os
import socket
import time
from pathlib import Path

from shared.errors import UserError

LOCK = ".lock"
_held: dict[str, int] = {}
"""{file: descriptor} of the locks of this process."""


def hold(folder: Path, shown: Path, name: str = LOCK, shared: bool = False) -> None:
    """Take the lock `folder`/`name` until `release` or the end of the process. shared: a shared lock. UserError,
    beginning with `shown`, if another process holds it."""
    file = os.path.realpath(folder / name)
    if file in _held:
        return
    os.makedirs(folder, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise UserError(f"{shown}: in use by {owner}; wait until it has ended, or end it") from None
        return  # no locks on this disk
    if not shared:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}, since {since}\n".encode())
    _held[file] = descriptor


def release(folder: Path) -> None:
    """Release all locks of this process in a folder."""
    for file in [file for file in _held if os.path.dirname(file) == os.path.realpath(folder)]:
        os.close(_held.pop(file))


def is_held_elsewhere(folder: Path) -> bool:
    """Whether another process holds the lock of a folder."""
    file = os.path.realpath(folder / LOCK)
    if file in _held or not os.path.exists(file):
        return False
    descriptor = os.open(file, os.O_RDWR)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)
    finally:
        os.close(descriptor)
    return False
