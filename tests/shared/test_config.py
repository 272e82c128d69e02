"""Configuration from YAML and the command line: renamed options are named."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from shared import config as configuration
from shared.errors import UserError


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
