"""Progress on a terminal, in a log file, and where nothing may be shown."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

CLOCK = """
import sys, threading
import shared.terminal.progress as p

class Clock:  # of the test: no thread, and a second passes where it says so
    now = 1000.0
p.time.monotonic = lambda: Clock.now
p.time.time = lambda: Clock.now
p.TICK = 1e6

def work(items, seconds, **options):
    with p.progress("encode", items, "clips", **options) as bar:
        for _ in range(items - options.get("done", 0)):
            Clock.now += seconds
            bar.update()
"""


def python(program: str, stderr=subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-c", CLOCK + program], env=variables, stdout=subprocess.PIPE, stderr=stderr, timeout=60
    )


def on_terminal(program: str, columns: int = 80, **environment: str) -> str:
    """What a terminal gets to see."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    done = python(program, theirs, **{"TERM": "xterm", **environment})
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # nothing more
            break
        if not part:
            break
        seen += part
    os.close(ours)
    assert done.returncode == 0, seen
    return seen.decode()


def test_a_log_file_has_plain_lines_at_ten_seconds_and_then_every_tenth():
    lines = python("work(400, 1.0)").stderr.decode()
    assert "\r" not in lines and "\x1b" not in lines
    shown = [int(done) for done in re.findall(r"encode: (\d+) of 400 clips", lines)]
    assert shown == [10, 50, 90, 130, 170, 210, 250, 290, 330, 370, 400]
    assert lines.splitlines()[1] == "encode: 50 of 400 clips (12 %), 1.0 clips/s, 05:50 left"
    assert lines.splitlines()[-1] == "encode: 400 of 400 clips (100 %), 1.0 clips/s, done in 06:40"


def test_lines_of_a_long_step_are_five_minutes_apart_at_most():
    lines = python("work(100, 600.0)").stderr.decode().splitlines()
    assert len(lines) == 100 and "600.0 s per item" in lines[0]


def test_items_of_an_earlier_run_count_as_done_but_not_for_the_rate():
    line = python("work(100, 1.0, done=80)").stderr.decode().splitlines()[0]
    assert line == "encode: 90 of 100 clips (90 %), 1.0 clips/s, 00:10 left"


def test_without_a_total_there_is_no_time_left():
    program = "\nwith p.progress('read', None, 'rows') as bar:\n  for _ in range(20):\n    Clock.now += 1; bar.update()"
    assert python(program).stderr.decode().splitlines()[0] == "read: 10 rows, 1.0 rows/s, running for 00:10"


@pytest.mark.parametrize("columns", [80, 30, 0])
def test_a_terminal_has_one_line_that_updates_and_disappears(columns):
    seen = on_terminal("work(40, 0.5)", columns)
    assert "\n" not in seen and "\x1b" not in seen
    frames = [frame for frame in seen.split("\r") if frame.strip()]
    assert len(frames) > 10 and all(len(frame) <= (columns or 200) for frame in frames)
    assert frames[0].startswith("encode") and not seen.rsplit("\r", 2)[-2].strip()  # blanked at the end
    if columns == 80:
        assert "20/40 clips" in seen and "00:10 left" in seen


def test_a_dumb_terminal_gets_plain_lines():
    seen = on_terminal("work(40, 1.0)", TERM="dumb").replace("\r\n", "\n")
    assert "\r" not in seen and seen.splitlines()[0].startswith("encode: 10 of 40 clips (25 %)")


@pytest.mark.parametrize(
    ("program", "environment"),
    [
        ("work(10, 0.1)", {}),
        ("work(400, 1.0)", {"RANK": "1"}),
        ("from shared.terminal import modes; modes.use_modes(modes.Modes(quiet=True)); work(400, 1.0)", {}),
    ],
    ids=["short", "second process", "quiet"],
)
def test_nothing_is_shown(program, environment):
    assert not python(program, **environment).stderr and not on_terminal(program, **environment)


def test_only_the_outermost_step_is_shown():
    lines = python("\nfor _ in p.track(range(3), 'clips', 'clips'): work(40, 1.0)").stderr.decode()
    assert "clips: 1 of 3" in lines and "encode" not in lines


def test_lines_printed_meanwhile_replace_the_bar_of_a_terminal():
    program = "\nfrom shared.terminal.messages import note\nwith p.progress('encode', 9, 'clips') as bar:\n"
    seen = on_terminal(program + "  for i in range(9):\n    Clock.now += 3; bar.update()\n    note(f'shard {i}')")
    shown = [line.rsplit("\r", 1)[-1] for line in seen.replace("\r\n", "\n").split("\n")]
    assert shown[:9] == [f"shard {i}" for i in range(9)]


def test_a_reader_that_has_gone_stops_nothing():
    read, write = os.pipe()
    os.close(read)
    done = python("work(400, 1.0); print('finished')", write)
    assert done.stdout == b"finished\n" and not done.returncode


def test_a_closed_stderr_stops_nothing():
    line = [sys.executable, "-c", CLOCK + "work(400, 1.0); print('finished')"]
    command = ["bash", "-c", 'exec "$@" 2>&-', "bash", *line]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, timeout=60)
    assert done.stdout == b"finished\n" and not done.returncode
