"""Running a recipe: what is done is skipped, what is stale is made again, and nothing else is replaced."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from shared.cli import emit_command
from shared.commands.run import main
from shared.errors import UsageError, UserError
from shared.pipeline import execute

RECIPE = """
summary: a report, folds of the clips, and a report of those
variables:
  data: Clips.
  source: A table.
  out: { default: "runs/it's here", help: Folder. }
  headers: { default: 5, help: Files. }
steps:
  - { name: report, run: "emit check {source} --headers {headers} --out {out}/report.json" }
  - { name: fold, run: "emit split {data} --by subject --folds 2 --out {out}/fold" }
  - { name: again, run: "emit split {out}/fold --by subject --folds 2 --fold 1 --out {out}/again" }
made: ["{out}/report.json", "{out}/nothing"]
next: emit align --data {out}/again --run {out}/run
"""


class Run:
    """A recipe in a folder with a space in its name."""

    def __init__(self, folder: Path, clips: Path, capsys):
        self.folder, self.clips, self.capsys = folder / "my folder", clips, capsys
        self.folder.mkdir()
        self.source, self.out, self.file = self.folder / "t.csv", self.folder / "out", self.folder / "r.yaml"
        self.source.write_text("path,Joy\na.mp4,0.5\nb.mp4,0.25\n")
        for name in "ab":
            (self.folder / f"{name}.mp4").write_bytes(b"0" * 100)
        self.file.write_text(RECIPE)

    def __call__(self, *more: str) -> str:
        """What the run prints; the steps that ran, by their first words, are in `ran`."""
        given = [f"data={self.clips}", f"source={self.source}", f"out={self.out}", *more]
        assert main([str(self.file), *given]) == 0
        shown, self.notes = self.capsys.readouterr()
        steps = [line for line in shown.splitlines() if line.startswith("== ")]
        self.ran = [line.split()[1] for line in steps if "already done" not in line]
        self.lines = steps
        return shown


@pytest.fixture
def run(tmp_path, clips, capsys) -> Run:
    return Run(tmp_path, clips, capsys)


def test_everything_runs_once_and_the_end_says_what_was_made(run):
    run()
    assert run.ran == ["report", "fold", "again"]
    assert f"wrote  {run.out}/report.json" in run.notes and "nothing" not in run.notes
    assert f"next   emit align --data '{run.out}/again'" in run.notes
    run()
    assert run.ran == []


def test_the_line_that_ran_a_step_is_noted_with_it(run):
    run("headers=6")
    steps = json.loads((run.out / "recipe.json").read_text())["steps"].values()
    line = ["emit", "run", str(run.file), f"data={run.clips}", f"source={run.source}", f"out={run.out}", "headers=6"]
    assert {step["run"] for step in steps} == {shlex.join(line)}


def test_step_is_made_again_when_what_it_was_made_from_changed(run):
    run()
    run("headers=6")
    assert run.ran == ["report"] and "again, headers changed" in run.lines[0]
    run.source.write_text("path,Joy\na.mp4,0.5\nb.mp4,0.75\n")
    run("headers=6")
    assert run.ran == ["report"] and "again, source changed" in run.lines[0]
    (run.folder / "b.mp4").write_bytes(b"1" * 100)  # a file that the table lists
    run("headers=6")
    assert run.ran == ["report"]
    run.file.write_text(RECIPE.replace("--folds 2 --out", "--folds 3 --out"))
    run("headers=6")
    assert run.ran == ["fold", "again"] and "data changed" in run.lines[2]


def test_place_of_the_results_makes_no_difference(run):
    run()
    run.out = run.out.rename(run.folder / "elsewhere")
    run()
    assert run.ran == []


def test_missing_output_is_made_again(run):
    run()
    (run.out / "report.json").unlink()
    run()
    assert run.ran == ["report"] and "its output is gone" in run.lines[0]


def test_output_that_no_recipe_made_is_refused(run):
    run.out.mkdir()
    (run.out / "report.json").write_text("mine")
    with pytest.raises(UserError, match=r"report\.json: exists, but no recipe wrote it"):
        run()
    assert (run.out / "report.json").read_text() == "mine"


@pytest.mark.parametrize("more", [[], ["headers=9"]], ids=["up to date", "stale"])
def test_output_that_was_edited_is_refused(run, more):
    run()
    (run.out / "report.json").write_text("mine")
    with pytest.raises(UserError, match=r"report\.json: changed since this recipe wrote it"):
        run(*more)
    assert (run.out / "report.json").read_text() == "mine"


def test_interrupted_step_goes_on_with_what_it_has(run, monkeypatch):
    def interrupted(words: list[str]) -> int:
        if words[0] == "split":
            run.out.joinpath("fold").mkdir(exist_ok=True)
            raise KeyboardInterrupt
        return real(words)

    real = execute.call
    monkeypatch.setattr(execute, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run()
    kept = run.out / "fold" / ".kept"
    kept.touch()
    monkeypatch.setattr(execute, "call", lambda words: 0 if kept.exists() and words[0] == "split" else real(words))
    with pytest.raises(UserError, match="'again' has not written"):
        run()
    kept.unlink()  # it was not deleted: the command itself continues


def test_failing_step_is_named_with_the_command_to_repeat(run, monkeypatch, capsys):
    run.file.write_text(RECIPE.replace("--by subject --folds 2 --out", "--by subjekt --folds 2 --out"))
    with pytest.raises(UserError, match=r"the step 'fold' failed \(status 1\).*emit split .* --by subjekt"):
        run()
    assert "did you mean 'subject'" in capsys.readouterr().err
    run.file.write_text(RECIPE)
    run()
    assert run.ran == ["fold", "again"]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_advice_of_a_step_is_in_the_words_of_the_recipe(run, capsys, jobs):
    text = RECIPE.replace("emit check {source}", "emit check {source} --label_range {label_range} --needs [train]")
    run.file.write_text(text.replace("  out:", "  label_range: { default: null, help: Scale. }\n  out:"))
    run.source.write_text("path,Joy\na.mp4,5\nb.mp4,7\n")
    with pytest.raises(UserError, match="the step 'report' failed"):
        run("--jobs", jobs)
    error = capsys.readouterr().err
    assert "add label_range=1,7" in error or ("add label_range=0,10" in error and "--label_range" not in error)
    run("--label_range=1,7")
    assert run.ran == ["report", "fold", "again"] if jobs == "1" else run.ran[0] == "report"


@pytest.mark.parametrize(
    ("words", "message"),
    [(["data=x", "--source", "y z"], "write 'source=y z'"), (["sorce=y"], "source"), (["data=x"], "source is missing")],
)
def test_wrong_variables_are_errors_of_usage(run, words, message):
    with pytest.raises(UsageError, match=message):
        main([str(run.file), *words])


def test_second_run_in_the_same_folder_is_refused(run, tmp_path):
    run.out.mkdir()
    code = f"""import sys; from pathlib import Path; from shared.locks import hold
