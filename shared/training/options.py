"""Checks of option values."""

from typing import Any

from shared.errors import UserError


def require_positive(options: Any, group: str, *names: str) -> None:
    """UserError for the first of these options that is not above 0."""
    for name in names:
        if not getattr(options, name) > 0:
            raise UserError(f"--{group}.{name} is {getattr(options, name)}: it must be above 0")


def require_fraction(options: Any, group: str, *names: str) -> None:
    """UserError for the first of these options that lies outside [0, 1]."""
    for name in names:
        if not 0 <= getattr(options, name) <= 1:
            raise UserError(f"--{group}.{name} is {getattr(options, name)}: a fraction lies in [0, 1]")
