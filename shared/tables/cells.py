"""The meaning of a table cell: a number, texts, the name of a split, media."""

import math
import re
import unicodedata
from collections.abc import Collection
from typing import Any

from shared.errors import UserError

MISSING_WORDS = (
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null", "NaT", r"\N"),
)
"""Words for a missing value, as in pandas (read_csv, na_values) and databases. In texts their case matters: a person
may be called Na, and somebody may say "none"."""
_MISSING = frozenset(word.lower() for word in ("", *MISSING_WORDS))
SPLITS = {
    "train": ("train", "training", "trn"),
    "valid": ("valid", "val", "validation", "validate", "dev", "devel", "development"),
    "test": ("test", "testing", "tst"),
}
"""The names of the splits in tables. "eval" is not included: some tables mean validation by it, others test."""
INVISIBLE = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060"
"""Invisible characters at the ends of copied cells."""
_TEXT_FORMULA = re.compile(r'=\(?"((?:[^"]|"")*)"\)?')
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SIGNS = str.maketrans({"−": "-", "－": "-", "﹣": "-", "＋": "+", "．": ".", "٫": "."})
"""The minus sign other than a hyphen, and the signs of full-width and Arabic digits."""
_OTHER_NUMBERS = {
    r"[+-]?\d{1,3}([,.'’ \u00a0\u202f]\d{3})+([.,]\d+)?": "write it with a decimal point, and without separators of "
    "thousands",
    r"[+-]?\d*,\d+": "write it with a decimal point",
    r"[+-]?[\d.,]+ ?%": "write 0.5 for 50%",
    r"\d+/\d+": "write 0.5 for 1/2",
    r"[\d.]+_[\d_.]*": "write it without underscores",
    r"['’`][+-]?[\d.,]+|[\d.,]+['’`]": "remove the apostrophe",
    r"[<>~≈=]+ ?[\d.,]+": "write the number alone",
}
"""{pattern of a number in another notation: what to do}."""
_HINTS = {
    **_OTHER_NUMBERS,
    r"(?i)0x[\da-f]+|[+-]?[\d.]+d[+-]?\d+": "write it as 0.001 or 1e-3",
    r"(?i)true|false": "write 1 or 0",
    r"[^\w\s]{1,3}|#[A-Z/0]+[!?]": "leave it empty",
    r"[\u00bc-\u00be\u2150-\u215e]": "write 0.5 for ½",
    r"(?i)(?=.*\d)\d{0,2}[-. ]*(jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-z]{0,6}[-. ]*\d{0,4}": ""
    "a spreadsheet may have made a date of a number; format the column as text there",
    r"(?i)[+-]?(inf|infinity|\d+(\.\d*)?e\+?\d+)": "write a finite number",
}
"""{pattern of a cell that was meant to be a number: what to do}."""


def clean(text: str) -> str:
    """A text without white space and invisible characters at its ends. A formula such as ="0012", which spreadsheets
    use to keep leading zeros, gives its text."""
    stripped = text.strip().strip(INVISIBLE)
    if stripped.startswith("=") and (formula := _TEXT_FORMULA.fullmatch(stripped)):
        stripped = formula[1].replace('""', '"')
    return stripped if stripped == text else clean(stripped)


def parse_number(cell: Any) -> float | None:
    """The finite number in a cell; NaN if the cell is empty or a word for a missing value; None for anything else.

    Digits of any script are read; underscores, separators of thousands and decimal commas are not
    (shared/tables/decimal_commas.py converts a table that has them).
    """
    if isinstance(cell, str):
        text = clean(cell)
        if text.lower() in _MISSING:
            return math.nan
        if not text.isascii():
            text = "".join(str(unicodedata.decimal(c, c)) for c in text.translate(_SIGNS))
        value = float(text) if _NUMBER.fullmatch(text) else None
        return value if value is not None and math.isfinite(value) else None
    if cell is None:
        return math.nan
    try:
        value = float(cell)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isinf(value) else value


def parse_label(cell: Any, where: str) -> float:
    """The label in a cell, NaN if there is none. UserError, beginning with `where`, if it is not a number."""
    value = parse_number(cell)
    if value is None:
        raise UserError(f"{where}: {not_a_number(cell)}; leave it empty if there is no label")
    return value


def not_a_number(cell: Any) -> str:
    """Why a cell is not a number and, if known, what to write instead."""
    text = clean(str(cell))
    hint = next((hint for pattern, hint in _HINTS.items() if re.fullmatch(pattern, text)), "")
    return f"{str(cell)[:40]!r} is not a number" + (f": {hint}" if hint else "")


def is_nearly_number(cell: Any) -> bool:
    """Whether a cell that is not a number was probably meant to be one: 0_6, 50%, 1.234,5, Mar-05, #DIV/0!"""
    return any(re.fullmatch(pattern, clean(str(cell))) for pattern in _HINTS)


def is_other_number(cell: Any) -> bool:
    """Whether a cell is a number in an unsupported notation: 0_6, 50%, 1.234,5."""
    return any(re.fullmatch(pattern, clean(str(cell))) for pattern in _OTHER_NUMBERS)


def cell_texts(cell: Any, missing: Collection[str] = MISSING_WORDS) -> list[str]:
    """The texts in a cell: none, one, or the items of a list; stripped, without empty ones and words in `missing`."""
    values = cell if isinstance(cell, list) else [cell]
    texts = (clean(str(value)) for value in values if value is not None)
    return [text for text in texts if text and text not in missing]


def cell_text(cell: Any, missing: Collection[str] = MISSING_WORDS) -> str:
    """The texts in a cell, joined by spaces."""
    return " ".join(cell_texts(cell, missing))


def split_name(cell: str) -> str:
    """train, valid, test or "" for any spelling: Train, VAL, dev set; other names stay unchanged."""
    text = clean(cell)
    if text.lower() in _MISSING:
        return ""
    word = re.sub(r"[\s_.-]", "", text).casefold()
    word = word.removesuffix("data").removesuffix("set").removesuffix("split") or word
    return next((name for name, names in SPLITS.items() if word in names), text)


def media_content(cell: Any) -> Any:
    """Bytes or a path from {"bytes", "path"}, as in datasets; None for an empty cell; other values stay unchanged."""
    if isinstance(cell, dict) and "array" not in cell:
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, str) and cell in MISSING_WORDS:
        return None
    return cell or None
