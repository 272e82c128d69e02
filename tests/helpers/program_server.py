"""The server of steps, whose forks run programs: `emit split PROGRAM ...` stands for `python PROGRAM ...`."""

import runpy
import sys

from shared import cli
from shared.pipeline import step_server


def run_program() -> None:
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit(0)


if __name__ == "__main__":
    cli.main = run_program
    step_server.main()
