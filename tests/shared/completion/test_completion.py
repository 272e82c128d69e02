"""`emit completion`: what a shell offers after TAB, asked in the shells themselves."""

import shutil
import subprocess

import pytest

from shared.cli import COMMANDS
from shared.completion.scripts import script
from shared.completion.words import SHELLS, known_commands


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """{shell: file of its script}, in a folder that also holds `clip a.mp4` and `own.yaml`."""
    folder = tmp_path_factory.mktemp("completion")
    commands = known_commands(COMMANDS)
    for shell in SHELLS:
        (folder / f"emit.{shell}").write_text(script(shell, commands))
    (folder / "files").mkdir()
    for name in ("clip a.mp4", "own.yaml"):
        (folder / "files" / name).touch()
    return {shell: folder / f"emit.{shell}" for shell in SHELLS}


def offered(file, *words: str) -> list[str]:
    """What bash offers for the last of the words; `=` is a word of its own, as bash splits."""
    program = f'source {file}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _emit; printf "%s\\n" "${{COMPREPLY[@]}}"'
    command = ["bash", "--norc", "-c", program, "bash", "emit", *words]
    run = subprocess.run(command, capture_output=True, text=True, cwd=file.parent / "files")
    assert run.returncode == 0 and not run.stderr
    return run.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fu"], ["fuse"]),
        (["--quiet", "fu"], ["fuse"]),
        (["help", "merge"], ["merge-folds"]),
        (["fuse", "--train.b"], ["--train.batch_size"]),
        (["fuse", "--deb"], ["--debug"]),
        (["fuse", "--data", "x", "--train.mixed_precision", ""], ["no", "bf16", "auto"]),
        (["align", "--loss.kind", "=", "sig"], ["sigmoid"]),
        (["fuse", "--model", "late"], ["late_fusion"]),
        (["check", "--layout", "=", ""], ["csv", "folder", "goemotions", "hf", "ravdess", "vidmimic2"]),
        (["align", "--config", "ti"], ["tiny", "tiny_labels"]),
        (["fuse", "--config", "o"], ["own.yaml"]),
        (["configs", "cpu_"], ["cpu_2_processes"]),
        (["predict", "--model", "m", "clip"], ["clip a.mp4"]),
        (["predict", "--explain", "own"], ["own.yaml"]),
        (["completion", "z"], ["zsh"]),
        (["run", "ow"], ["own", "own.yaml"]),
    ],
    ids=" ".join,
)
def test_bash_offers_what_may_stand_there(words, expected, scripts):
    assert offered(scripts["bash"], *words) == expected


def test_bash_offers_every_command_and_no_files_for_a_number(scripts):
    assert sorted(offered(scripts["bash"], "")) == sorted([*COMMANDS, "help"])
    assert offered(scripts["bash"], "fuse", "--seed", "") == [""]


def test_bash_knows_which_function_completes_emit(scripts):
    run = subprocess.run(["bash", "--norc", "-c", f"source {scripts['bash']}; complete -p emit"], capture_output=True)
    assert run.stdout == b"complete -o default -F _emit emit\n"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_their_script(shell, scripts):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    assert subprocess.run([shell, "-n", scripts[shell]]).returncode == 0


def test_fish_offers_options_and_values(scripts):
    if not shutil.which("fish"):
        pytest.skip("fish is not installed")
    program = f"source {scripts['fish']}; complete -C 'emit fuse --train.mixed_precision '"
    run = subprocess.run(["fish", "--no-config", "-c", program], capture_output=True, text=True)
    assert [line.partition("\t")[0] for line in run.stdout.splitlines()] == ["auto", "bf16", "no"]
