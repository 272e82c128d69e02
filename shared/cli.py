"""`emit COMMAND ...`: one line per command. Commands are named by import path and imported only when called."""

import importlib
import os
import select
import sys
from collections.abc import Callable
from functools import partial

from shared.errors import UserError
from shared.registry import nearest

COMMANDS = {
    "synth": ("shared.commands.synth:main", "make a synthetic corpus of media files whose truth is known"),
    "check": (
        "shared.commands.check:main",
        "what a source holds and what is wrong with it, before anything takes long",
    ),
    "prepare": ("shared.commands.prepare:main", "turn media files into a clip dataset"),
    "split": ("shared.commands.split:main", "other splits of a dataset: folds of whole groups"),
    "align": ("stage1_align.train:main", "stage 1: contrastive training of vision-text and audio-text encoders"),
    "export": ("stage1_align.export.export:main", "write the frozen, aligned encoders of a stage-1 run"),
    "encode": ("stage2_fusion.data.encoding:main", "run frozen encoders over a clip dataset"),
    "fuse": ("stage2_fusion.train:main", "stage 2: train a fusion model on encoded clips"),
    "search": ("stage2_fusion.commands.search:main", "try configurations of stage 2 in parallel and keep a table"),
    "evaluate": ("stage2_fusion.commands.evaluate:main", "score a fusion model"),
    "baseline": ("stage2_fusion.commands.baseline:main", "score ridge regression on the same features"),
    "compare": ("stage2_fusion.commands.compare:main", "is one system better than another? paired bootstrap"),
    "leaderboard": ("stage2_fusion.commands.leaderboard:main", "a table of systems"),
    "ensemble": ("stage2_fusion.commands.ensemble:main", "several systems as one"),
    "pool": ("stage2_fusion.commands.merge_folds:main", "the folds of a cross-validation as one evaluation"),
    "robustness": ("stage2_fusion.commands.robustness:main", "PCC against the share of clips that lost a modality"),
    "predict": ("stage2_fusion.commands.predict:main", "six intensities for media files"),
    "doctor": ("shared.commands.doctor:main", "what is installed, what is missing, and how to get it"),
    "demo": ("shared.commands.demo:main", "the whole way on the synthetic corpus"),
}


def main() -> None:
    """Entry point of the `emit` command."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print("EMIT: emotional mimicry intensity from video, audio and words\n\nusage: emit COMMAND [options]\n")
        print("\n".join(f"  {name:<12}{text}" for name, (_, text) in COMMANDS.items()))
        print("\n`emit COMMAND --help` shows the options of one command, with an example.")
        return
    if words[0] not in COMMANDS:
        print(f"error: no command called {words[0]!r}: {nearest(words[0], COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    run_main(partial(call, words))


def call(words: list[str]) -> int:
    """The command words[0] with the arguments after it, in this process; its status. UserError as it says."""
    module, function = COMMANDS[words[0]][0].split(":")
    return getattr(importlib.import_module(module), function)(words[1:])


def run_main(command: Callable[[], int]) -> None:
    """Run a command and exit with its status; a UserError becomes one line and status 1."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a file name, or a bar, that the terminal has no letter for
    try:
        status = command()
        _leave_group(status)
        sys.exit(status)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        if not _reader_left():
            raise  # another pipe: to a lost process, say
        sys.exit(0)


def _reader_left() -> bool:
    """Whether nobody reads what we print any more, as after `| head`."""
    output = select.poll()
    output.register(1, 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def _leave_group(status: int) -> None:
    """End a process of a group (`accelerate launch` on several) at once: gloo's threads outlive the group, and the
    interpreter's own clean-up now and then aborts on them after everything is written and said."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return
    if distributed.get_world_size() > 1:
        distributed.barrier()  # the first to leave would take the store with it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)


if __name__ == "__main__":
    main()
