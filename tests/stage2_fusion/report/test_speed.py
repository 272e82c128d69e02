"""The file of `make bench`: ratios turn by turn, shares of the limit, two files, and the section of the report."""

import dataclasses
from pathlib import Path

import pytest

from shared.errors import UserError
from shared.files import write_json
from stage2_fusion.report import write_report
from stage2_fusion.report.speed_file import FORMAT, SpeedFile, SpeedRow, Spread, Timing, compare, read_speed, table


def row(name: str, unit: str = "clips/s", **sides: list) -> SpeedRow:
    """sides: (amount, wall, cpu) of each turn."""
    timings = {side: [turn and Timing(*map(float, turn)) for turn in turns] for side, turns in sides.items()}
    return SpeedRow(name, f"the {name}", unit, "a loop", "torch.mm", timings)


def speed_file(*rows: SpeedRow) -> SpeedFile:
    return SpeedFile(FORMAT, "standard", "EPYC (AVX512-BF16)", 2, {"torch": "2.14"}, 3, list(rows))


EPOCH = row(
    "epoch",
    ours=[(100, 10, 8), (100, 5, 4), None],
    baseline=[(50, 10, 8), (50, 20, 8), (50, 1, 1)],
    limit=[(100, 5, 4), (100, 5, 4), None],
)
EPOCH.sides["ours"][1].mib, EPOCH.sides["baseline"][0].mib = 64.0, 1040.0
COLD = row("cold", "s", ours=[(1, 4, 3), (2, 4, 3), (1, 4, 0)], baseline=[(1, 8, 6), (1, 8, 6), (1, 8, 6)])


def test_figure_ratio_and_share_are_of_turns_that_both_sides_finished():
    assert EPOCH.value() == Spread(15, 10, 20)  # 100 / 10 and 100 / 5 clips a second
    assert EPOCH.value("baseline") == Spread(5, 2.5, 50)
    assert EPOCH.ratio("baseline") == Spread(5, 2, 8)  # 10 / 5 in the first turn, 20 / 2.5 in the second
    assert EPOCH.ratio("baseline", "cpu") == Spread(3, 2, 4)  # 12.5 / 6.25 and 25 / 6.25
    assert EPOCH.ratio("limit") == Spread(0.75, 0.5, 1)  # of 20 a second
    assert COLD.value() == Spread(4, 2, 4)  # seconds of one
    assert COLD.ratio("baseline") == Spread(2, 2, 4)
    assert COLD.ratio("baseline", "cpu") is None  # a turn has no CPU time: a GPU computed
    assert COLD.ratio("limit") is None and COLD.value("limit") is None


def test_table_says_what_failed_and_leaves_out_what_was_not_measured():
    failed = row("loss", ours=[None, None], baseline=[(1, 1, 1), (1, 1, 1)])
    lines = table([EPOCH, failed])
    assert lines[0][:6] == ("the epoch (clips/s)", "15.0 (10.0 to 20.0)", "5.00 (2.50 to 50.0)", "5.00 (2.00 to 8.00)",
                            "3.00 (2.00 to 4.00)", "0.750 (0.500 to 1.00)")  # fmt: skip
    assert lines[0][6:] == ("64, 1,040", "a loop", "torch.mm")
    assert lines[1][1:7] == ("failed", "1.00", "", "", "", "")


def test_comparison_is_above_one_where_after_is_faster():
    faster = row("epoch", ours=[(100, 5, 1)] * 2, baseline=[(50, 5, 1)] * 2)  # 20 against 10
    colder = row("cold", "s", ours=[(1, 8, 1)], baseline=[(1, 8, 1)])
    lines = compare(speed_file(EPOCH, COLD), speed_file(faster, colder, row("new", ours=[(1, 1, 1)])))
    assert [line[0] for line in lines] == ["the epoch (clips/s)", "the cold (s)"]
    assert lines[0][3:] == ("1.33 (1.00 to 2.00)", "5.00 (2.00 to 8.00)", "2.00", "0.400 (0.250 to 1.00)")
    assert lines[1][3:] == ("0.500 (0.250 to 0.500)", "2.00 (2.00 to 4.00)", "1.00", "0.500 (0.250 to 0.500)")


def test_file_is_read_as_it_was_written(tmp_path: Path):
    write_json(tmp_path / "bench.json", dataclasses.asdict(speed_file(EPOCH, COLD)))
    assert read_speed(tmp_path / "bench.json") == speed_file(EPOCH, COLD)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": "emit-bench/2"}, "not a file of make bench"),
        ({"rows": [{}]}, "rows"),
        ({"threads": "2"}, "threads is '2'"),
        ({"rows": [dataclasses.asdict(EPOCH) | {"sides": {"limit": []}}]}, "epoch has no measurement of ours"),
        ({"rows": [dataclasses.asdict(EPOCH) | {"sides": {"ours": [{"amount": 1, "wall": 0, "cpu": 1}]}}]}, "above 0"),
    ],
)  # fmt: skip
def test_damaged_file_is_refused_in_one_line(change: dict, told: str, tmp_path: Path):
    path = tmp_path / "bench.json"
    write_json(path, dataclasses.asdict(speed_file(EPOCH)) | change)
    with pytest.raises(UserError, match=told) as caught:
        read_speed(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_report_shows_the_table_and_compares_two_files(tmp_path: Path):
    for name in ("a", "b"):
        write_json(tmp_path / "run" / f"{name}.json", dataclasses.asdict(speed_file(EPOCH, COLD)))
    report = write_report([tmp_path / "run"], tmp_path / "r.html")
    page = report.path.read_text()
    assert (
        "2 of 2 parts are faster than their baselines" in page and "the slowest is the cold, 2.00 times as fast" in page
    )
    assert "EPYC (AVX512-BF16), 2 threads" in page and "0.750 (0.500 to 1.00)" in page
    assert "Before and after" in page and "1.00 (0.500 to 2.00)" in page
    one = write_report([tmp_path / "run" / "a.json"], tmp_path / "one.html")
    assert "Before and after" not in one.path.read_text() and "the epoch (clips/s)" in one.path.read_text()


def test_machine_is_said_with_what_disturbs_the_figures():
    quiet = speed_file(EPOCH)
    assert quiet.where == "EPYC (AVX512-BF16), 2 threads, PyTorch 2.14"
    assert dataclasses.replace(quiet, threads=1, load=2.34).where == (
        "EPYC (AVX512-BF16), 1 thread, PyTorch 2.14; busy with other work (load 2.3)"
    )
    assert dataclasses.replace(quiet, size="tiny").where.endswith("; TINY: these figures mean nothing")


def test_report_without_such_a_file_has_no_such_section(tmp_path: Path):
    write_json(tmp_path / "robustness.json", {"rows": [], "shares": []})
    report = write_report([tmp_path], tmp_path / "r.html")
    assert "Speed" not in [section.title for section in report.sections]
