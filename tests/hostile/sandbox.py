"""A command in a process of its own whose time, memory, network use and child programs are watched."""

import multiprocessing
import os
import resource
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.trainers import FORK

from shared.cli import main

CPU_SECONDS = 10
MEMORY = 2 * 2**30
WALL_SECONDS = 120
"""Far above CPU_SECONDS: other processes may keep the processors busy."""
WATCHED = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
"""Audit events of a command that reaches out or starts a program."""


@dataclass
class Outcome:
    """What a command did."""

    status: int | None
    """Exit status; negative if killed by a signal, None if it did not end."""
    output: str
    """stdout and stderr together."""
    events: list[str]
    """Audit events of WATCHED."""
    cpu_seconds: float
    memory: int
    """Bytes of the largest resident set."""

    def fault(self) -> str:
        """What is wrong with it; empty for a result or one line."""
        errors = [line for line in self.output.splitlines() if line.startswith("error: ")]
        if self.status is None:
            return "hangs"
        if self.status == -signal.SIGXCPU or self.cpu_seconds > CPU_SECONDS:
            return f"takes {self.cpu_seconds:.0f} s of processor time"
        if self.memory > MEMORY:
            return f"takes {self.memory / 2**30:.1f} GiB"
        if self.events:
            return f"reaches out: {self.events[0]}"
        if "Traceback" in self.output:
            return "traceback"
        if self.status not in (0, 1, 2):
            return f"ends with status {self.status}"
        if self.status == 2 and not errors:
            return "fails without a reason"
        if len(errors) > 1:
            return "more than one error line"
        return ""


def run(words: list[str], folder: Path) -> Outcome:
    """`emit WORDS` with `folder` as working directory."""
    output, report = folder / ".output", folder / ".events"
    process = FORK.Process(target=_work, args=(words, folder, output, report))
    process.start()
    process.join(WALL_SECONDS)
    ended = process.exitcode is not None
    if not ended:
        process.kill()
        process.join()
    cpu, memory = (0.0, 0)
    usage = report.with_suffix(".usage")
    if usage.exists():
        values = usage.read_text().split()
        cpu, memory = float(values[0]), int(values[1])
    events = report.read_text().splitlines() if report.exists() else []
    text = output.read_text(errors="replace") if output.exists() else ""
    return Outcome(process.exitcode if ended else None, text, events, cpu, memory)


def _work(words: list[str], folder: Path, output: Path, report: Path) -> None:
    """Runs a supervisor and, in a fork of it, the command; the supervisor measures the command."""
    os.chdir(folder)
    child = os.fork()
    if child == 0:
        _command(words, output, report)
    _, status, usage = os.wait4(child, 0)
    memory = usage.ru_maxrss * 1024
    report.with_suffix(".usage").write_text(f"{usage.ru_utime + usage.ru_stime} {memory}")
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


def _command(words: list[str], output: Path, report: Path) -> None:
    import platform

    import huggingface_hub.constants

    platform.processor()  # starts `uname` once
    huggingface_hub.constants.HF_HUB_OFFLINE = False  # whoever reaches out is seen
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (3 * CPU_SECONDS, 3 * CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (2 * MEMORY, 2 * MEMORY))

    def watch(event: str, arguments: tuple) -> None:
        local = event == "socket.connect" and isinstance(arguments[1], str | bytes)  # a Unix socket
        if event in WATCHED and not local:
            with report.open("a") as lines:
                print(event, *map(repr, arguments[:2]), file=lines)

    sys.addaudithook(watch)
    os._exit(emit(words, output))


def emit(words: list[str], output: Path) -> int:
    """`emit WORDS` in this process, which then ends; its exit status. stdout and stderr are appended to `output`."""
    multiprocessing.set_start_method("fork", force=True)  # for its workers, as outside of a fork server
    with output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["emit", *words]
    status: Any = 0
    try:
        main()
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    return status if isinstance(status, int) else int(status is not None)
