"""Configuration from YAML and the command line: renamed options are named."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest

from shared import config as configuration
from shared.commands import configs
from shared.errors import UserError
from shared.options.placeholders import WithCommas
from stage1_align.config import AlignConfig


@dataclass
class TrainOptions:
    """Nested options."""

    RENAMED: ClassVar[dict[str, str]] = {"clip_norm": "max_grad_norm"}

    max_grad_norm: float = 1.0
    """Gradient clipping."""


@dataclass
class Options:
    """Options of a command."""

    RENAMED: ClassVar[dict[str, str]] = {"provided": "precomputed"}

    precomputed: str = ""
    """An option of the first level."""
    train: TrainOptions = field(default_factory=TrainOptions)
    extra: TrainOptions | None = None
    """An optional group."""


def parse(*arguments: str) -> Options:
    return configuration.parse(Options, list(arguments), prog="emit test", example="emit test")


@pytest.mark.parametrize(
    ("arguments", "yaml"),
    [
        (["--train.clip_norm", "1"], None),
        (["--train.clip_norm=1"], None),
        (["--train", "{clip_norm: 1}"], None),
        ([], "train:\n  clip_norm: 1\n"),
    ],
)
def test_renamed_option_is_named_in_one_line(arguments, yaml, tmp_path, capsys):
    if yaml:
        (tmp_path / "old.yaml").write_text(yaml)
        arguments = ["--config", str(tmp_path / "old.yaml")]
    with pytest.raises(SystemExit) as stop:
        parse(*arguments)
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert told == "error: --train.clip_norm was renamed: use --train.max_grad_norm (see emit test --help)\n"


def test_renamed_option_of_the_first_level_and_of_an_optional_group(capsys):
    for words in (["--provided", "x"], ["--extra", "{clip_norm: 1}"]):
        with pytest.raises(SystemExit):
            parse(*words)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: --provided was renamed: use --precomputed")
    assert "clip_norm was renamed: use" in second


def test_build_names_the_renamed_option():
    with pytest.raises(UserError, match=r"^the trainer: clip_norm was renamed: use max_grad_norm$"):
        configuration.build(TrainOptions, {"clip_norm": 1.0}, "the trainer")
    assert configuration.build(TrainOptions, {"max_grad_norm": 2.0}, "the trainer") == TrainOptions(2.0)


def test_shipped_configuration_is_found_by_name_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["--config", "tiny"], ["--config=tiny"]):
        config = configuration.parse(AlignConfig, [*words, "--run", "r"], prog="emit align", example="")
        assert config.towers.vision == configuration.load(AlignConfig, "tiny", ["--run", "r"]).towers.vision
    (tmp_path / "tiny").write_text("seed: 7\n")  # a file of this name comes first
    assert configuration.load(AlignConfig, "tiny", ["--run", "r"]).seed == 7


def test_configuration_with_a_base_changes_its_options_alone(tmp_path):
    (tmp_path / "wide.yaml").write_text("base: tiny\ntowers: {embed_dim: 99}\nloss: {pairs: {vision_labels: 2}}\n")
    base = configuration.load(AlignConfig, "tiny", ["--run", "r"])
    wide = configuration.load(AlignConfig, tmp_path / "wide.yaml", ["--run", "r", "--loss.soft", "0.25"])
    assert wide.loss == replace(base.loss, pairs={"vision_labels": 2.0}, soft=0.25)  # a mapping is replaced whole
    assert wide.towers == replace(base.towers, embed_dim=99) and wide.train == base.train
    labels, beside = configuration.load(AlignConfig, "tiny_labels", ["--run", "r"]), {"vision_labels", "audio_labels"}
    assert labels.towers == base.towers and beside <= {*labels.loss.pairs} and not beside & {*base.loss.pairs}
    (tmp_path / "twice.yaml").write_text(f"base: {tmp_path / 'wide.yaml'}\n")
    with pytest.raises(SystemExit):
        configuration.load(AlignConfig, tmp_path / "twice.yaml", ["--run", "r"])


def test_unknown_configuration_is_one_line(capsys):
    with pytest.raises(UserError, match="tinny: no such configuration; give a YAML file, or did you mean 'tiny'"):
        configuration.load(AlignConfig, "tinny", ["--run", "r"])
    with pytest.raises(SystemExit) as stop:
        configuration.parse(AlignConfig, ["--config", "tinny", "--run", "r"], prog="emit align", example="")
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_configs_lists_all_and_prints_one(capsys):
    assert configs.main([]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in ("tiny", "dual_stage", "cpu_2_processes"))
    assert configs.main(["cpu_2_processes"]) == 0
    assert Path(capsys.readouterr().out.strip()).read_text().startswith("# Two processes")
    with pytest.raises(UserError, match="did you mean 'dual_stage'"):
        configs.main(["dual_stag"])


@dataclass
class ListedPart:
    shares: list[float] | None = None


@dataclass
class Listed:
    """Options that are lists."""

    modalities: list[Literal["vision", "audio"]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    features: Annotated[list[str], WithCommas()] = field(default_factory=list)
    part: ListedPart = field(default_factory=ListedPart)
    text: str = ""


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--modalities vision", "modalities", ["vision"]),
        ("--modalities vision,audio", "modalities", ["vision", "audio"]),
        ("--modalities=vision --text a,b --modalities audio", "modalities", ["vision", "audio"]),
        ("--modalities [vision]", "modalities", ["vision"]),
        ('--modalities ["vision"]', "modalities", ["vision"]),
        ("--modalities []", "modalities", []),
        ("--files a,b.md --files c.md", "files", [Path("a,b.md"), Path("c.md")]),
        ("--features audio=x,y", "features", ["audio=x,y"]),
        ("--part.shares 0,0.5", "part.shares", [0.0, 0.5]),
        ("--part.shares null", "part.shares", None),
        ("--text a,b", "text", "a,b"),
    ],
)
def test_lists_are_written_with_commas_or_by_repetition(words, name, value):
    config = configuration.parse(Listed, words.split(), prog="emit test", example="emit test")
    assert (config.part.shares if name == "part.shares" else getattr(config, name)) == value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--modalities vision,smell", "--modalities is smell: expected one of vision, audio"),
        ("--part.shares 0,x", "--part.shares is [0.0, 'x']: expected a number"),
        ("--files", "--files"),
        ("--files --text a", "--files"),
    ],
)
def test_wrong_value_of_a_list_is_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as caught:
        configuration.parse(Listed, words.split(), prog="emit test", example="emit test")
    shown = capsys.readouterr().err
    assert caught.value.code == 2 and message in shown and len(shown.strip().splitlines()) == 1
