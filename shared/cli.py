"""`emit COMMAND ...`: one line per command. Commands are named by import path and imported only when called."""

import contextlib
import importlib
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable

from shared.errors import UsageError, UserError, disk_full
from shared.registry import nearest
from shared.terminal.loading import announce_loading
from shared.terminal.modes import HELP, debugging, split_modes, use_modes
from shared.terminal.results import reserved_stdout, running
from shared.text import one_line

COMMANDS = {
    "synth": ("shared.commands.synth:main", "generate a synthetic corpus of media files with known ground truth"),
    "check": ("shared.commands.check:main", "report what a source contains and what is wrong with it"),
    "prepare": ("shared.commands.prepare:main", "turn media files into a clip dataset"),
    "split": ("shared.commands.split:main", "re-split a dataset into folds of whole groups"),
    "align": ("stage1_align.train:main", "stage 1: contrastive training of vision-text and audio-text encoders"),
    "export": ("stage1_align.export.export:main", "write the frozen, aligned encoders of a stage-1 run"),
    "encode": ("stage2_fusion.commands.encode:main", "run frozen encoders over a clip dataset"),
    "fuse": ("stage2_fusion.train:main", "stage 2: train a fusion model on encoded clips"),
    "search": ("stage2_fusion.commands.search:main", "try stage-2 configurations in parallel"),
    "evaluate": ("stage2_fusion.commands.evaluate:main", "score a fusion model"),
    "baseline": ("stage2_fusion.commands.baseline:main", "score the cheap baselines, on features or on media"),
    "compare": ("stage2_fusion.commands.compare:main", "paired bootstrap of two systems"),
    "leaderboard": ("stage2_fusion.commands.leaderboard:main", "a table of systems"),
    "ensemble": ("stage2_fusion.commands.ensemble:main", "combine several systems"),
    "merge-folds": ("stage2_fusion.commands.merge_folds:main", "score the folds of a cross-validation as one"),
    "robustness": ("stage2_fusion.commands.robustness:main", "PCC against the share of clips that lack a modality"),
    "report": ("stage2_fusion.commands.report:main", "write an HTML report of runs, with figures for papers"),
    "submit": ("stage2_fusion.commands.submit:main", "write or check the predictions for a challenge"),
    "predict": ("stage2_fusion.commands.predict:main", "predict the intensities of media files"),
    "serve": ("stage2_fusion.commands.serve:main", "serve a web page and an API that score clips"),
    "seal": ("shared.commands.seal:main", "accept a saved folder that was edited on purpose"),
    "configs": ("shared.commands.configs:main", "list the shipped configurations, or print the path of one"),
    "doctor": ("shared.commands.doctor:main", "show what is installed, what is missing, and how to get it"),
    "run": ("shared.commands.run:main", "run a recipe: a whole pipeline, from media files to a scored model"),
    "completion": ("shared.commands.completion:main", "print a shell completion script"),
    "demo": ("shared.commands.demo:main", "run every step on the synthetic corpus"),
}
"""{name: (import path, summary)}."""

INTERNAL = 70
"""Exit status after an error that EMIT does not expect: EX_SOFTWARE of sysexits.h."""

STATUS = {
    "0": "done",
    "1": "error, in one line on stderr",
    "2": "an option or a command is wrong",
    str(INTERNAL): "internal error: run again with --debug and report it",
    "130": "interrupted (Control-C)",
    "141": "the reader of the output closed it, as head does",
    "143": "stopped by SIGTERM; a training run saves its state first",
}
"""{exit status: what it means}."""

GROUPS = {
    "whole pipelines": ("run", "demo"),
    "data": ("synth", "check", "prepare", "split"),
    "stage 1": ("align", "export"),
    "stage 2": ("encode", "fuse", "search"),
    "scores": ("evaluate", "baseline", "compare", "leaderboard", "ensemble", "merge-folds", "robustness", "report"),
    "predictions": ("predict", "submit", "serve"),
}
"""{purpose: commands}; all other commands are tools."""

RENAMED = {"pool": "merge-folds"}
"""{old name: new name} of commands."""


def main() -> None:
    """Entry point of the `emit` command."""
    run_main(_command)


def _command() -> int:
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help") or words == ["help"]:
        return _help()
    if words[0] == "help":  # emit help fuse, emit help fuse all
        words = [words[1], "--help", *words[2:]]
    name = words[0]
    if name not in COMMANDS:
        reason = f"no command called {name!r}: {nearest(name, COMMANDS)}"
        if name in RENAMED:
            reason = f"emit {name} was renamed: use emit {RENAMED[name]}"
        return _report(f"error: {reason}", 2)
    return run_command(words)


