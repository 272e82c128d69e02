"""The error that a person reads."""

import contextlib
import errno
import os
from collections.abc import Iterator


class UserError(Exception):
    """One line: what is wrong, where, and what to do. Commands print it and exit with status 1, without a traceback."""


class UsageError(UserError):
    """An invalid command line: the exit status is 2."""


OPTION_FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Exceptions that libraries raise for conflicting options."""


@contextlib.contextmanager
def options_of(what: str, how: str) -> Iterator[None]:
    """Turn errors of a library that builds `what` from options into a UserError; `how` says what to check."""
    try:
        yield
    except UserError:
        raise
    except OPTION_FAULTS as error:
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")[:200]
        raise UserError(f"{what}: cannot be built with these options ({reason}); {how}") from error


def disk_full(error: BaseException) -> str:
    """The system's message for a full disk or quota, if that is the error; "" otherwise. Libraries wrap it in errors of
    their own, with its text."""
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
            return os.strerror(number)
    return ""
