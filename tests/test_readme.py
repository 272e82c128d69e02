"""Every README: its commands and Python snippets run, and the files, options and targets it names exist."""

import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import fields
from pathlib import Path
from unittest.mock import patch

import av
import numpy as np
import pytest
import yaml
from helpers.commands import emit
from helpers.stage1_tiny import TOWERS

from shared.cli import COMMANDS, call
from stage1_align import trainer as stage1_trainer
from stage1_align.towers import TOWERS as REGISTRIES
from stage2_fusion import trainer as stage2_trainer
from stage2_fusion.models import MODELS

ROOT = Path(__file__).parents[1]
DEEPER = [ROOT / "shared" / "recipes" / "README.md", ROOT / "tests" / "benchmarks" / "README.md"]
READMES = [ROOT / "README.md", *sorted(ROOT.glob("[a-z]*/README.md")), *DEEPER]
SMALL = {
    "synth": "--clips 24 --workers 1",
    "prepare": "--workers 1",
    "align": "--train.epochs 1 --train.batch_size 8 --pairs.frames 1",
    "encode": "--damaged_views 1",
    "fuse": "--train.epochs 1 --train.batch_size 8",
    "search": "--trials 2 --workers 1 --train.epochs 1 --train.batch_size 8",
    "evaluate": "--bootstrap 20",
    "baseline": "--bootstrap 20",
    "compare": "--bootstrap 20",
    "leaderboard": "--bootstrap 20",
    "ensemble": "--bootstrap 20",
    "merge-folds": "--bootstrap 20",
    "run": "--dry_run",  # tests/test_recipes.py runs each recipe
    "robustness": "--bootstrap 20 --orders 1",
}
"""What is added to a command, so that it takes a second: how much it does, never what it does."""
INSTALL = ("source .venv/bin/activate",)
"""Lines that the test run itself stands on."""


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def blocks(readme: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", readme.read_text(), re.M | re.S)


def lines_of(block: str, values: dict[str, str] | None = None) -> Iterator[str]:
    """The commands of a shell block: comments removed, loops unrolled, variables replaced."""
    lines = [re.sub(r"(^|\s+)#.*", "", line).rstrip() for line in block.splitlines()]
    values, at = values or {}, 0
    while at < len(lines):
        loop = re.fullmatch(r"(\s*)for (\w+) in (.*); do", lines[at])
        if loop:
            indent, name, items = loop.groups()
            end = lines.index(f"{indent}done", at)
            for item in items.split():
                yield from lines_of("\n".join(lines[at + 1 : end]), {**values, name: item})
            at = end
        elif lines[at].strip():
            line = lines[at].strip()
            for name, value in values.items():
                line = line.replace(f"${name}", value)
            yield line
        at += 1


@pytest.fixture(scope="module")
def pipeline(corpus, clips, tmp_path_factory) -> Path:
    """What READMEs take for granted, at its smallest: encoders, features and a fusion model of the small corpus."""
    folder = tmp_path_factory.mktemp("pipeline")
    align = {"towers": {**TOWERS, "embed_dim": 8}, "pairs": {"frames": 2}, "train": {"epochs": 1, "batch_size": 8}}
    (folder / "align.yaml").write_text(yaml.safe_dump(align))
    assert emit("align", "--config", folder / "align.yaml", "--data", clips, "--run", folder / "align") == 0
    assert emit("export", folder / "align", "--out", folder / "encoders") == 0
    assert emit("encode", "--encoders", folder / "encoders", "--data", clips, "--out", folder / "features") == 0
    small = ["--train.epochs", 1, "--train.batch_size", 8]
    assert emit("fuse", *small, "--data", folder / "features", "--run", folder / "fuse") == 0
    return folder


@pytest.fixture
def world(corpus, clips, pipeline, tmp_path, monkeypatch) -> Path:
    """A working directory with the files a reader has."""
    media = sorted(path for path in (corpus / "clips").iterdir() if path.suffix in (".mp4", ".webm"))
    shutil.copytree(corpus, tmp_path / "my_clips", symlinks=True)
    (tmp_path / "my_videos").mkdir()
    for path in media[:2]:
        shutil.copy(path, tmp_path / "my_videos")
    shutil.copy(next(path for path in media if path.suffix == ".mp4"), tmp_path / "clip.mp4")
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "fuse").symlink_to(pipeline / "fuse")
    for folder in ("stage1_align", "stage2_fusion", "accelerate_configs"):  # launch lines name files of the repository
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill(world: Path, readme: Path, corpus: Path, clips: Path, pipeline: Path) -> None:
    """Add the inputs that this README takes from another one."""
    text = "\n".join(blocks(readme, "bash"))
    for name, path in {
        "corpus": corpus,
        "clips": clips,
        "encoders": pipeline / "encoders",
        "features": pipeline / "features",
        "fuse": pipeline / "fuse",
    }.items():
        if not re.search(rf"--(out|run) runs/{name}\s", text):
            (world / "runs" / name).symlink_to(path)
    if "Hume-Vidmimic2" in text:
        emit("synth", "--out", "Hume-Vidmimic2", "--layout", "vidmimic2", "--clips", 24, "--workers", 1)
        if "--out runs/vidmimic2" not in text.replace("runs/vidmimic2_features", ""):
            emit("prepare", "Hume-Vidmimic2", "--layout", "vidmimic2", "--out", "runs/vidmimic2", "--workers", 1)
    if "ravdess" in text:
        write_voices(world / "ravdess")
    for block in blocks(readme, "yaml"):
        (world / "space.yaml").write_text(block)


