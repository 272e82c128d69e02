"""`emit COMMAND ...`: one line per command. Commands are named by import path and imported only when called."""

import contextlib
import importlib
import os
import select
import signal
import sys
from collections.abc import Callable
from functools import partial

from shared.errors import UserError, disk_full
from shared.registry import nearest
from shared.text import one_line

COMMANDS = {
    "synth": ("shared.commands.synth:main", "make a synthetic corpus of media files with known truth"),
    "check": ("shared.commands.check:main", "describe a source and what is wrong with it, before a long run"),
    "prepare": ("shared.commands.prepare:main", "turn media files into a clip dataset"),
    "split": ("shared.commands.split:main", "give a dataset other splits: folds of whole groups"),
    "align": ("stage1_align.train:main", "stage 1: contrastive training of vision-text and audio-text encoders"),
    "export": ("stage1_align.export.export:main", "write the frozen, aligned encoders of a stage-1 run"),
    "encode": ("stage2_fusion.commands.encode:main", "run frozen encoders over a clip dataset"),
    "fuse": ("stage2_fusion.train:main", "stage 2: train a fusion model on encoded clips"),
    "search": ("stage2_fusion.commands.search:main", "try configurations of stage 2 in parallel"),
    "evaluate": ("stage2_fusion.commands.evaluate:main", "score a fusion model"),
    "baseline": ("stage2_fusion.commands.baseline:main", "score ridge regression on the same features"),
    "compare": ("stage2_fusion.commands.compare:main", "paired bootstrap of two systems"),
    "leaderboard": ("stage2_fusion.commands.leaderboard:main", "a table of systems"),
    "ensemble": ("stage2_fusion.commands.ensemble:main", "combine several systems"),
    "merge-folds": ("stage2_fusion.commands.merge_folds:main", "score the folds of a cross-validation as one"),
    "robustness": ("stage2_fusion.commands.robustness:main", "PCC against the share of clips that lack a modality"),
    "predict": ("stage2_fusion.commands.predict:main", "predict intensities of media files"),
    "seal": ("shared.commands.seal:main", "accept a saved folder as it is, after an edit on purpose"),
    "configs": ("shared.commands.configs:main", "list the shipped configurations, or print the path of one"),
    "doctor": ("shared.commands.doctor:main", "show what is installed, what is missing, and how to get it"),
    "demo": ("shared.commands.demo:main", "run every step on the synthetic corpus"),
}
"""{name: (import path, summary)}."""

TRACEBACK = "EMIT_TRACEBACK"
"""Environment variable: 1 shows the traceback of an error of the system."""

RENAMED = {"pool": "merge-folds"}
"""{old name: new name} of commands."""


def main() -> None:
    """Entry point of the `emit` command."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        run_main(_help)
    name = words[0]
    if name not in COMMANDS:
        reason = f"no command called {name!r}: {nearest(name, COMMANDS)}"
        if name in RENAMED:
            reason = f"emit {name} was renamed: use emit {RENAMED[name]}"
        print(f"error: {reason}", file=sys.stderr)
        sys.exit(2)
    run_main(partial(call, words))


def _help() -> int:
    print("EMIT: emotional mimicry intensity from video, audio and text\n\nusage: emit COMMAND [options]\n")
    print("\n".join(f"  {name:<13}{summary}" for name, (_, summary) in COMMANDS.items()))
    print("\n`emit COMMAND --help` shows the options of one command, with an example.")
    return 0


def call(words: list[str]) -> int:
    """Run the command words[0] with the arguments after it in this process; returns its status, raises UserError."""
    module, function = COMMANDS[words[0]][0].split(":")
    return getattr(importlib.import_module(module), function)(words[1:])


def emit_command(*words: object) -> list[str]:
    """The argument list that runs `emit WORDS` in another process, whatever PATH holds and wherever it starts.

    -P keeps the working directory off sys.path, so that a folder `shared` in it is not imported; PYTHONPATH counts.
    """
    return [sys.executable, "-P", "-m", "shared.cli", *map(str, words)]


def run_main(command: Callable[[], int]) -> None:
    """Run a command and exit with its status. A UserError becomes one line and status 1; so does what the system
    refuses, such as a full disk or a missing permission, unless EMIT_TRACEBACK=1 asks for the traceback."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by the caller
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # names a terminal cannot show
    try:
        status = _run(command)
    except UserError as error:
        if error.__cause__ and _traceback_wanted():  # perhaps a bug in a tower or model of the user's own
            raise
        status = _report(f"error: {error}", 1)
    except KeyboardInterrupt:
        status = _report("interrupted; run the same command again to continue", 130)
    except BrokenPipeError:
        if not _stdout_closed():
            raise  # another pipe, such as one to a process that ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter complains when it flushes
        status = 128 + signal.SIGPIPE
    except Exception as error:
        refused = isinstance(error, OSError | MemoryError) or disk_full(error)
        if not refused or _traceback_wanted():
            raise
        status = _report(f"error: {system_error(error)} ({TRACEBACK}=1 shows where)", 1)
    sys.exit(status)


def _traceback_wanted() -> bool:
    return os.environ.get(TRACEBACK, "") not in ("", "0")


def _run(command: Callable[[], int]) -> int | str | None:
    """Run a command and write out what it printed; its status, also if it ends with SystemExit."""
    status: int | str | None
    try:
        status = finished = command()
    except SystemExit as stop:
        status = stop.code
    else:
        _exit_group(finished)
    if sys.stdout is not None:
        sys.stdout.flush()
    return status


def _report(line: str, status: int) -> int:
    """Print one line to stderr, unless that is closed too; returns `status`."""
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
    """Whether the reader of our output has closed it, as `| head` does."""
    output = select.poll()
    output.register(1, 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def _exit_group(status: int) -> None:
    """End each process of a group (`accelerate launch` on several) without the interpreter's cleanup: gloo's threads
    outlive the group, and the cleanup sometimes aborts on them after everything is written."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return
    if distributed.get_world_size() > 1:
        distributed.barrier()  # the store ends with the first process that leaves
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)


if __name__ == "__main__":
    main()
