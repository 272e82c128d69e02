"""Every command ends with what it wrote and with a next command that can be run as it stands; with --json it gives the
document that it wrote."""

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.commands import emit
from helpers.stage1_tiny import TOWERS

from shared import config as configuration
from shared.cli import COMMANDS, call
from shared.terminal import closing as closing_lines
from shared.terminal import results
from shared.terminal.modes import Modes, use_modes

ELSEWHERE = {
    "search": "tests/stage2_fusion/commands/test_search.py runs its trials",
    "serve": "it ends with its server",
    "completion": "its result is a script",
    "demo": "tests/test_demo.py",
    "run": "tests/test_demo.py",
}
"""Commands without an entry in STEPS."""

STEPS: list[tuple[str, Callable[[Path], list[object]]]] = [
    ("doctor", lambda at: []),
    ("configs", lambda at: []),
    ("synth", lambda at: ["--out", at / "corpus", "--clips", 40, "--workers", 1]),  # is there: the corpus of all tests
    ("check", lambda at: [at / "corpus", "--out", at / "check.json", "--layout", "csv"]),
    ("prepare", lambda at: [at / "corpus", "--out", at / "clips", "--workers", 1]),
    ("split", lambda at: [at / "clips", "--out", at / "fold", "--folds", 2]),
    ("align", lambda at: ["--config", at / "align.yaml", "--data", at / "clips", "--run", at / "align run"]),
    ("export", lambda at: [at / "align run", "--out", at / "encoders"]),
    ("encode", lambda at: ["--encoders", at / "encoders", "--data", at / "clips", "--out", at / "features"]),
    ("fuse", lambda at: ["--config", at / "fuse.yaml", "--data", at / "features", "--run", at / "fuse"]),
    ("evaluate", lambda at: ["--model", at / "fuse/model", "--data", at / "features", "--out", at / "a.json"]),
    ("baseline", lambda at: ["--data", at / "features", "--out", at / "b.json"]),
    ("compare", lambda at: [at / "a.json", at / "b.json", "--out", at / "compared.json", "--bootstrap", 10]),
    ("leaderboard", lambda at: [at / "a.json", at / "b.json", "--out", f"[{at / 'board.md'}]"]),
    ("ensemble", lambda at: [at / "a.json", at / "b.json", "--out", at / "c.json"]),
    ("merge-folds", lambda at: [at / "a.json", "--out", at / "merged.json"]),
    ("robustness", lambda at: [at / "fuse/model", "--data", at / "features", "--out", at / "r.json", "--orders", 1]),
    ("report", lambda at: [at / "fuse", "--out", at / "report.html"]),
    ("predict", lambda at: [at / "corpus/clips/00000.mp4", "--model", at / "fuse/model", "--out", at / "p.csv"]),
    (
        "submit",
        lambda at: [at / "corpus", "--model", at / "fuse/model", "--data", at / "features", "--out", at / "s.csv"],
    ),
    ("seal", lambda at: [at / "encoders"]),
]
"""(command, arguments in a folder), in an order in which each finds what it needs."""


WRITTEN = {
    "synth": "corpus/corpus.json",
    "check": "check.json",
    "prepare": "clips/dataset.json",
    "align": "align run/metrics.json",
    "fuse": "fuse/metrics.json",
    "evaluate": "a.json",
    "baseline": "b.json",
    "compare": "compared.json",
    "ensemble": "c.json",
    "merge-folds": "merged.json",
    "robustness": "r.json",
}
"""{command: the JSON file that it writes}."""


@dataclass
class Ending:
    """How a command ended."""

    closing: dict[str, list[str]]
    """{"wrote": paths, "next": commands}."""
    document: Any
    """What --json prints."""


@pytest.fixture(scope="module")
def folder(corpus, clips, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("closing")
    (folder / "corpus").symlink_to(corpus)
    (folder / "clips").symlink_to(clips)
    align = {"towers": {**TOWERS, "embed_dim": 8}, "pairs": {"frames": 2}}
    align["train"] = {"epochs": 1, "batch_size": 8, "mixed_precision": "no"}
    (folder / "align.yaml").write_text(yaml.safe_dump(align))
    fuse = {"model": "concat", "train": {"epochs": 1, "batch_size": 8}}
    (folder / "fuse.yaml").write_text(yaml.safe_dump(fuse))
    return folder


@pytest.fixture(scope="module")
def endings(folder) -> dict[str, Ending]:
    """{command: its ending}."""
    endings = {}
    offer = closing_lines.offer_document
    use_modes(Modes(json=True))
    with pytest.MonkeyPatch.context() as patch:
        for name, arguments in STEPS:
            offered: list[Any] = []
            patch.setattr(
                closing_lines, "offer_document", lambda value, seen=offered: (seen.append(value), offer(value))
            )
            patch.setattr(results, "_document", None)
            assert emit(name, *arguments(folder)) == 0, name
            endings[name] = Ending(*offered, json.loads(results.json_text(results._document)))
    use_modes(Modes())
    return endings


def test_every_command_is_tried():
    assert {name for name, _ in STEPS} | ELSEWHERE.keys() == COMMANDS.keys()


@pytest.mark.parametrize("name", [name for name, _ in STEPS])
def test_a_command_ends_with_what_it_wrote_and_what_comes_next(name: str, endings, monkeypatch):
    class ParsedError(Exception):
        pass

    parse = configuration.parse

    def only_parse(*arguments, **options):
        parse(*arguments, **options)
        raise ParsedError

    monkeypatch.setattr(configuration, "parse", only_parse)
    closing = endings[name].closing
    assert closing["wrote"] or closing["next"]
    assert all(Path(path).exists() for path in closing["wrote"])
    for command in closing["next"]:
        program, *words = shlex.split(command)
        assert program == "emit"
        with pytest.raises(ParsedError):
            call(words)


@pytest.mark.parametrize("name", [name for name, _ in STEPS])
def test_json_is_what_the_command_wrote(name: str, endings, folder):
    document = endings[name].document
    if name in WRITTEN:
        written = json.loads((folder / WRITTEN[name]).read_text())
        assert document.items() <= written.items() if name == "prepare" else document == written
    else:
        assert document


def test_features_of_more_than_words_are_for_dual_stage(endings):
    assert "--config dual_stage " in endings["encode"].closing["next"][0]