def write_voices(folder: Path) -> None:
    """Recordings of eight invented actors, named as RAVDESS names its files."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for actor in range(1, 9):
        for emotion in range(1, 9):
            with av.open(folder / f"03-01-{emotion:02d}-01-01-01-{actor:02d}.wav", "w") as file:
                stream = file.add_stream("pcm_s16le", rate=16000, layout="mono")
                tone = np.sin(np.arange(8000) * (0.02 + 0.01 * emotion)) + 0.1 * rng.standard_normal(8000)
                samples = (8000 * tone).astype(np.int16)[None]  # (1, S)
                frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
                frame.sample_rate = 16000
                for packet in [*stream.encode(frame), *stream.encode(None)]:
                    file.mux(packet)


def run_line(line: str) -> None:
    """Run one command of a README; an assertion shows what it printed."""
    words = shlex.split(line)
    if line in INSTALL:
        return
    if words[0] == "make":
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    elif words[0] == "emit":
        output = io.StringIO()
        with redirect_stdout(output), redirect_stderr(output), patch("stage2_fusion.app.server.serve"):  # it would last
            status = call([*words[1:], *shlex.split(SMALL.get(words[1], ""))])
        assert status == 0, f"{line}\n{output.getvalue()[-2000:]}"
    else:
        name = {"stage1_align": "align", "stage2_fusion": "fuse"}
        stage = next(
            (name[package] for package in name if f"{package}/train" in line or f"{package}.train" in line), ""
        )
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(
            ["bash", "-c", f"{line} {SMALL.get(stage, '')}"], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("readme", READMES, ids=names(READMES))
def test_commands_and_snippets_run(readme, world, corpus, clips, pipeline, capsys):
    fill(world, readme, corpus, clips, pipeline)
    for block in blocks(readme, "bash"):
        for line in lines_of(block):
            run_line(line)
    for block in blocks(readme, "python"):
        exec(compile(block, str(readme), "exec"), {"__name__": "__readme__"})


@pytest.mark.parametrize("readme", READMES, ids=names(READMES))
def test_everything_named_exists(readme):
    text = readme.read_text()
    assert set(re.findall(r"\bemit ([a-z][\w-]+)", "\n".join(re.findall(r"`[^`]+`", text)))) <= set(COMMANDS)
    for path in set(re.findall(r"`((?:\w+/)+\w+\.(?:py|yaml|sh|md))`", text)):
        assert (ROOT / path).is_file(), path
    for path in re.findall(r"\]\(([^)#]+\.md)", text):
        assert (readme.parent / path).is_file(), path
    for target in re.findall(r"`make ([\w-]+)", text):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), target


def test_every_command_is_in_the_table():
    text = READMES[0].read_text()
    assert {name for name in COMMANDS if f"`emit {name}`" not in text} == set()


def test_tower_table_is_the_registry():
    table = re.findall(
        r"^\| (vision|audio|text) \| `(\w+)` \|", (ROOT / "stage1_align" / "README.md").read_text(), re.M
    )
    assert sorted(table) == sorted((modality, name) for modality in REGISTRIES for name in REGISTRIES[modality].names())


@pytest.mark.parametrize("stage, module", [("stage1_align", stage1_trainer), ("stage2_fusion", stage2_trainer)])
def test_every_option_that_may_change_on_resume_is_named(stage, module):
    text = (ROOT / stage / "README.md").read_text()
    assert [
        name for name in module.MUTABLE_ON_RESUME if not re.search(rf"`(--)?({name}|{name.split('.')[-1]})`", text)
    ] == []


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_shows_help_with_an_example(name, capsys):
    module, function = COMMANDS[name][0].split(":")
    with pytest.raises(SystemExit) as stop:
        getattr(importlib.import_module(module), function)(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "example:" in shown and f"emit {name}" in shown


@pytest.mark.parametrize("readme", READMES, ids=names(READMES))
def test_every_option_in_prose_exists(readme):
    prose = re.sub(r"^```.*?^```", "", readme.read_text(), flags=re.M | re.S)
    options = set(re.findall(r"`[^`]*?--([a-z][\w.]+)", prose)) - {"cpu", "num_processes"}  # of accelerate
    shown = io.StringIO()
    for module, function in (target.split(":") for target, _ in COMMANDS.values()):
        with redirect_stdout(shown), suppress(SystemExit):
            getattr(importlib.import_module(module), function)(["--help", "all"])
    for name in MODELS.names():  # the help of `emit fuse` leaves these to `python -m stage2_fusion.models`
        print(*(f"--options.{part.name}" for part in fields(MODELS.get(name).Options)), file=shown)
    assert {option for option in options if not re.search(rf"--{re.escape(option)}\b", shown.getvalue())} == set()
