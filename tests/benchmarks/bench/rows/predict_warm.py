"""One clip through a loaded Predictor: decoding, faces, encoders, fusion."""

import warnings

from benchmarks.bench import limits, material, stock
from benchmarks.bench.row import Bench, Measured, Row, watch, with_limit


def ours(bench: Bench) -> Measured:
    from stage2_fusion import Predictor

    film = material.film(bench)
    warnings.simplefilter("ignore")  # that the model learned from drawn faces
    predictor = Predictor.from_pretrained(material.model(bench))
    predictor(str(film))
    with watch() as clock:
        for _ in range(bench.size.repeats):
            predictor(str(film))
    return with_limit(clock.timing(bench.size.repeats), limits.decode_alone(film, 1, bench.threads))


def baseline(bench: Bench) -> Measured:
    film = material.film(bench)
    stock.prepare_clip(film)
    with watch() as clock:
        stock.prepare_clip(film)
    return Measured(clock.timing(1))


ROW = Row(
    "predict, warm",
    "s",
    ours,
    baseline,
    "preparing the clip alone: every frame by PyAV, a cascade on each kept frame",
    "decoding alone by PyAV",
    material.model,
)
