"""`make bench` at tiny size: every row runs; what fails says so; a file keeps the rows of earlier runs."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.bench import GPU_ROWS, ROWS, harness, material, row
from benchmarks.bench.harness import BenchConfig, load_row, main
from benchmarks.bench.row import Measured, Row, check_agreement, with_limit

from shared.errors import UserError
from stage2_fusion.report import write_report
from stage2_fusion.report.speed_file import Timing, read_speed

HERE = Path(__file__).parent / "bench"


def test_each_row_is_a_file_and_each_file_a_row():
    files = {path.stem for path in (HERE / "rows").glob("*.py")} - {"__init__"}
    assert files == {*ROWS, *GPU_ROWS} and len(files) == len(ROWS) + len(GPU_ROWS)
    shown = [load_row(name) for name in (*ROWS, *GPU_ROWS)]
    assert len({each.figure for each in shown}) == len(shown)
    assert all(each.baseline_is or each.baseline is None for each in shown)


def test_limit_is_brought_to_the_amount_that_was_measured():
    measured = with_limit(Timing(amount=30, wall=6, cpu=5), Timing(amount=10, wall=1, cpu=2))
    assert measured.limit == Timing(amount=30, wall=3, cpu=6)


def test_sides_that_compute_something_else_are_not_compared():
    timing = Timing(1, 1, 1)
    check_agreement("x", {"ours": Measured(timing, check=[2.0]), "baseline": Measured(timing, check=[2.01])})
    check_agreement("x", {"ours": Measured(timing, check=[2.0]), "baseline": None})
    with pytest.raises(UserError, match="x: the sides have not computed the same"):
        check_agreement("x", {"ours": Measured(timing, check=[2.0]), "baseline": Measured(timing, check=[2.1])})


def test_watch_counts_this_process_and_its_children():
    with row.watch() as clock:
        np.linalg.svd(np.ones((60, 60)))
    timing = clock.timing(3.0)
    assert timing.amount == 3 and timing.wall > 0 and timing.cpu > 0 and timing.mib > 10


def test_processor_is_named_with_its_instructions_for_bf16(monkeypatch: pytest.MonkeyPatch):
    content = "model name\t: EPYC 9\nflags\t\t: fpu avx512_bf16 amx_bf16\n\n"
    monkeypatch.setattr(Path, "read_text", lambda path: content)
    assert harness.processor_name() == "EPYC 9 (AMX and AVX512-BF16)"


def test_peak_of_memory_is_that_of_the_program_itself():
    held = np.ones(2**25)  # 256 MiB of this process
    program = "from benchmarks.bench.row import peak_mib; print(peak_mib())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE.parents[2])])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert 5 < float(done.stdout) < 200 < row.peak_mib() and held.all()  # the program imports no torch


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, Row]:
    """Rows without work; the harness finds these."""

    def side(seconds: float):
        return lambda bench: Measured(Timing(1, seconds, seconds))

    made = {"loss": Row("a", "s", side(2.0), side(4.0), "b"), "decode": Row("c", "s", side(1.0))}
    monkeypatch.setattr(harness, "load_row", made.__getitem__)
    return made


def test_sides_take_turns_and_rows_of_an_earlier_run_stay(rows, tmp_path: Path, monkeypatch, capsys):
    started = []

    def start(config: BenchConfig, what: str) -> Measured | None:
        started.append(what)
        return None if len(started) == 1 else harness.measure(config, what)

    monkeypatch.setattr(harness, "start", start)
    words = ["--size", "tiny", "--turns", "3", "--folder", str(tmp_path), "--out", str(tmp_path / "out" / "bench.json")]
    assert main([*words, "--rows", "[loss]"]) == 0
    assert started == [f"loss:{side}" for side in ("ours", "baseline", "baseline", "ours", "ours", "baseline")]
    file = read_speed(tmp_path / "out" / "bench.json")
    assert [timing is None for timing in file.rows[0].sides["ours"]] == [True, False, False]
    assert file.rows[0].ratio("baseline").median == 2 and "| 2.00 | 4.00 | 2.00 |" in capsys.readouterr().out
    main([*words, "--rows", "[decode]"])
    assert [each.name for each in read_speed(tmp_path / "out" / "bench.json").rows] == ["decode", "loss"]
    main([*words, "--rows", "[loss]", "--add", "true"])
    file = read_speed(tmp_path / "out" / "bench.json")
    assert [len(each.sides["ours"]) for each in file.rows] == [3, 6] and file.turns == 6
    capsys.readouterr()
    main(["--compare", f"[{tmp_path / 'out' / 'bench.json'},{tmp_path / 'out' / 'bench.json'}]"])
    assert "| a (s) | 2.00 | 2.00 | 1.00 | 2.00 | 2.00 | 1.00 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--rows", "[los]"], "no row 'los': did you mean 'loss'"), (["--compare", "[a]"], "names 1 file")],
)
def test_wrong_options_are_one_line(words, told):
    with pytest.raises(UserError, match=told):
        main(words)


def test_failed_measurement_is_none_and_says_why(tmp_path: Path, capfd):
    config = BenchConfig(size="standard", folder=tmp_path)
    assert harness.start(config, "nothing:ours") is None
    assert "nothing:ours failed: " in capfd.readouterr().err


def test_interrupted_material_is_made_again(tmp_path: Path):
    (tmp_path / "films.partial").mkdir()
    made = material._once(tmp_path / "films", lambda path: path.mkdir())
    assert made == tmp_path / "films" and not (tmp_path / "films.partial").exists()
    assert material._once(made, lambda path: pytest.fail("it is there")) == made


@pytest.mark.slow
def test_all_rows_run_at_tiny_size(tmp_path: Path):
    out = tmp_path / "bench.json"
    assert main(["--size", "tiny", "--threads", "1", "--folder", str(tmp_path / "made"), "--out", str(out)]) == 0
    file = read_speed(out)
    assert [each.name for each in file.rows] == [*ROWS, *GPU_ROWS]
    for each in file.rows:
        sides = load_row(each.name).sides()
        assert set(each.sides) == {*sides, "limit"}
        assert all(each.sides[side][0] is not None for side in sides), each.name
        assert (each.sides["limit"][0] is not None) == bool(each.limit), each.name
        assert not each.ratio("baseline") or each.ratio("baseline").low > 0
    page = write_report([out], tmp_path / "report.html").path.read_text()
    assert "TINY: these figures mean nothing" in page and all(each.figure in page for each in file.rows)
    assert dataclasses.asdict(file)["size"] == "tiny"
