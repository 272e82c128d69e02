"""`--help`: the common options of every command on one screen, all of them under `--help all`, in words."""

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jsonargparse
import pytest

from shared import cli, config
from shared.options.described import describe, type_text
from shared.options.help_page import Command, HelpShown, help_page
from shared.options.outputs import OutputFile, OutputFolder
from shared.options.placeholders import Placeholder
from shared.options.ranges import Fraction, LearningRate, PositiveInt, Seed

ROOT = Path(__file__).parents[3]
LINES, COLUMNS = 40, 100


@dataclass
class Tower:
    """One encoder."""

    kind: str
    """Its kind."""
    share: Fraction = 0.25
    """How much of it. More is slower."""


@dataclass
class Options:
    """Do a thing.

    At length."""

    COMMON: ClassVar[tuple[str, ...]] = ("tower.share", "mode")

    files: list[Path]
    """Files to read."""
    out: OutputFolder
    """Folder to write. It is made."""
    clips: Annotated[Path | None, Placeholder("CLIPS", usual=True)] = None
    """What is read, too."""
    mode: Literal["a", "b"] = "a"
    """How. Rarely changed."""
    steps: PositiveInt = 3
    """Not often needed."""
    fast: bool = False
    """Hurry."""
    tower: Tower | None = field(default_factory=lambda: Tower("large"))
    """The tower; null for none."""


SHORT = """\
usage: emit try FILES... --out FOLDER --clips CLIPS [options]

Do a thing.

example:
  emit try a

  FILES...                      Files to read.

required:
  --out FOLDER                  Folder to write.

options:
  --config FILE|NAME            YAML file with any of the options, or a shipped one: tiny.
  --tower.share NUMBER          How much of it. (default: 0.25)
  --mode a|b                    How. (default: a)

4 more options: emit try --help all
of every command: """


def shown(name: str, *words: str) -> tuple[Command, str]:
    """The command `emit NAME`, and the help that it prints."""
    module, function = cli.COMMANDS[name][0].split(":")
    program = getattr(__import__(module, fromlist=[function]), function)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(HelpShown) as stop:
        printed: list[str] = []
        patch.setenv("COLUMNS", str(COLUMNS))
        patch.setattr(config, "print", printed.append, raising=False)
        program(["--help", *words])
    assert stop.value.code == 0
    return stop.value.command, "\n".join(printed)


def test_short_help_is_what_is_required_and_common(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    page = help_page(Command("emit try", Options, "emit try a", ("tiny",), ("files",)))
    assert page.startswith(SHORT)


def test_full_help_shows_groups_types_and_whole_texts(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    page = help_page(Command("emit try", Options, "emit try a", (), ("files",)), every=True)
    assert "\nDo a thing.\n\nAt length.\n" in page
    assert "Not often needed. (whole number, 1 or more; default: 3)\n" in page
    assert "\n--tower: The tower; null for none.\n  --tower.kind TEXT             Its kind. (default: large)\n" in page
    assert "How much of it. More is slower. (number from 0 to 1; default: 0.25)\n" in page


@pytest.mark.parametrize("columns", [20, 70, 200])
def test_help_follows_the_width_of_the_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    page = help_page(
        Command("emit try", Options, "emit try --with a long --example of many words", (), ("files",)), True
    )
    longest = max(map(len, page.splitlines()))
    assert longest <= min(max(columns, 50), 120)


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_help_of_every_command_fits_a_screen_and_names_what_is_required(name):
    command, page = shown(name)
    lines = page.splitlines()
    assert len(lines) <= LINES, "name the options that most people need in COMMON of the configuration"
    assert max(map(len, lines)) <= COLUMNS
    assert page.startswith(f"usage: {command.name}") and command.name == f"emit {name}"
    for option in command.options:
        if option.required:
            word = option.name.upper() if option.positional else f"--{option.name} "
            assert word in lines[0] + lines[1] and word in page.partition("example:")[2]


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_full_help_names_every_option_that_the_parser_takes_in_words(name):
    command, page = shown(name, "all")
    parser = jsonargparse.ArgumentParser(default_env=False)
    parser.add_class_arguments(command.config_class, as_group=False, skip=set(command.positional))
    known = {word for action in parser._actions for word in action.option_strings if word.startswith("--")}
    known = {word for word in known if not re.search(r"help$|\+$|config$", word)}
    assert {word for word in known if not re.search(rf"{re.escape(word)}[ :.\n]", page)} == set()
    assert not re.search(r"<class|Annotated|Union|NoneType|Optional|Literal|typing\.", page)


def test_every_name_in_common_is_an_option():
    for name in cli.COMMANDS:
        command, _ = shown(name)
        names = {option.name for option in command.options}
        assert set(getattr(command.config_class, "COMMON", ())) <= names


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (Seed, "whole number, 0 or more"),
        (LearningRate, "number above 0 to 100"),
        (float, "number"),
        (bool, "true or false"),
        (Literal["x", 2], "one of x, 2"),
        (Path | None, "path"),
        (OutputFile | None, "file to write"),
        (dict[str, Fraction], "{name: number from 0 to 1}"),
        (list[Fraction], "list, each a number from 0 to 1"),
        (str | float, "text, or number"),
        (dict[str, Any], "{name: value}"),
        (list[Tower], "list of {kind, share}"),
    ],
    ids=str,
)
def test_types_are_words(hint, words):
    assert type_text(hint) == words


def test_default_of_a_nested_option_is_that_of_its_parent():
    found = {option.name: option.default for option in describe(Options)}
    assert found["tower.kind"] == "large" and found["tower.share"] == 0.25


def test_help_of_every_command_loads_no_heavy_library():
    program = (
        "import sys; from shared import cli\n"
        "for name in cli.COMMANDS:\n"
        "    try: cli.call([name, '--help'])\n"
        "    except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'matplotlib', 'gradio', 'cv2'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("words", [["stage1_align/train.py"], ["-m", "stage1_align.train"]], ids=["file", "module"])
def test_started_by_python_the_help_is_the_same(words, monkeypatch):
    run = subprocess.run([sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.startswith("usage: emit align --run RUN --data CLIPS [options]\n") and run.returncode == 0


@pytest.mark.parametrize("words", [["help", "fuse"], ["help", "fuse", "all"], ["fuse", "--help_all"]], ids=" ".join)
def test_emit_help_command_is_its_help(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["emit", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    assert ("--loss.mse NUMBER" in capsys.readouterr().out) is ("all" in " ".join(words))
