"""The README says nothing that is not there: commands, files, options."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

from shared.cli import COMMANDS
from stage2_fusion.models import MODELS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_command_is_described_and_every_described_command_exists():
    sections = set(re.findall(r"^### emit ([\w-]+)", README, re.M))
    assert sections == set(COMMANDS) - {"demo"}
    assert set(re.findall(r"\bemit ([\w-]+)", README)) <= set(COMMANDS)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:\w+/)+\w+\.(?:py|yaml)", README))))
def test_every_file_named_exists(path):
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_shows_help_with_an_example(name, capsys):
    module, function = COMMANDS[name][0].split(":")
    with pytest.raises(SystemExit) as stop:
        getattr(importlib.import_module(module), function)(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "example:" in shown and f"emit {name}" in shown


def options_named() -> list[tuple[str, str]]:
    """(command, option) of every command line in the README, and of options named in its prose after a command."""
    of_file = {f"{COMMANDS[name][0].split(':')[0].replace('.', '/')}.py": name for name in COMMANDS}
    found, command = set(), None
    for line in README.splitlines():
        heading = re.match(r"##+ (?:emit ([\w-]+))?", line)
        command = heading.group(1) if heading else command
        launched = re.search(r"accelerate launch .*?(\w+/train\.py)(.*)", line)
        called = re.search(r"\bemit ([\w-]+)(.*)", line)
        if launched:
            name, rest = of_file[launched.group(1)], launched.group(2)
        elif called:
            name, rest = called.groups()
        else:
            name, rest = command, re.sub(r"`accelerate.*?`", "", line)
        found |= {(name, option) for option in re.findall(r"--([a-z][\w.]+)", rest) if name}
    return sorted(found)


@pytest.mark.parametrize(("name", "option"), options_named())
def test_every_option_named_exists(name, option, capsys):
    if option.startswith("options."):  # of the model its line trains
        fields = dataclasses.fields(MODELS.get("dual_stage").Options)
        assert option.removeprefix("options.") in {field.name for field in fields}
        return
    module, function = COMMANDS[name][0].split(":")
    with pytest.raises(SystemExit):
        getattr(importlib.import_module(module), function)(["--help"])
    assert re.search(rf"--{re.escape(option)}\b", capsys.readouterr().out)


@pytest.mark.parametrize("target", re.findall(r"`?make ([\w-]+)", README))
def test_every_make_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
