"""Commands as a user runs them."""

from shared.cli import call


def emit(command: str, *arguments) -> int:
    """A command as the `emit` entry point would run it."""
    return call([command, *map(str, arguments)])
