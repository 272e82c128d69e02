"""--quiet, --json and --debug at any place, and the first line before a slow import."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.terminal.modes import Modes, split_modes
from shared.terminal.results import json_text

ROOT = Path(__file__).parents[3]

TOOL = """
import os, subprocess, sys
from pathlib import Path
from shared.cli import run_main
from shared.errors import UserError
from shared.terminal.closing import closing
from shared.terminal.messages import note, say
from shared.terminal.results import result

def main():
    say("a line of the log")
    print("printed")
    note("a note")
    os.system("echo by a child")
    result("PCC 0.5", {"pcc": 0.5, "file": Path("a\\udcff"), "missing": float("nan")})
    closing([Path("out put")], [("fuse", "--data", Path("out put"))])
    if "fail" in sys.argv:
        raise UserError("it failed")
    if "bug" in sys.argv:
        {}["key"]
    return 0

run_main(main)
"""


def run(program: str, *words: str, **environment: str) -> subprocess.CompletedProcess:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-c", program, *words]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "modes", "rest"),
    [
        (["--debug", "align", "--data", "d"], Modes(debug=True), ["align", "--data", "d"]),
        (["align", "--quiet", "--json"], Modes(quiet=True, json=True), ["align"]),
        (["predict", "--", "--json"], Modes(), ["predict", "--", "--json"]),
    ],
)
def test_modes_stand_anywhere_before_two_dashes(words, modes, rest):
    assert split_modes(words) == (modes, rest)


def test_without_modes_the_result_is_on_stdout_and_the_rest_on_stderr():
    done = run(TOOL)
    assert done.stdout.splitlines() == ["a line of the log", "printed", "by a child", "PCC 0.5"]
    assert done.stderr.splitlines() == ["a note", "wrote  out put", "next   emit fuse --data 'out put'"]


def test_quiet_leaves_the_result():
    done = run(TOOL, "--quiet")
    assert (done.stdout, done.stderr, done.returncode) == ("PCC 0.5\n", "", 0)


@pytest.mark.parametrize(("words", "status"), [((), 0), (("fail",), 1), (("--quiet",), 0)])
def test_json_is_one_document_on_stdout_and_the_rest_is_on_stderr(words, status):
    done = run(TOOL, *words, "--json")
    assert json.loads(done.stdout) == {"pcc": 0.5, "file": "a\udcff", "missing": None}
    assert done.returncode == status and "PCC 0.5" not in done.stderr and "wrote" not in done.stderr
    assert ("printed\n" in done.stderr and "by a child\n" in done.stderr) == ("--quiet" not in words)
    assert ("error: it failed\n" in done.stderr) == bool(status)


def test_json_of_a_command_without_a_result_names_what_it_wrote():
    program = "from shared.cli import run_main\nfrom shared.terminal.closing import closing\n"
    program += "run_main(lambda: closing(['a/b'], [('fuse', '--data', 'a/b')]) or 0)"
    assert json.loads(run(program, "--json").stdout) == {"wrote": ["a/b"], "next": ["emit fuse --data a/b"]}


def test_an_unexpected_error_is_one_line_with_a_status_of_its_own():
    done = run(TOOL, "bug", "--quiet")
    assert done.returncode == 70 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("internal error: KeyError: 'key' (") and "again with --debug" in done.stderr


@pytest.mark.parametrize("kind", ["fail", "bug"])
@pytest.mark.parametrize("way", [("--debug",), ()])
def test_debug_shows_the_traceback_before_the_line(kind, way):
    done = run(TOOL, kind, *way, EMIT_DEBUG="" if way else "1")
    assert done.returncode == {"fail": 1, "bug": 70}[kind]
    assert "Traceback" in done.stderr and "error" in done.stderr.splitlines()[-1]


def test_steps_of_another_command_give_no_result_and_no_closing_lines():
    program = TOOL.replace("run_main(main)", "import shared.cli\nshared.cli.run_command = lambda words: main()\n")
    program += "run_main(lambda: shared.cli.call(['step']) or result('all', {'steps': 1}) or 0)"
    done = run(program, "--json")
    assert json.loads(done.stdout) == {"steps": 1}
    assert "PCC 0.5\n" in done.stderr and "wrote" not in done.stderr


def test_other_processes_of_a_run_print_nothing():
    done = run(TOOL, "--json", RANK="1")
    assert not done.stdout and "a note" not in done.stderr


def test_json_holds_numpy_tuples_and_infinities():
    import numpy as np

    text = json_text({1: np.float32(0.5), "x": np.array([1, np.inf]), "y": (True, None)})
    assert json.loads(text) == {"1": 0.5, "x": [1.0, None], "y": [True, None]}


def test_a_slow_library_is_named_before_it_is_imported():
    program = """
import importlib.util, shared.terminal.loading as loading
def note(line):
    import sys
    print(line, "torch._C" in sys.modules)
loading.note = note
loading.announce_loading(); loading.announce_loading()
importlib.util.find_spec("torch")
print("looked")
import torch
"""
    assert run(program).stdout.splitlines() == ["looked", "loading torch ... False"]
