"""Text helpers: messages and lists on one line, the normal form for comparing texts, and what counts as saying
something."""

import re
import unicodedata
from collections.abc import Callable

UNREADABLE = "\ufffd"
"""The decoders' replacement for bytes that they cannot read."""


def one_line(message: object, limit: int | None = None) -> str:
    """A message or an exception as one line of at most `limit` characters; an empty one gives its type name."""
    line = " ".join(str(message).split())[:limit]
    return line or type(message).__name__


def words(text: str | None) -> list[str]:
    """The words of a text in lower case, without punctuation; [] for None. The Unicode form does not matter; vowel
    signs and accents are part of their words."""
    text = (text or "").lower().replace("’", "'")
    if not text.isascii():
        text = "".join(_word_character(c) for c in unicodedata.normalize("NFC", text))
        return [word for part in text.split() if (word := part.strip("'"))]
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text)


def _word_character(character: str) -> str:
    """The character if it belongs to a word, "" for an invisible joiner, otherwise a space."""
    if character.isalnum() or character == "'":
        return character
    category = unicodedata.category(character)
    return character if category[0] == "M" else "" if category == "Cf" else " "


def says_something(text: str) -> Callable[[str], bool]:
    """Which characters of a text say something: letters and digits, or, in a text without any, symbols such as emoji.
    Punctuation, spaces, control characters and undecodable bytes do not."""
    return str.isalnum if any(map(str.isalnum, text)) else _is_symbol


def _is_symbol(character: str) -> bool:
    return character != UNREADABLE and unicodedata.category(character)[0] == "S"


def has_words(text: str | None) -> bool:
    """Whether a text says anything."""
    return any(map(says_something(text or ""), text or ""))


def repair_surrogates(text: str) -> str:
    """The text with surrogate pairs joined; a lone surrogate, which cannot be encoded, becomes UNREADABLE."""
    if text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def first_few(items: list[str], limit: int = 3, separator: str = ", ") -> str:
    """The first items, and how many more there are."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return separator.join(items[:limit]) + more


def counted(count: int, word: str, one: str = "", many: str = "") -> str:
    """A number with its word, optionally with the verb for one or many: "1 person", "7 clips have"."""
    verb = one if count == 1 else many
    plural = "" if count == 1 else "es" if word.endswith("s") else "s"
    return f"{count:,} {word}{plural}{' ' * bool(verb)}{verb}"
