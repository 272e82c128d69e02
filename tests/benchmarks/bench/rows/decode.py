"""Decoding a film for training: its pictures at the rate that is kept, and its sound."""

from benchmarks.bench import limits, material, stock
from benchmarks.bench.row import Bench, Measured, Row, watch, with_limit


def ours(bench: Bench) -> Measured:
    from shared.dataset.recipe import Recipe
    from shared.media.decode import decode

    path, recipe, size = material.film(bench), Recipe(), bench.size
    decode(path, recipe.frame_rate, 1.0)
    with watch() as clock:
        for _ in range(size.repeats):
            decode(path, recipe.frame_rate, recipe.max_seconds, recipe.max_side)
    timing = clock.timing(size.repeats * size.clip_seconds)
    return with_limit(timing, limits.decode_alone(path, size.clip_seconds, bench.threads))


def baseline(bench: Bench) -> Measured:
    path, size = material.film(bench), bench.size
    with watch() as clock:
        for _ in range(size.repeats):
            stock.read_all(path)
    return Measured(clock.timing(size.repeats * size.clip_seconds))


ROW = Row(
    "decode 640 x 480 H.264",
    "s of video/s",
    ours,
    baseline,
    "every frame as RGB and all sound by PyAV",
    "decoding alone by PyAV",
    material.film,
)
