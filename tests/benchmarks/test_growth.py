"""The growth of the commands, at its smallest."""

import json
import re

import pytest
from benchmarks import growth

COMMANDS = ["check", "prepare", "align", "encode", "split", "baseline --kind ridge", "baseline --kind kernel", "fuse",
            "evaluate", "predict"]  # fmt: skip


@pytest.mark.slow
def test_every_command_is_measured_once(tmp_path, capsys):
    argv = ["--out", str(tmp_path), "--clips", "[40, 80]", "--features", "[100, 200]"]
    assert growth.main(argv) == 0
    taken = json.loads((tmp_path / "growth.json").read_text())
    assert list(taken) == COMMANDS
    for name, by_count in taken.items():
        assert list(by_count) == (["40", "80"] if name in COMMANDS[:4] else ["100", "200"]), name
        assert all("error" not in took and took["cpu"] > 0 and took["mib"] > 50 for took in by_count.values()), by_count
    before = (tmp_path / "growth.md").read_text()
    capsys.readouterr()
    assert growth.main(argv) == 0
    assert "clips\n" not in capsys.readouterr().out.replace(before, "")
    assert (tmp_path / "growth.md").read_text() == before


def test_a_command_that_fails_has_its_error_in_the_table(tmp_path):
    figures = growth.Figures(tmp_path / "growth.json", 16)
    figures.take("check", 5, tmp_path / "nothing", out=tmp_path / "check.json")
    line = figures.table().splitlines()[-1]
    assert re.fullmatch(r"\| check \| 5 \| error: .*nothing.* \| \| \| \|", line)


def test_the_table_shows_what_each_further_clip_takes(tmp_path):
    figures = growth.Figures(tmp_path / "growth.json", 16)
    figures.taken["fuse"] = {
        "3000": {"seconds": 9.0, "cpu": 8.0, "mib": 2000.4},
        "1000": {"seconds": 5.0, "cpu": 4.0, "mib": 900.0},
    }
    assert figures.table().splitlines()[2:] == [
        "| fuse | 1,000 | 5.0 | 4.0 |  | 900 |",
        "| fuse | 3,000 | 9.0 | 8.0 | 2.00 | 2,000 |",
    ]


def test_no_drawn_clip_is_in_two_splits():
    splits = [{growth.split_of(number) for number in range(drawn, 400, growth.DRAWN)} for drawn in range(growth.DRAWN)]
    assert [len(names) for names in splits] == [1] * growth.DRAWN
    assert set().union(*splits) == {"train", "valid", "test"}