def _help() -> int:
    print("EMIT: emotional mimicry intensity from video, audio and text\n\nusage: emit COMMAND [options]\n")
    placed = {name for names in GROUPS.values() for name in names}
    for purpose, names in {**GROUPS, "tools": [name for name in COMMANDS if name not in placed]}.items():
        print(f"{purpose}:")
        print("".join(f"  {name:<13}{COMMANDS[name][1]}\n" for name in names))
    print("options of every command:\n  --help       show its common options, with an example; --help all: all of them")
    print("\n".join(f"  {option:<13}{summary}" for option, summary in HELP.items()))
    print("\nexit status:")
    print("\n".join(f"  {status:<13}{meaning}" for status, meaning in STATUS.items()))
    return 0


def call(words: list[str]) -> int:
    """Run the command words[0] with the remaining words in this process, as a step of the running command; returns its
    status, raises UserError."""
    with running():
        return run_command(words)


def run_command(words: list[str]) -> int:
    module, function = COMMANDS[words[0]][0].split(":")
    return getattr(importlib.import_module(module), function)(words[1:])


def emit_command(*words: object) -> list[str]:
    """The argument list that runs `emit WORDS` in another process, independent of PATH and the working directory.

    -P keeps the working directory off sys.path, so that a folder `shared` in it is not imported; PYTHONPATH counts.
    """
    return [sys.executable, "-P", "-m", "shared.cli", *map(str, words)]


def run_main(command: Callable[[], int]) -> None:
    """Run a command with the options that every command takes (shared/terminal/modes.py) and exit with its status. An
    error becomes one line. A UserError or a system error, such as a full disk or a missing permission, exits with
    status 1, any other error with status INTERNAL."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by the caller
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # names a terminal cannot show
    given, sys.argv[1:] = split_modes(sys.argv[1:])
    use_modes(given)
    announce_loading()
    try:
        status = _run(command)
    except UserError as error:
        status = _failed(f"error: {error}", 2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        status = _failed("interrupted; run the same command again to continue", 130)
    except BrokenPipeError as error:
        if _stdout_closed():
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # otherwise the interpreter complains when it flushes
            status = 128 + signal.SIGPIPE
        else:  # another pipe, such as one to a process that ended
            status = _failed(_internal(error), INTERNAL)
    except Exception as error:
        if isinstance(error, OSError | MemoryError) or disk_full(error):
            status = _failed(f"error: {system_error(error)} (--debug shows where)", 1)
        else:
            status = _failed(_internal(error), INTERNAL)
    sys.exit(status)


def _failed(line: str, status: int) -> int:
    """Report the exception being handled, with its traceback in debug mode."""
    if debugging():
        with contextlib.suppress(OSError):
            traceback.print_exc()
    return _report(line, status)


def _internal(error: Exception) -> str:
    """One line about an error that EMIT does not expect."""
    *_, last = traceback.extract_tb(error.__traceback__)
    where = f"{last.filename}:{last.lineno}"
    what = f"{type(error).__name__}: {one_line(error, 300)}"
    return f"internal error: {what} ({where}); run again with --debug and report it"


def _run(command: Callable[[], int]) -> int | str | None:
    """Run a command and flush its output; returns its status, even if it ends with SystemExit."""
    status: int | str | None
    ended_by_itself = False
    try:
        with running(), contextlib.nullcontext() if _asks_for_help() else reserved_stdout():
            status = command()
        ended_by_itself = True
    except SystemExit as stop:
        status = stop.code
    if ended_by_itself:
        _exit_group(status)
    if sys.stdout is not None:
        sys.stdout.flush()
    return status


def _asks_for_help() -> bool:
    words = sys.argv[1:]
    return words[:1] == ["help"] or any(word == "-h" or word.startswith(("--help", "--print")) for word in words)


def _report(line: str, status: int) -> int:
    """Print one line to stderr, unless it is closed too; returns `status`."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
    return status


def system_error(error: Exception) -> str:
    """What the system refused, where, and what to do, in one line."""
    if isinstance(error, MemoryError):
        return f"out of memory ({one_line(error)}); use smaller batches, windows or models"
    place = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    reason, full = getattr(error, "strerror", None), disk_full(error)
    return f"{place}{reason or full or one_line(error)}" + "; make room and run the same command again" * bool(full)


def _stdout_closed() -> bool:
    """Whether the reader of our output has closed the pipe, as `| head` does."""
    output = select.poll()
    output.register(1, 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def _exit_group(status: int | str | None) -> None:
    """Exit each process of a group (`accelerate launch` with several) without the interpreter's cleanup: gloo's threads
    outlive the group and sometimes make the cleanup abort after everything is written."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return
    if distributed.get_world_size() > 1:
        distributed.barrier()  # the store ends with the first process that exits
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
