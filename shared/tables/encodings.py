"""The bytes of a table as text: its encoding, if certain, and what else a file with a table's name may be."""

import codecs
import re
from pathlib import Path
from typing import NamedTuple

from shared.errors import UserError
from shared.files import read_file

AS_CSV = "save it as CSV UTF-8 (in Excel and LibreOffice: Save As)"
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, because it starts with that mark
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
CONTENTS = {
    rb"PK\x03\x04": f"an Excel or OpenDocument table, or a zip archive; {AS_CSV}",
    rb"\xd0\xcf\x11\xe0": f"an old Excel table; {AS_CSV}",
    rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf": "compressed data; unpack it",
    rb"PAR1": "Parquet; read it with the layout hf, or the source hf",
    rb"ARROW1|FEA1|\xff\xff\xff\xff": "Arrow; read it with the layout hf, or the source hf",
    rb"%PDF|\{\\rtf": f"a document; {AS_CSV}",
    rb"SQLite format 3": "a database; export the table as CSV",
    rb"version https://git-lfs": "a pointer of Git LFS; get the file itself with `git lfs pull`",
    rb"(?i)\s*<(!doctype|html|table|\?xml)": f"HTML or XML; {AS_CSV}",
    rb"\x80[\x02-\x05]": "a pickle; write it with to_csv",
    rb"\x93NUMPY": "a NumPy array; write it as CSV with a header",
}
"""{first bytes of a file that is not a text table: what it is and what to do}."""
_LETTERS = r"A-Za-zÀ-ÖØ-öø-ÿŠšŽžŒœŸ"
_ODD_1252 = re.compile(
    rf"[^\x00-\x7f]{{3}}"  # whole words without a plain letter: another script
    rf"|(?<![{_LETTERS}])[À-ÖØ-öø-ÿŠšŽžŒœŸ]{{2,}}(?![{_LETTERS}])"
    rf"|(?<=[a-zß-öø-ÿšžœ])[À-ÖØ-ÞŠŽŒŸ]"  # a capital inside a word
    rf"|(?<=[{_LETTERS}])[^\x00-\x7fA-Za-zÀ-ÖØ-öø-ÿŠšŽžŒœŸ’\xa0](?=[{_LETTERS}])"  # a sign inside a word
    rf"|(?<=[{_LETTERS}])[‚„ƒˆ˜‰†‡‹¢¥¦§¨¬¯³¶¸¹¿¡](?![{_LETTERS}])"  # a sign behind a word
    rf"|[¢¤¥¦§¨¬¯³´¶¸¹](?=[{_LETTERS}])"  # a sign before a word
    rf"|(?<![{_LETTERS}])[ÿîñðþ](?![{_LETTERS}])"
    rf"|[\x80-\x9f]"
)
"""Patterns in text of other encodings decoded as Windows-1252, but not in real Windows-1252 text."""


class TableText(NamedTuple):
    """The text of a table."""

    text: str
    notes: list[str]
    """How it was read, if not as plain UTF-8."""


def read_table_text(path: Path, encoding: str = "", tolerant: bool = False) -> TableText:
    """The text of a table. encoding: a codec of Python; by default UTF-8, UTF-16 or UTF-32 by their byte order marks,
    UTF-16 by its zeros, or Windows-1252 if it gives plausible text. tolerant: read an uncertain encoding as UTF-8, with
    U+FFFD for invalid bytes. UserError if the file is missing, is not text, or its encoding is uncertain."""
    try:
        data = read_file(Path(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such table; give a .csv, or a folder with a labels.csv") from None
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        raise UserError(f"{path}: not a readable table ({error})") from None
    content = next((what for begin, what in CONTENTS.items() if re.match(begin, data)), None)
    if content and not encoding:
        raise UserError(f"{path}: holds {content}")
    if encoding:
        return _decode_as(data, path, encoding)
    mark = next((mark for mark in BYTE_ORDER_MARKS if data.startswith(mark)), None)
    if mark is not None:
        return TableText(_decode_as(data, path, BYTE_ORDER_MARKS[mark]).text, [])
    if zeros := _utf16_without_mark(data):
        return TableText(_decode_as(data, path, zeros).text, ["read as UTF-16, although it has no byte order mark"])
    try:
        return TableText(data.decode("utf-8"), [])
    except UnicodeDecodeError as error:
        try:
            return _windows_1252(data, path, error.start)
        except UserError as reason:
            if not tolerant:
                raise
            return TableText(data.decode("utf-8", errors="replace"), [str(reason)])


def _decode_as(data: bytes, path: Path, encoding: str) -> TableText:
    try:
        return TableText(data.decode(encoding).removeprefix("\ufeff"), [])
    except LookupError:
        raise UserError(f"{path}: no encoding called {encoding!r}; such as utf-8, cp1252, shift_jis, gb18030") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}: line {line} is not {encoding} ({error.reason}); {AS_CSV}") from None


def _utf16_without_mark(data: bytes) -> str:
    """The byte order of UTF-16 text with mostly Latin letters; "" for anything else."""
    start = data[:4096]
    even, odd = start[::2].count(0), start[1::2].count(0)
    enough = len(start) // 2 * 0.7
    if len(data) % 2 or len(data) < 4:
        return ""
    return "utf-16-le" if odd > enough and not even else "utf-16-be" if even > enough and not odd else ""


def _windows_1252(data: bytes, path: Path, first_wrong: int) -> TableText:
    """Text that is not UTF-8, if it is plausible in Windows-1252. UserError names a line if it is not."""
    line = data[:first_wrong].count(b"\n") + 1
    how = f"{AS_CSV}, or name its encoding in the option `encoding`"
    if not data[:first_wrong].isascii():
        raise UserError(f"{path}: line {line} is not UTF-8, though lines before it are; {how}")
    text = data.decode("cp1252", errors="replace")
    odd = "\ufffd" in text or _ODD_1252.search(text)
    if odd:
        raise UserError(f"{path}: line {line} is neither UTF-8 nor certainly Windows-1252; {how}")
    example = next(re.finditer(r"\S*[^\x00-\x7f]\S*", text))[0]
    word = re.split(r"[,;\t|\"]", example)
    shown = next((part for part in word if not part.isascii()), example)[:40]
    return TableText(text, [f"not UTF-8, so read as Windows-1252, such as {shown!r} in line {line}"])
