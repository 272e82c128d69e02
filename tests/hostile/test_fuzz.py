"""Files mutated by a seeded fuzzer: each gives a result or one line, in bounded time and memory; nothing is executed or
fetched, and no folder of ours gives other numbers than the untouched one."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hostile import sandbox
from hostile.mutate import mutate_file, mutate_folder

from shared.files import digest
from stage2_fusion.data.features import FeatureDataset, ModalityFeatures


@pytest.fixture(scope="module")
def expected(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """{kind: the numbers that its untouched input gives}."""
    folder, numbers = tmp_path_factory.mktemp("untouched"), {}
    for name, kind in KINDS.items():
        if kind.numbers is not None:
            outcome, numbers[name] = attempt(base, kind, folder / name, None)
            assert outcome.status == 0 and not outcome.fault(), outcome
    return numbers


def predictions(folder: Path) -> str:
    return (folder / "out" / "predictions.csv").read_text()


def features(folder: Path) -> list[str]:
    dataset = FeatureDataset.open(folder / "out", None, (0,))
    return sorted(f"{s.id} {digest_of(s.vision)} {digest_of(s.audio)} {digest_of(s.text)} {s.labels}" for s in dataset)


def digest_of(part: ModalityFeatures) -> str:
    return digest([values.tolist() for values in (part.sequence, part.times, part.pooled, part.quality)])


def scores(folder: Path) -> dict:
    return json.loads((folder / "out" / "metrics.json").read_text())["pcc"]


def weights(folder: Path) -> str:
    return digest(folder / "mutated" / "model" / "model.safetensors")


@dataclass
class Kind:
    """One kind of input."""

    input: str
    """Name of the file or folder in `base`."""
    words: Callable[[Path, Path], list[object]]
    """The command that reads `mutated`."""
    numbers: Callable[[Path], object] | None = None
    """Reads the numbers that must be those of the untouched input; None if a mutation may change them."""
    inside: str = ""
    """The file of the input that is mutated; by default any."""


PREDICT = ["--out", "out/predictions.csv"]
KINDS = {
    "mp4": Kind("media/c0.mp4", lambda b, w: ["predict", w / "mutated.mp4", "--model", b / "model", *PREDICT]),
    "webm": Kind("media/c1.webm", lambda b, w: ["predict", w / "mutated.webm", "--model", b / "model", *PREDICT]),
    "mkv": Kind("media/c2.mkv", lambda b, w: ["check", w / "mutated.mkv", "--out", "out/report.json"]),
    "ts": Kind("media/c3.ts", lambda b, w: ["predict", w / "mutated.ts", "--model", b / "model", *PREDICT]),
    "avi": Kind("media/c5.avi", lambda b, w: ["predict", w / "mutated.avi", "--model", b / "model", *PREDICT]),
    "table": Kind("media", lambda b, w: ["check", w / "mutated", "--out", "out/report.json"], inside="labels.csv"),
    "prepared_table": Kind(
        "media", lambda b, w: ["prepare", w / "mutated", "--out", "out", "--workers", "1"], inside="labels.csv"
    ),
    "align_yaml": Kind(
        "align.yaml",
        lambda b, w: [
            *("align", "--config", w / "mutated.yaml", "--data", b / "clips"),
            *("--run", "out", "--max_optimizer_steps", 1),
        ],
    ),
    "fuse_yaml": Kind(
        "fuse.yaml",
        lambda b, w: [
            *("fuse", "--config", w / "mutated.yaml", "--data", b / "features"),
            *("--run", "out"),
        ],
    ),
    "model": Kind(
        "model",
        lambda b, w: ["predict", b / "media/c0.mp4", "--model", w / "mutated", *PREDICT],
        predictions,
    ),
    "encoders": Kind(
        "encoders",
        lambda b, w: ["encode", "--encoders", w / "mutated", "--data", b / "clips", "--out", "out"],
        features,
    ),
    "clips": Kind(
        "clips",
        lambda b, w: ["encode", "--encoders", b / "encoders", "--data", w / "mutated", "--out", "out"],
        features,
    ),
    "features": Kind(
        "features",
        lambda b, w: [
            *("evaluate", "--model", b / "model", "--data", w / "mutated"),
            *("--bootstrap", 20, "--out", "out/metrics.json"),
        ],
        scores,
    ),
    "run": Kind(
        "run",
        lambda b, w: ["fuse", "--config", b / "fuse.yaml", "--data", b / "features", "--run", w / "mutated"],
        weights,
    ),
}


def attempt(base: Path, kind: Kind, work: Path, rng: random.Random | None) -> tuple[sandbox.Outcome, object]:
    """Run the command on a mutated copy of the input; the outcome, and the numbers it gave."""
    work.mkdir()
    source = base / kind.input
    mutated = work / f"mutated{source.suffix}"
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, mutated)
    if rng is not None:
        what = (
            mutate_file(mutated / kind.inside, rng) if kind.inside or mutated.is_file() else mutate_folder(mutated, rng)
        )
        (work / "what.txt").write_text(what)
    outcome = sandbox.run([str(word) for word in kind.words(base, work)], work)
    numbers = kind.numbers(work) if kind.numbers and outcome.status == 0 and not outcome.fault() else None
    return outcome, numbers


def check(base: Path, expected: dict[str, object], name: str, seed: int, folder: Path) -> str:
    """The fault of one mutation; empty if there is none."""
    kind, work = KINDS[name], folder / f"{name}_{seed}"
    outcome, numbers = attempt(base, kind, work, random.Random(f"{name} {seed}"))
    fault = outcome.fault()
    if not fault and outcome.status == 0 and kind.numbers and numbers != expected[name]:
        fault = "gives other numbers"
    if not fault and [path for path in work.rglob("*.partial") if "mutated" not in path.parts]:
        fault = "leaves a partial file"
    if not fault:
        shutil.rmtree(work)
        return ""
    return f"{name} {seed} ({(work / 'what.txt').read_text()}): {fault}\n{outcome.output[-1500:]}"


@pytest.mark.parametrize("name", KINDS)
def test_mutated_input_is_a_result_or_one_line(base: Path, expected: dict[str, object], name: str, tmp_path: Path):
    assert not check(base, expected, name, 0, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("seed", range(1, 22))
def test_more_mutated_inputs_are_a_result_or_one_line(
    base: Path, expected: dict[str, object], name: str, seed: int, tmp_path: Path
):
    assert not check(base, expected, name, seed, tmp_path)
