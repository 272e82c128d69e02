"""Making the whole corpus: workers, continuing where an interrupted run stopped, the tables, the figures."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from shared.clips import EMI
from shared.errors import UserError
from shared.metrics import pcc
from shared.synth import baseline
from shared.synth.clip import clip_format, make
from shared.synth.config import SynthConfig
from shared.synth.truth import ClipTruth, clip_truth

FORMAT = "emit-corpus/1"
SPLITS = ("train", "valid", "test")
VERSION = 2
"""Raised whenever the same configuration gives other clips, so that an older folder is not continued."""


def build(config: SynthConfig) -> dict:
    """Make what is missing of the corpus and return corpus.json. UserError when the folder holds something else."""
    complete = _claim(config)
    if complete is not None:
        return complete
    from shared.files import write_csv, write_json

    clips, notes = config.out / "clips", config.out / "unfinished"
    clips.mkdir(exist_ok=True)
    notes.mkdir(exist_ok=True)
    for leftover in clips.glob(".*"):  # a file that an interrupted worker did not finish
        leftover.unlink()
    todo = [i for i in range(config.clips) if not (notes / f"{i:05d}.npy").is_file()]
    _render(config, todo)

    truths = [clip_truth(config, i) for i in range(config.clips)]
    names = [f"clips/{t.id}{clip_format(config, t.index).suffix}" for t in truths]
    write_csv(config.out / "labels.csv", *_label_table(truths, names))
    write_csv(config.out / "truth.csv", *_truth_table(truths))
    labels = np.round([t.labels for t in truths], 6)  # (N, 6)
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
        "baseline": _baseline(config, truths, labels, splits, ceiling["test"]["mean"]),
        "digest": _digest(config.out),
    }
    write_json(config.out / "corpus.json", figures)
    shutil.rmtree(notes)
    return figures


def _identity(config: SynthConfig) -> dict:
    """What decides the bytes of the corpus."""
    return {"version": VERSION, **{k: v for k, v in asdict(config).items() if k not in ("out", "workers")}}


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


def _render(config: SynthConfig, todo: list[int]) -> None:
    """Make the clips `todo`, each in whatever process is free: a clip depends on nothing but its number."""
    from tqdm import tqdm

    workers = min(config.workers or len(os.sched_getaffinity(0)), max(1, len(todo) // 4))
    bar = {"total": config.clips, "initial": config.clips - len(todo), "unit": "clip", "desc": "emit synth"}
    job = partial(make, config, folder=config.out / "clips", notes=config.out / "unfinished")
    for _ in tqdm(_run(job, todo, workers), **bar):
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


def _label_table(truths: list[ClipTruth], names: list[str]) -> tuple[list[str], list[list]]:
    rows = [
        [name, *_rounded(t.labels), f"subject{t.subject:03d}", f"seed{t.seed_video:04d}", t.split]
        for t, name in zip(truths, names, strict=True)
    ]
    return ["Filename", *EMI, "subject", "seed", "split"], rows


def _truth_table(truths: list[ClipTruth]) -> tuple[list[str], list[list]]:
    columns = ["id", *(f"true_{name}" for name in EMI), "rater_count"]
    columns += ["vision_damage", "audio_damage", "text_damage", "duration", "onset_time", "apex_time", "offset_time"]
    columns += [f"{m}_{name}" for m in ("seen", "heard", "said") for name in EMI]
    rows = []
    for t in truths:
        course = [t.course.duration, t.course.onset, t.course.apex, t.course.offset]
        shown = [*_rounded(t.seen), *_rounded(t.heard), *_rounded(t.said)]
        rows.append([t.id, *_rounded(t.intensities), t.raters, *t.damage.values(), *_rounded(course), *shown])
    return columns, rows


def _rounded(values) -> list[float]:
    return [round(float(value), 6) for value in values]


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


def _baseline(config: SynthConfig, truths, labels, splits, ceiling: float) -> dict:
    plain = np.stack([np.load(config.out / "unfinished" / f"{t.id}.npy") for t in truths])  # (N, 336)
    texts = [config.out / "clips" / f"{t.id}.txt" for t in truths]
    said = [text.read_text().strip() if text.is_file() else "" for text in texts]
    bag = baseline.bag_of_words(said, np.asarray(splits) == "train")  # (N, V)
    found = baseline.evaluate(np.concatenate([plain, bag], axis=1), labels, splits, EMI)
    return {**found, "share_of_ceiling": found["pcc"] / ceiling if ceiling > 0 else 0.0}


def _digest(folder: Path) -> str:
    """Sixteen hexadecimal digits of every file of the corpus."""
    from shared.files import digest

    files = [*sorted((folder / "clips").iterdir()), folder / "labels.csv", folder / "truth.csv"]
    return digest([[file.name, digest(file)] for file in files])
