"""Runs the rows: every side in a process of its own, the sides of a row in turns, so that a busy machine slows all."""

import contextlib
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from benchmarks.bench import GPU_ROWS, ROWS, SIZE_ROWS
from benchmarks.bench.row import Bench, Measured, Row, check_agreement
from benchmarks.bench.sizes import SIZES

from shared import config as configuration
from shared.errors import UserError
from shared.files import write_json
from shared.options.ranges import CheckedOptions
from shared.registry import nearest
from shared.saved.typed import read_typed
from shared.text import one_line
from stage2_fusion.report.speed_file import COMPARED, FORMAT, HEADER, SpeedFile, SpeedRow, compare, read_speed, table


@dataclass
class BenchConfig(CheckedOptions):
    """Measure how fast each part is, beside a baseline and a physical limit."""

    size: Literal["standard", "gpu", "tiny"] = "standard"
    """standard: all parts in about ten minutes on two cores. gpu: both stages at full size, ViT-B/32 and HTSAT-tiny,
    bf16, compiled, on the GPU there is. tiny: all rows in seconds, whose figures mean nothing."""
    rows: list[str] = field(default_factory=list)
    """Names of the rows; by default those of the size."""
    turns: int = 0
    """Measurements of each side; 0: as many as the size has."""
    threads: int = 0
    """Threads of a measurement; 0: one for each core."""
    out: Path | None = None
    """JSON file to write, which `emit report` shows; rows that it holds already are replaced, others stay."""
    add: bool = False
    """Add the turns to those of the same row in `out`: so that two checkouts can be measured in alternation."""
    folder: Path | None = None
    """Folder for the material, which is reused; by default a temporary one."""
    compare: list[Path] = field(default_factory=list)
    """Two such files, before and after: compare them and measure nothing."""
    only: str = ""
    """One measurement, as loss:ours, printed as JSON: what the script starts itself with."""


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        BenchConfig, argv, prog="bench", example="python tests/benchmarks/bench --out runs/bench.json"
    )
    if config.compare:
        if len(config.compare) != 2:
            raise UserError(f"--compare names {len(config.compare)} files: give two, before and after")
        before, after = map(read_speed, config.compare)
        print(f"before: {before.where}\nafter:  {after.where}\n")
        print_table(COMPARED, compare(before, after))
        return 0
    if config.only:
        print(json.dumps(asdict(measure(config, config.only))))
        return 0
    names = config.rows or list(SIZE_ROWS[config.size])
    for name in names:
        if name not in (*ROWS, *GPU_ROWS):
            raise UserError(f"--rows: no row {name!r}: {nearest(name, (*ROWS, *GPU_ROWS))}")
    config.turns = config.turns or SIZES[config.size].turns
    file = begin(config)
    with contextlib.nullcontext(config.folder) if config.folder else tempfile.TemporaryDirectory() as folder:
        config.folder = Path(folder)
        for name in names:
            row = merge(file, run_row(config, name), config.add)
            print_table(HEADER if name == names[0] else (), table([row]))
            if config.out:
                config.out.parent.mkdir(parents=True, exist_ok=True)
                write_json(config.out, asdict(file))
    return 0


def load_row(name: str) -> Row:
    return importlib.import_module(f"benchmarks.bench.rows.{name}").ROW


def run_row(config: BenchConfig, name: str) -> SpeedRow:
    """All turns of a row."""
    row = load_row(name)
    if row.prepare:
        with contextlib.redirect_stdout(sys.stderr):
            row.prepare(bench_of(config))
    sides = list(row.sides())
    timings: dict[str, list] = {side: [] for side in (*sides, "limit")}
    for turn in range(config.turns):
        done = {side: start(config, f"{name}:{side}") for side in (sides if turn % 2 == 0 else sides[::-1])}
        check_agreement(name, done)
        for side, measured in done.items():
            timings[side].append(measured and measured.timing)
        timings["limit"].append(done["ours"] and done["ours"].limit)
    return SpeedRow(name, row.figure, row.unit, row.baseline_is, row.limit_is, timings)


def start(config: BenchConfig, what: str) -> Measured | None:
    """One measurement in a process of its own (tiny: in this one); None when it fails, as with too little memory."""
    if config.size == "tiny":
        return measure(config, what)
    options = {"size": config.size, "threads": threads_of(config), "folder": config.folder, "only": what}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads_of(config)), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(Path(__file__).parent), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        print(f"{what} failed: {one_line(done.stderr[-300:] or 'no message', 300)}", file=sys.stderr, flush=True)
        return None
    return read_typed(Measured, json.loads(done.stdout.splitlines()[-1]), what)


def measure(config: BenchConfig, what: str) -> Measured:
    """One side of a row, in this process."""
    name, _, side = what.partition(":")
    row = load_row(name)
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads_of(config))
    try:
        with contextlib.redirect_stdout(sys.stderr):  # of commands
            return row.sides()[side](bench_of(config))
    finally:
        torch.set_num_threads(before)


def bench_of(config: BenchConfig) -> Bench:
    assert config.folder is not None
    folder = config.folder / config.size
    folder.mkdir(parents=True, exist_ok=True)
    return Bench(SIZES[config.size], folder, threads_of(config))


def threads_of(config: BenchConfig) -> int:
    return config.threads or len(os.sched_getaffinity(0))


def begin(config: BenchConfig) -> SpeedFile:
    """The file to write, with the rows of an earlier run of the same size on this machine."""
    import torch

    processor = torch.cuda.get_device_name() if torch.cuda.is_available() else processor_name()
    versions = {"emit": version("emit-toolkit"), "python": platform.python_version(), "torch": torch.__version__}
    load = os.getloadavg()[0]
    file = SpeedFile(FORMAT, config.size, processor, threads_of(config), versions, config.turns, [], load)
    if config.out and config.out.exists():
        old = read_speed(config.out)
        if (old.size, old.processor, old.threads) == (file.size, file.processor, file.threads):
            file.rows, file.load, file.turns = old.rows, max(old.load, load), max(old.turns, config.turns)
    return file


def merge(file: SpeedFile, row: SpeedRow, add: bool) -> SpeedRow:
    """Put a row into the file, in the order of the table; with `add`, after the turns of the one that is there."""
    before = next((each for each in file.rows if each.name == row.name), None)
    if add and before is not None:
        row.sides = {side: [*before.sides.get(side, []), *turns] for side, turns in row.sides.items()}
        file.turns = max(file.turns, len(row.sides["ours"]))
    order = [*ROWS, *GPU_ROWS]
    others = [each for each in file.rows if each.name != row.name and each.name in order]
    file.rows = sorted([*others, row], key=lambda each: order.index(each.name))
    return row


def processor_name() -> str:
    """As the system names it, with the instructions for bf16."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    known = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = known.get("flags", "").split()
    bf16 = [name for flag, name in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")) if flag in flags]
    return f"{known.get('model name', platform.processor() or 'CPU')} ({' and '.join(bf16) or 'no bf16'})"


def print_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """In Markdown; without a header, further lines."""
    if header:
        print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for line in lines:
        print(f"| {' | '.join(line)} |")
    sys.stdout.flush()
