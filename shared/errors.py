"""The one exception a person is meant to read."""


class UserError(Exception):
    """Says in one line what is wrong, where, and what to do. Commands print it and exit 1, without a traceback."""
