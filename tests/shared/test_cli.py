"""The `emit` command, in this process and in another one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared import cli

ROOT = Path(__file__).parents[2]


def test_another_process_does_not_run_the_shared_folder_of_the_working_directory(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "__init__.py").touch()
    (tmp_path / "shared" / "cli.py").write_text("print('not the toolkit')\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = cli.emit_command("configs", "tiny")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == f"{ROOT / 'stage1_align' / 'configs' / 'tiny.yaml'}\n", done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pool", "error: emit pool was renamed: use emit merge-folds\n"),
        ("encod", "error: no command called 'encod': did you mean 'encode'?\n"),
    ],
)
def test_unknown_and_renamed_commands_are_one_line(name, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["emit", name])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2 and capsys.readouterr().err == message


def test_help_lists_every_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["emit", "--help"])
    cli.main()
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in cli.COMMANDS)