hold(Path({str(run.out)!r}), Path("x"), {execute.LOCK!r}); print("held", flush=True); sys.stdin.read()"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=rf"in use by process {other.pid}"):
            run()
        other.stdin.close()
    run()


def test_dry_run_prints_the_commands_and_does_nothing(run, capsys):
    given = [f"data={run.clips}", "--dry_run", f"source={run.source}", "--jobs=2", f"out={run.out}"]
    assert main([str(run.file), *given]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in shown] == ["check", "split", "split"] and not run.out.exists()


def test_list_of_results_that_is_damaged_is_refused(run):
    run()
    (run.out / "recipe.json").write_text(json.dumps({"steps": {"report.json": {"commnd": "x"}}}))
    with pytest.raises(UserError, match=r"recipe\.json: damaged"):
        run()


def test_recipes_and_variables_are_shown(run, capsys):
    assert main([]) == 0
    assert "demo " in capsys.readouterr().out
    assert main(["demo", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "clips (default: 2000)" in shown and "Clips of the synthetic corpus." in shown
    assert main([str(run.file), "--help"]) == 0
    assert "data=... source=..." in capsys.readouterr().out


def test_steps_at_once_make_what_they_make_in_order(run, monkeypatch):
    """Real commands. With one thread for each step in both runs, their results are equal to the bit."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run()
    made = json.loads((run.out / "recipe.json").read_text())["steps"]
    run.out = run.folder / "at once"
    shown = run("--jobs", "2")
    at_once = json.loads((run.out / "recipe.json").read_text())["steps"]
    assert at_once.keys() == made.keys()
    for key, entry in at_once.items():
        assert all(entry[name] == made[key][name] for name in ("done", "outputs", "made_from"))
    assert "[report] " in shown and f"wrote  {run.out}/report.json" in run.notes
    assert "--jobs" not in at_once["fold"]["run"]  # the line that makes it, however many at once
    run()
    assert run.ran == []


def test_result_is_one_document_also_with_steps_at_once(run):
    command = emit_command("run", run.file, f"data={run.clips}", f"source={run.source}", f"out={run.out}", "--jobs", 2)
    process = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert [step["name"] for step in json.loads(process.stdout)["steps"]] == ["report", "fold", "again"]
    assert "[report] " in process.stderr and "== again (3 of 3): done in " in process.stderr
    run.file.write_text(RECIPE.replace("--by subject --folds 2 --out", "--by subjekt --folds 2 --out"))
    process = subprocess.run([*command, "--quiet"], capture_output=True, text=True, check=False)
    first, last = process.stderr.splitlines()
    assert process.returncode == 1 and first.startswith("[fold] error: ") and "'fold' failed (status 1)" in last
