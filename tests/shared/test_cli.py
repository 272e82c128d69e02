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
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    shown = capsys.readouterr().out
    assert [shown.count(f"\n  {name} ") for name in cli.COMMANDS] == [1] * len(cli.COMMANDS)
    assert shown.index("\ndata:\n") < shown.index("\n  prepare ") < shown.index("\nstage 1:\n")


def emit(words: str, before: str = "", **environment: str) -> subprocess.CompletedProcess:
    """Run a shell line that holds EMIT, after a preparation in Python in the same process."""
    program = f"import sys, shared.cli as cli; sys.argv = ['emit', *sys.argv[1:]]; {before}\ncli.main()"
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PROGRAM": program, **environment}
    line = words.replace("EMIT", f'{sys.executable} -P -c "$PROGRAM"')
    return subprocess.run(["bash", "-c", line], env=variables, capture_output=True, text=True)


FAIL = "import os, errno; cli.run_command = lambda words: (_ for _ in ()).throw("
FULL = FAIL + "OSError(errno.ENOSPC, 'No space', 'a/b'))"


@pytest.mark.parametrize(
    ("line", "before", "status", "told"),
    [
        ("EMIT configs", FULL, 1, "error: a/b: No space; make room and run the same command again (--debug shows"),
        ("EMIT configs", FAIL + "MemoryError())", 1, "out of memory"),
        ("EMIT configs > /dev/full", "", 1, "error: No space left on device; make room"),
        (
            "EMIT configs",
            FAIL + "KeyboardInterrupt)",
            130,
            "interrupted; run",
        ),
        ("EMIT configs | true; exit ${PIPESTATUS[0]}", "import time; time.sleep(0.3)", 141, ""),
        ("EMIT --help | true; exit ${PIPESTATUS[0]}", "import time; time.sleep(0.3)", 141, ""),
        ("EMIT synth --help | true; exit ${PIPESTATUS[0]}", "import time; time.sleep(0.3)", 141, ""),
        ("EMIT configs tiny >&-", "", 0, ""),
        ("EMIT configs tinny 2>&-", "", 1, ""),
        ("EMIT synth --out /dev/null/x --clips 3", "", 1, "error: --out /dev/null/x: "),
    ],
)
def test_what_the_system_refuses_is_one_line(line, before, status, told):
    done = emit(line, before)
    assert done.returncode == status and done.stderr.count("\n") == bool(told), done.stderr
    assert told in done.stderr


def test_traceback_is_shown_on_request():
    done = emit("EMIT configs --debug", FULL)
    assert done.returncode == 1 and "Traceback" in done.stderr and "No space: 'a/b'\nerror: a/b" in done.stderr
