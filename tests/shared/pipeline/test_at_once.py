"""Steps at once: real processes that wait for each other, fail, and get signals. Each step runs a small program."""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import synthetic_features

from shared.commands.run import main
from shared.dataset.worker_pool import cores
from shared.errors import UserError
from shared.pipeline import at_once, step_process, step_server
from shared.pipeline.ending import MOST_TIMED
from shared.pipeline.step_server import can_fork

HEAD = """
summary: programs
variables: { out: { default: out, help: Folder. } }
steps:
"""
PRELUDE = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
here, out, run = Path(sys.argv[0]).parent, Path(sys.argv[-1]), int(os.environ["RUN"])
def wait_for(path):
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end, f"{path} does not come"
        time.sleep(0.01)
def log(word):
    with (here / "log").open("a") as file:
        file.write(f"{out.name} {word}\\n")
def done():
    steps = json.loads((out.parent / "recipe.json").read_text())["steps"]
    return sorted(key for key, entry in steps.items() if entry["done"])
def write():
    out.mkdir(exist_ok=True)
    (out / "made").touch()
log("begins")
"""
SAVES = """
def save(*_):
    log("saves")
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
(here / f"{out.name} listens").touch()
"""


class Programs:
    """A recipe whose steps run programs: `emit split PROGRAM --out OUT` stands for `python PROGRAM --out OUT`."""

    def __init__(self, folder: Path, monkeypatch, capfd, forked: bool):
        self.folder, self.capfd = folder, capfd
        self.out, self.file, self.log = folder / "out", folder / "r.yaml", folder / "log"
        self.file.write_text(HEAD)
        monkeypatch.setattr(step_process, "emit_command", lambda *words: [sys.executable, *map(str, words[1:])])
        monkeypatch.setattr(at_once, "can_fork", lambda: forked)
        monkeypatch.setattr(step_server, "SERVER", "helpers.program_server")
        monkeypatch.setitem(step_server.PRELOAD, "shared.dataset.clip_dataset", ())
        monkeypatch.setitem(step_server.PRELOAD, "datasets", ())
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, sys.path)))
        monkeypatch.setenv("RUN", str(os.getpid()))

    def step(self, name: str, program: str, reads: str = "") -> None:
        """A program, which may read the output of another."""
        self.write(name, program)
        by = f"--by {{out}}/{reads} " if reads else ""
        with self.file.open("a") as file:
            file.write(f'  - {{ name: {name}, run: "emit split {self.folder}/{name}.py {by}--out {{out}}/{name}" }}\n')

    def write(self, name: str, program: str) -> None:
        (self.folder / f"{name}.py").write_text(PRELUDE + program)

    def run(self, jobs: int = 2) -> str:
        """What the run prints on stdout; what it prints on stderr is in `notes`, the steps that began in `ran`."""
        self.log.write_text("")
        try:
            assert main([str(self.file), f"out={self.out}", "--jobs", str(jobs)]) == 0
        finally:
            shown, self.notes = self.capfd.readouterr()
            self.ran = [line.split()[0] for line in self.log.read_text().splitlines() if line.endswith(" begins")]
        return shown

    def done(self) -> dict[str, Any]:
        steps = json.loads((self.out / "recipe.json").read_text())["steps"]
        return {key: entry for key, entry in steps.items() if entry["done"]}


forked = pytest.mark.skipif(not can_fork(), reason="steps are not forked on this system")


@pytest.fixture(params=["fresh", pytest.param("forked", marks=forked)])
def programs(request, tmp_path, monkeypatch, capfd) -> Iterator[Programs]:
    """With signals that are not ignored, as a shell leaves them to what it runs in the background."""
    usual = {number: signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGHUP)}
    before = {n: signal.signal(n, act) for n, act in {**usual, signal.SIGINT: signal.default_int_handler}.items()}
    yield Programs(tmp_path, monkeypatch, capfd, forked=request.param == "forked")
    for number, handler in before.items():
        signal.signal(number, handler)


def test_independent_steps_run_at_once_and_no_more_than_asked_for(programs):
    for name, other in ("ab", "ba"):
        programs.step(name, f"(here / out.name).touch(); wait_for(here / '{other}'); write(); log('ends')")
    for name in "cde":
        programs.step(name, "time.sleep(0.05); write(); log('ends')")
    programs.run(jobs=2)
    running, most = 0, 0
    for line in programs.log.read_text().splitlines():
        running += 1 if line.endswith("begins") else -1
        most = max(most, running)
    assert most == 2 and sorted(programs.ran) == list("abcde") and set(programs.done()) == set("abcde")


def test_step_begins_when_the_journal_says_that_what_it_reads_is_done(programs):
    programs.step("slow", "wait_for(out.parent / 'last'); write()")
    programs.step("first", "time.sleep(0.1); write()")
    programs.step("second", "assert done() == ['first']; write()", reads="first")
    programs.step("last", "assert done() == ['first', 'second']; write()", reads="second")
    shown = programs.run()
    assert [name for name in programs.ran if name != "slow"] == ["first", "second", "last"]
    assert re.search(r"\nslow \d+ s, first \d+ s, second \d+ s, last \d+ s\n", shown)  # in the order of the recipe
    before = (programs.out / "recipe.json").read_text()
    programs.run()
    assert programs.ran == [] and (programs.out / "recipe.json").read_text() == before


def test_nothing_begins_after_a_failure_and_the_error_is_repeated_below_later_lines(programs, monkeypatch):
    programs.step("bad", "wait_for(here / 'b'); print('error: no luck', file=sys.stderr); sys.exit(3)")
    programs.step("good", "(here / 'b').touch(); wait_for(here / 'said'); print('late'); write()")
    programs.step("other", "write()")
    programs.step("after", "write()", reads="bad")
    said, note = programs.folder / "said", at_once.note
    monkeypatch.setattr(at_once, "note", lambda line: (note(line), said.write_text(line)))
    with pytest.raises(UserError) as caught:
        programs.run()
    expected = r"the step 'bad' failed \(status 3\); fix the error above and run r again .*emit split .*/bad\.py .*"
    assert re.fullmatch(expected, str(caught.value))
    assert said.read_text() == "the step 'bad' failed; no new step starts, waiting for running steps: good"
    assert programs.notes.count("[bad] error: no luck\n") == 2 and programs.notes.endswith("[bad] error: no luck\n")
    assert sorted(programs.ran) == ["bad", "good"] and programs.done().keys() == {"good"}
    programs.write("bad", "write()")
    programs.run()
    assert sorted(programs.ran) == ["after", "bad", "other"]
    assert programs.done().keys() == {"after", "bad", "good", "other"}


def test_failure_is_said_when_a_signal_ends_the_wait_for_other_steps(programs, monkeypatch):
    programs.step("bad", "wait_for(here / 'b listens'); sys.exit(3)")
    programs.step("b", f"{SAVES}time.sleep(30)")
    monkeypatch.setattr(at_once, "note", lambda line: "failed" in line and os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        programs.run()
    assert "error: the step 'bad' failed (status 3)" in programs.notes and "b saves" in programs.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_signal_reaches_running_steps_and_another_run_goes_on(programs, number):
    both = "wait_for(here / 'a listens'); wait_for(here / 'b listens')\n"
    programs.step("done", "write()")
    programs.step("a", f"{SAVES}{both}os.kill(run, {int(number)}); time.sleep(30)", reads="done")
    programs.step("b", f"{SAVES}time.sleep(30)", reads="done")
    programs.step("c", "write()", reads="done")
    expected = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    handler = signal.getsignal(number)
    with pytest.raises(expected) as caught:
        programs.run()
    assert expected is KeyboardInterrupt or caught.value.code == 128 + number
    assert signal.getsignal(number) is handler
    assert sorted(re.findall("(.) saves", programs.log.read_text())) == ["a", "b"] and "c" not in programs.ran
    assert re.search("stopped: [ab], [ab]; run r again to continue", programs.notes)
    assert programs.done().keys() == {"done"}
    for name in "ab":
        programs.write(name, "write()")
    programs.run()
    assert sorted(programs.ran) == ["a", "b", "c"]


def test_second_signal_kills_steps_that_do_not_end(programs):
    deaf = "signal.signal(signal.SIGTERM, lambda *_: (here / 'asked').touch()); term = signal.SIGTERM\n"
    twice = "os.kill(run, term); wait_for(here / 'asked'); os.kill(run, term); time.sleep(30)\n"
    programs.step("a", f"{deaf}(here / 'pid').write_text(str(os.getpid())); {twice}")
    with pytest.raises(SystemExit) as caught:
        programs.run()
    assert caught.value.code == 128 + signal.SIGTERM and programs.done() == {}
    with pytest.raises(ProcessLookupError):
        os.kill(int((programs.folder / "pid").read_text()), 0)


def test_time_of_many_steps_counts_each_and_says_that_some_ran_at_once(programs):
    for number in range(MOST_TIMED + 1):
        programs.step(f"s{number}", "write()")
    programs.file.write_text(programs.file.read_text().replace("name: s1,", "name: s0,"))  # as in two loops
    assert f"\n{MOST_TIMED + 1} steps, 0 minutes in sum, up to 4 at once\n" in programs.run(jobs=4)


def test_step_killed_by_the_system_is_a_failure_with_its_signal(programs):
    programs.step("a", "os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(UserError, match=r"the step 'a' failed \(status 137\)"):
        programs.run()


def test_lines_carry_the_name_of_their_step_and_keep_their_stream(programs):
    text = "one\n\n two é\n10 %\r20 %\nlast"
    programs.step("a", f"os.write(1, {text.encode()}); os.write(2, b'aside'); write()")
    shown = programs.run().splitlines()
    lines = ["[a] one", "[a]", "[a]  two é", "[a] 20 %", "[a] last"]
    assert [line for line in shown if line.startswith("[a]")] == lines
    assert programs.notes.splitlines()[0] == "[a] aside"
    assert shown[0].startswith("== a (1 of 1): emit split ") and "== a (1 of 1): done in " in "\n".join(shown)


def test_step_does_not_wait_for_a_process_that_it_leaves_behind(programs):
    """It holds the pipe that the lines of the step come through."""
    programs.step("a", "(here / 'pid').write_text(str(subprocess.Popen(['sleep', '60']).pid)); print('here'); write()")
    assert "[a] here" in programs.run()
    os.kill(int((programs.folder / "pid").read_text()), signal.SIGKILL)  # it is still there


@pytest.mark.parametrize("line", ["[a] line", "== b (2 of 2)"], ids=["of a step", "of the run"])
def test_reader_that_closes_stdout_ends_the_steps(programs, monkeypatch, line):
    class Closed:
        def write(self, text: str) -> None:
            while line in text:
                if (programs.folder / "a listens").exists():
                    raise BrokenPipeError
                time.sleep(0.01)

        def flush(self) -> None: ...

    programs.step("a", f"{SAVES}print('line', flush=True); time.sleep(30)")
    programs.step("b", "time.sleep(30)")
    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(BrokenPipeError):
        programs.run()
    assert "a saves" in programs.log.read_text()


@pytest.mark.parametrize("given", [{}, {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "active"}], ids=["shared", "set"])
def test_cores_are_shared_unless_the_user_sets_their_number(programs, monkeypatch, given):
    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "EMIT_STEP")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    programs.step("a", f"print(*map(os.environ.get, {names})); write()")
    threads, policy = given.get(names[0], max(1, cores() // 3)), given.get(names[1])
    assert f"[a] {threads} {policy} 1\n" in programs.run(jobs=3)


def test_output_that_no_recipe_made_is_refused_and_running_steps_end(programs):
    programs.step("a", "time.sleep(0.1); write()")
    programs.step("b", "write()")
    (programs.out / "b").mkdir(parents=True)
    (programs.out / "b" / "mine").write_text("mine")
    with pytest.raises(UserError, match="b: exists, but no recipe wrote it"):
        programs.run()
    assert programs.ran == ["a"] and programs.done().keys() == {"a"} and (programs.out / "b" / "mine").exists()


only_forked = pytest.mark.parametrize("programs", [pytest.param("forked", marks=forked)], indirect=True)


@only_forked
def test_forked_steps_import_nothing_anew(programs, monkeypatch):
    (programs.folder / "heavy.py").write_text(
        "import pathlib; pathlib.Path(__file__).with_suffix('.log').open('a').write('x')"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [programs.folder, *sys.path])))
    monkeypatch.setitem(step_server.PRELOAD, "heavy", ("split",))
    for name in "abc":
        programs.step(name, "import heavy; write()")
    programs.run()
    assert set(programs.done()) == set("abc") and (programs.folder / "heavy.log").read_text() == "x"


@only_forked
def test_steps_start_in_fresh_processes_when_the_server_cannot(programs, monkeypatch):
    monkeypatch.setitem(step_server.PRELOAD, "no_such_module", ("split",))
    programs.step("a", "write()")
    programs.step("b", "write()", reads="a")
    programs.run()
    assert programs.ran == ["a", "b"] and set(programs.done()) == {"a", "b"}


@only_forked
def test_step_whose_server_was_killed_is_not_taken_for_done(programs):
    programs.step("a", "write(); os.kill(os.getppid(), signal.SIGKILL); time.sleep(0.1)")
    with pytest.raises(UserError, match=r"the step 'a' failed \(status 137\)"):
        programs.run()
    assert programs.done() == {}


@forked
@pytest.mark.slow
def test_forked_training_equals_that_of_a_fresh_process_to_the_bit(tmp_path, monkeypatch, capfd):
    """With two threads in both, which torch starts after the fork."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    data = synthetic_features.write_features(tmp_path / "features", {"train": 32, "valid": 16}, views=1)
    words = "--model dual_stage --options.width 64 --train.epochs 2 --train.batch_size 16"
    (tmp_path / "r.yaml").write_text(
        f"{HEAD}  - {{ name: fuse, run: 'emit fuse {words} --data {data} --run {{out}}/fuse' }}\n"
    )
    weights, notes = [], []
    for name, forks in (("fresh", False), ("forked", True)):
        monkeypatch.setattr(at_once, "can_fork", lambda forks=forks: forks)
        assert main([str(tmp_path / "r.yaml"), f"out={tmp_path / name}", "--jobs", "2"]) == 0
        weights.append((tmp_path / name / "fuse" / "model" / "model.safetensors").read_bytes())
        notes.append(capfd.readouterr().err)
    assert weights[0] == weights[1]
    assert ["[fuse] loading torch" in text for text in notes] == [True, False]
