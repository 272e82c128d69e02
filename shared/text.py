"""Text helpers: messages and lists on one line, and the one normal form in which texts are compared."""

import re


def one_line(message: object, limit: int | None = None) -> str:
    """A message or an exception as one line of at most `limit` characters; an empty one gives the name of its type."""
    line = " ".join(str(message).split())[:limit]
    return line or type(message).__name__


def words(text: str | None) -> list[str]:
    """The words of a text in lower case, without punctuation; [] for None."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", (text or "").lower().replace("’", "'"))


def first_few(items: list[str], limit: int = 3, separator: str = ", ") -> str:
    """The first items, and how many more there are."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return separator.join(items[:limit]) + more
