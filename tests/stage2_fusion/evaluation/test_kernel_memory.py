"""Kernels that memory cannot hold are refused in one line that says what fits."""

import re

import pytest
from helpers import synthetic_features

from shared.errors import UserError
from shared.training import available_memory
from stage2_fusion.commands.baseline import BaselineConfig, baseline
from stage2_fusion.evaluation.kernel_memory import check_kernel_memory


@pytest.mark.parametrize(("kind", "others"), [("kernel", 0), ("statistics", 20_000)])
def test_number_that_fits_is_named(monkeypatch, kind, others):
    monkeypatch.setattr(available_memory, "available_bytes", lambda: 6 * 2**30)
    with pytest.raises(
        UserError, match=rf"--kind {kind}: the kernels of 100,000 training clips take [\d,.]+ GiB"
    ) as error:
        check_kernel_memory(kind, 100_000, others)
    fits = int(re.search(r"--max_train_clips (\d+)", str(error.value)).group(1))
    check_kernel_memory(kind, fits, others)
    with pytest.raises(UserError):
        check_kernel_memory(kind, fits + 200, others)


def test_system_that_does_not_say_refuses_nothing(monkeypatch):
    monkeypatch.setattr(available_memory, "available_bytes", lambda: None)
    check_kernel_memory("kernel", 10**6, 0)


def test_command_refuses_before_it_fits(tmp_path, monkeypatch):
    synthetic_features.write_features(tmp_path / "features", {"train": 40, "valid": 20, "test": 20})
    config = BaselineConfig(data=tmp_path / "features", out=tmp_path / "out.json", kind="kernel")
    monkeypatch.setattr(available_memory, "available_bytes", lambda: 100_000)
    with pytest.raises(UserError, match="the kernels of 40 training clips"):
        baseline(config)
    assert not config.out.exists()
