"""Making the whole corpus: workers, continuing where an interrupted run stopped, the tables, the figures."""

import json
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

from shared.dataset.clip import EMI, read_transcript
from shared.dataset.worker_pool import cores
from shared.errors import UserError
from shared.metrics import pcc
from shared.registry import Registry
from shared.synth import baseline
from shared.synth.config import SynthConfig
from shared.synth.truth import ClipTruth, clip_truth

FORMAT = "emit-corpus/1"
SPLITS = ("train", "valid", "test")
WRITERS = Registry(
    "corpus layout",
    {"csv": "shared.synth.tables:PlainWriter", "vidmimic2": "shared.synth.vidmimic2:Vidmimic2Writer"},
)
"""How the files are laid out; see PlainWriter for what each promises."""
VERSION = 4
"""Raised whenever the same configuration gives other clips, so that an older folder is not continued."""


def build(config: SynthConfig) -> dict:
    """Make what is missing of the corpus and return corpus.json. UserError when the folder holds something else."""
    writer = WRITERS.get(config.layout)(config)
    complete = _claim(config)
    if complete is not None:
        return complete
    from shared.files import write_json

    notes = config.out / "unfinished"
    notes.mkdir(exist_ok=True)
    writer.begin()
    todo = [i for i in range(config.clips) if not (notes / f"{i:05d}.npy").is_file()]
    _render(config, writer, todo)

    truths = [clip_truth(config, i) for i in range(config.clips)]
    writer.write_tables(truths)
    labels = np.round([writer.labels(t) for t in truths], 6)  # (N, 6)
    intensities = np.round([t.intensities for t in truths], 6)  # (N, 6)
    splits = [t.split for t in truths]
    ceiling = _ceiling(intensities, labels, splits)
    figures = {
        "format": FORMAT,
        "config": _identity(config),
        "seed": config.seed,
        "counts": _counts(truths),
        "label_rates": dict(zip(EMI, np.round((labels > 0).mean(axis=0), 4).tolist(), strict=True)),
        "ceiling": ceiling,
        "baseline": _baseline(writer, truths, labels, splits, ceiling["test"]["mean"]),
        "digest": _digest(writer),
    }
    write_json(config.out / "corpus.json", figures)
    shutil.rmtree(notes)
    return figures


def _identity(config: SynthConfig) -> dict:
    """What decides the bytes of the corpus."""
    options = {key: value for key, value in asdict(config).items() if key not in ("out", "workers")}
    if options["layout"] == "csv":
        del options["layout"]  # what corpora are that do not say
    return {"version": VERSION, **options}


def _claim(config: SynthConfig) -> dict | None:
    """Take the folder for this configuration; its corpus.json when the corpus is already complete."""
    from shared.files import write_json

    mark, finished = config.out / "synth.json", config.out / "corpus.json"
    if not mark.is_file():
        if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
            raise UserError(f"{config.out}: holds something else than a synthetic corpus: choose another --out")
        config.out.mkdir(parents=True, exist_ok=True)
        write_json(mark, _identity(config))
        return None
    try:
        found = json.loads(mark.read_text())
        figures = json.loads(finished.read_text()) if finished.is_file() else None
    except ValueError:
        raise UserError(f"{config.out}: its synth.json or corpus.json is damaged: choose another --out") from None
    wanted = _identity(config)
    if found != wanted:
        other = ", ".join(f"{k} {found.get(k)} instead of {v}" for k, v in wanted.items() if found.get(k) != v)
        raise UserError(f"{config.out}: holds a corpus made with {other}: choose another --out")
    return figures


def _render(config: SynthConfig, writer, todo: list[int]) -> None:
    """Make the clips `todo`, each in whatever process is free: a clip depends on nothing but its number."""
    from tqdm import tqdm

    workers = min(config.workers or cores(), max(1, len(todo) // 4))
    bar = {"total": config.clips, "initial": config.clips - len(todo), "unit": "clip", "desc": "emit synth"}
    for _ in tqdm(_run(writer.make, todo, workers), **bar):
        pass


def _run(job, todo: list[int], workers: int) -> Iterator[None]:
    if workers == 1:
        yield from map(job, todo)
        return
    # spawned, not forked: a fork of a process that has started threads may hang
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(job, todo, chunksize=4)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _counts(truths: list[ClipTruth]) -> dict:
    damage = {m: sum(bool(t.damage[m]) for t in truths) for m in ("vision", "audio", "text")}
    return {
        "clips": len(truths),
        "subjects": len({t.subject for t in truths}),
        "seeds": len({t.seed_video for t in truths}),
        **{split: sum(t.split == split for t in truths) for split in SPLITS},
        "damaged": damage,
    }


def _ceiling(intensities: np.ndarray, labels: np.ndarray, splits: list[str]) -> dict:
    """PCC of the true intensities with the labels: what a perfect model would score. Overall ("all") and per split."""

    def one(rows) -> dict:
        each = {name: pcc(intensities[rows, k], labels[rows, k]) for k, name in enumerate(EMI)}
        return {"mean": float(np.mean(list(each.values()))), "per_dimension": each}

    everywhere = {"all": np.ones(len(splits), bool), **{s: np.asarray(splits) == s for s in SPLITS}}
    return {name: one(rows) for name, rows in everywhere.items()}


def _baseline(writer, truths: list[ClipTruth], labels: np.ndarray, splits: list[str], ceiling: float) -> dict:
    plain = np.stack([np.load(writer.config.out / "unfinished" / f"{t.id}.npy") for t in truths])  # (N, 336)
    said = [read_transcript(writer.transcript(t)) or "" for t in truths]
    bag = baseline.bag_of_words(said, np.asarray(splits) == "train")  # (N, V)
    found = baseline.evaluate(np.concatenate([plain, bag], axis=1), labels, splits, EMI)
    return {**found, "share_of_ceiling": found["pcc"] / ceiling if ceiling > 0 else 0.0}


def _digest(writer) -> str:
    """Sixteen hexadecimal digits of every file of the corpus."""
    from shared.files import digest

    return digest([[Path(name).name, digest(writer.config.out / name)] for name in writer.files()])
