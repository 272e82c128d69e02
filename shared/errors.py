"""The error that a person reads."""


class UserError(Exception):
    """One line: what is wrong, where, and what to do. Commands print it and exit with status 1, without a traceback."""
