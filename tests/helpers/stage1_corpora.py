"""Small generated corpora of pictures, sound and captions. Item i has a picture of one color, shade(i), and 1600 + i
samples of sound."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from helpers.media_files import write_wav

from stage1_align.data.sources.base import Sample

RATE = 16000


def shade(i: int) -> tuple[int, int, int]:
    return (i % 16) * 16, (i // 16) * 16, 100


def png(i: int, side: int = 8) -> bytes:
    picture = np.full((side, side, 3), shade(i), np.uint8)
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()


def wav(i: int, folder: Path) -> bytes:
    """0.1 s and i samples of a quiet tone."""
    sound = 0.1 * np.sin(np.arange(1600 + i) / 5)[None]  # (1, S)
    return write_wav(folder / "tone.wav", sound).read_bytes()


def number_of(sample: Sample) -> int:
    """The number i of a decoded item, read from its picture or its sound."""
    if len(sample.frames):
        red, green, _ = sample.frames[0, 0, 0].tolist()
        return red // 16 + green
    return len(sample.waveform) - 1600


def write_shard(path: Path, records: dict[str, dict[str, bytes]]) -> Path:
    """{key: {suffix: bytes}} as a tar."""
    with tarfile.open(path, "w") as tar:
        for key, members in records.items():
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def write_shards(folder: Path, shards: int, each: int) -> Path:
    """Pictures with a caption, numbered across the shards. Returns the pattern of the shards' names."""
    folder.mkdir(exist_ok=True)
    for shard in range(shards):
        numbers = range(shard * each, (shard + 1) * each)
        records = {f"{i:04d}": {"png": png(i), "txt": f"color {i}".encode()} for i in numbers}
        write_shard(folder / f"{shard:03d}.tar", records)
    return folder / f"{{000..{shards - 1:03d}}}.tar"


def write_sounds(folder: Path, count: int) -> Path:
    """WAV files and a table of their captions; returns the table."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        (folder / f"{i}.wav").write_bytes(wav(i, folder))
    lines = [f"{i}.wav,tone {i}" for i in range(count)]
    table = folder / "sounds.csv"
    table.write_text("\n".join(["audio,caption", *lines]) + "\n")
    return table


def dump(value: Any) -> bytes:
    return json.dumps(value).encode()
