"""Recordings after the first one in a file, which players and FFmpeg do not read: MP4, WAV, AIFF, FLV and WMV."""

import mmap
from pathlib import Path
from typing import Literal

from shared.media.remarks import Remark, Remarks

UNREAD = Remark(
    "{} more recording(s), joined end to end, left out: players read the first one of such a file; split it",
    is_problem=True,
)
FLV_HEADERS = tuple(b"FLV\x01" + kinds + b"\x00\x00\x00\x09\x00\x00\x00\x00" for kinds in (b"\x01", b"\x04", b"\x05"))
ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
"""The first box of MP4 and MOV."""
MAX_BOXES = 100_000


def unread_recordings(source: Path | bytes) -> Remarks:
    """How many recordings of a file are not read. Reads only the beginnings of its parts, except for FLV and WMV."""
    try:
        if isinstance(source, bytes):
            count = _count(source)
        else:
            with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                count = _count(content)
    except (OSError, ValueError):
        return Remarks()
    return Remarks({UNREAD: count}) if count else Remarks()


def _count(content: bytes | mmap.mmap) -> int:
    head = content[:12]
    if head[4:8] in MP4_BOXES:
        return _count_mp4(content)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        return _count_chunks(content, b"RIFF", (b"WAVE",), "little")
    if head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        return _count_chunks(content, b"FORM", (b"AIFF", b"AIFC"), "big")
    if head[:4] == b"FLV\x01":
        return sum(_occurrences(content, header) for header in FLV_HEADERS)
    if content[:16] == ASF_HEADER:
        return _occurrences(content, ASF_HEADER)
    return 0


def _count_mp4(content: bytes | mmap.mmap) -> int:
    """Movie headers after the first one that follow a file type box or content, unless the content is in fragments:
    players read the fragments of all parts."""
    at, movies, is_new = 0, 0, True
    for _ in range(MAX_BOXES):
        head = content[at : at + 16]
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if len(head) < 8 or size < 8:
            break
        if kind == b"moof":
            return 0
        is_new |= kind in (b"ftyp", b"mdat")
        if kind == b"moov" and is_new:
            movies, is_new = movies + 1, False
        at += size
    return max(0, movies - 1)


def _count_chunks(
    content: bytes | mmap.mmap, name: bytes, forms: tuple[bytes, ...], order: Literal["little", "big"]
) -> int:
    """Chunks of the same kind that follow the first one."""
    at, count = 0, 0
    while content[at : at + 4] == name and content[at + 8 : at + 12] in forms:
        size = int.from_bytes(content[at + 4 : at + 8], order)
        at += 8 + size + size % 2
        count += 1
    return max(0, count - 1)


def _occurrences(content: bytes | mmap.mmap, header: bytes) -> int:
    """Occurrences after the beginning."""
    count, at = 0, content.find(header, 1)
    while at >= 0:
        count, at = count + 1, content.find(header, at + len(header))
    return count
