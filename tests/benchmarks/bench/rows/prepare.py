"""`emit prepare`, without the start of Python."""

import shutil

from benchmarks.bench import limits, material, stock
from benchmarks.bench.row import Bench, Measured, Row, watch


def ours(bench: Bench) -> Measured:
    source, out = material.folder_of_films(bench), bench.folder / "prepared"
    shutil.rmtree(out, ignore_errors=True)
    with watch() as clock:
        material.emit("shared.commands.prepare", source, "--out", out, "--workers", bench.threads)
    shutil.rmtree(out)
    amount = bench.size.clips * bench.size.clip_seconds
    with watch() as alone:
        stock.each(lambda path: limits.decode_alone(path, 1.0, threads=1), sorted(source.glob("*.mp4")), bench.threads)
    return Measured(clock.timing(amount), alone.timing(amount))


def baseline(bench: Bench) -> Measured:
    paths = sorted(material.folder_of_films(bench).glob("*.mp4"))[: 2 * bench.threads]  # it is slow
    with watch() as clock:
        stock.each(stock.prepare_clip, paths, bench.threads)
    return Measured(clock.timing(len(paths) * bench.size.clip_seconds))


ROW = Row(
    "prepare 640 x 480 H.264",
    "s of video/s",
    ours,
    baseline,
    "every frame by PyAV, a cascade on each kept frame; nothing written",
    "decoding alone by PyAV",
    material.folder_of_films,
)
