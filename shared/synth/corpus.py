"""Generates a whole corpus: worker processes, resumption after an interruption, tables, figures."""

import contextlib
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from shared.dataset.clip import EMI
from shared.dataset.worker_pool import cores
from shared.errors import UserError
from shared.files import digest, write_json
from shared.locks import hold, release
from shared.metrics import DimensionScores, pcc
from shared.registry import Registry
from shared.synth.clip import is_complete
from shared.synth.config import SynthConfig
from shared.synth.tables import CsvWriter
from shared.synth.truth import ClipTruth, clip_truth
from shared.terminal.progress import progress

FORMAT = "emit-corpus/1"
SPLITS = ("train", "valid", "test")
WRITERS = Registry(
    "corpus layout",
    {"csv": "shared.synth.tables:CsvWriter", "vidmimic2": "shared.synth.vidmimic2:Vidmimic2Writer"},
)
"""Layouts of the files; each is a CsvWriter."""
LATER_OPTIONS = ("layout", "dynamics", "damage_spans", "labels", "unmet_videos")
"""Options added without changing corpora that do not use them."""
VERSION = 4
"""Incremented when the same configuration gives different clips, so that an older folder is not resumed."""
CEILING_OF = "expected labels"
"""What the ceiling in corpus.json is computed from. An older corpus.json without this entry has the PCC of the
intensities and is updated; its clips are the same."""


def build(config: SynthConfig) -> dict[str, Any]:
    """Generate the missing part of the corpus and return corpus.json. UserError if the folder holds something else, or
    another process is writing it."""
    writer: CsvWriter = WRITERS.get(config.layout)(config)
    complete = _claim(config)
    if complete is not None:
        return _with_ceiling(complete, config, writer)
    hold(writer.progress, config.out)
    try:
        return _build(config, writer)
    finally:
        release(writer.progress)


def _build(config: SynthConfig, writer: CsvWriter) -> dict[str, Any]:
    writer.prepare_folders()
    truths = [clip_truth(config, i) for i in range(config.clips)]
    _write_clips(writer, [t.index for t in truths if not is_complete(writer.progress, t.id)])

    writer.write_tables(truths)
    labels = np.round([writer.labels(t) for t in truths], 6)  # (N, 6)
    figures = {
        "format": FORMAT,
        "config": _identity(config),
        "seed": config.seed,
        "counts": _counts(truths) | _unmet_count(config, truths),
        "label_rates": dict(zip(EMI, np.round((labels > 0).mean(axis=0), 4).tolist(), strict=True)),
        "ceiling": _ceiling(writer, truths, labels),
        "ceiling_of": CEILING_OF,
        "digest": _digest(writer),
    }
    write_json(config.out / "corpus.json", figures)
    shutil.rmtree(writer.progress)
    return figures


def _identity(config: SynthConfig) -> dict[str, Any]:
    """The options that determine the bytes of the corpus."""
    options = {key: value for key, value in asdict(config).items() if key not in ("out", "workers")}
    for name in LATER_OPTIONS:
        if options[name] == SynthConfig.__dataclass_fields__[name].default:
            del options[name]  # a corpus without this entry has the default
    return {"version": VERSION, **options}


def _claim(config: SynthConfig) -> dict[str, Any] | None:
    """Claim the folder for this configuration; its corpus.json if the corpus is already complete."""
    stamp, finished = config.out / "synth.json", config.out / "corpus.json"
    if not stamp.is_file():
        if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
            raise UserError(f"{config.out}: holds files that are not a synthetic corpus; choose another --out")
        config.out.mkdir(parents=True, exist_ok=True)
        write_json(stamp, _identity(config))
        return None
    try:
        existing = json.loads(stamp.read_text())
        figures = json.loads(finished.read_text()) if finished.is_file() else None
    except ValueError:
        raise UserError(f"{config.out}: its synth.json or corpus.json is damaged: choose another --out") from None
    identity = _identity(config)
    if existing != identity:
        changes = [f"{k} {existing.get(k)} instead of {v}" for k, v in identity.items() if existing.get(k) != v]
        raise UserError(f"{config.out}: holds a corpus made with {', '.join(changes)}: choose another --out")
    return figures


def _write_clips(writer: CsvWriter, missing: list[int]) -> None:
    """Write the missing clips on all workers: a clip depends only on its index."""
    config = writer.config
    workers = min(config.workers or cores(), max(1, len(missing) // 4))
    with progress("synth", config.clips, "clips", done=config.clips - len(missing)) as bar:
        for _ in _run(writer.write_clip, missing, workers):
            bar.update()


def _run(job: Callable[[int], None], indices: list[int], workers: int) -> Iterator[None]:
    if workers == 1:
        yield from map(job, indices)
        return
    # spawned, not forked: forking a process with threads may hang
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(job, indices, chunksize=4)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _counts(truths: list[ClipTruth]) -> dict[str, Any]:
    damage = {m: sum(bool(t.damage[m]) for t in truths) for m in ("vision", "audio", "text")}
    return {
        "clips": len(truths),
        "subjects": len({t.subject for t in truths}),
        "seeds": len({t.seed_video for t in truths}),
        **{split: sum(t.split == split for t in truths) for split in SPLITS},
        "damaged": damage,
    }


def _unmet_count(config: SynthConfig, truths: list[ClipTruth]) -> dict[str, int]:
    """The number of test clips with a seed video that is in no other split (their subjects never are); nothing without
    `unmet_videos`, which older corpora lack."""
    met = {t.seed_video for t in truths if t.split != "test"}
    unmet = sum(t.split == "test" and t.seed_video not in met for t in truths)
    return {"unmet_test": unmet} if config.unmet_videos else {}


def _with_ceiling(figures: dict[str, Any], config: SynthConfig, writer: CsvWriter) -> dict[str, Any]:
    """The corpus.json of a complete corpus with the ceiling of this version, written if the folder is writable."""
    figures.pop("baseline", None)  # earlier versions kept the score of a ridge regression
    if figures.get("ceiling_of") == CEILING_OF:
        return figures
    truths = [clip_truth(config, i) for i in range(config.clips)]
    ceiling = _ceiling(writer, truths, np.round([writer.labels(t) for t in truths], 6))
    figures = {**figures, "ceiling": ceiling, "ceiling_of": CEILING_OF}
    with contextlib.suppress(OSError, UserError):
        write_json(config.out / "corpus.json", figures)
    return figures


def _ceiling(writer: CsvWriter, truths: list[ClipTruth], labels: np.ndarray) -> dict[str, dict[str, Any]]:
    """PCC between the expected labels and the labels (N, 6), the score of a perfect model: over all clips ("all") and
    per split; None if a small corpus has too few clips."""
    expected = np.stack([writer.expected_labels(t) for t in truths])  # (N, 6)
    splits = [t.split for t in truths]

    def score(rows: np.ndarray) -> dict[str, Any]:
        scores = {name: pcc(expected[rows, k], labels[rows, k]) for k, name in enumerate(EMI)}
        return asdict(DimensionScores.from_values(scores))

    rows = {"all": np.ones(len(splits), bool), **{split: np.asarray(splits) == split for split in SPLITS}}  # (N,) each
    return {name: score(selected) for name, selected in rows.items()}


def _digest(writer: CsvWriter) -> str:
    """Sixteen hexadecimal digits over every file of the corpus."""
    return digest([[Path(name).name, digest(writer.config.out / name)] for name in writer.files()])
