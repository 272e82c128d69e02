"""Memory that is left: of the machine, or of the container if that allows less."""

import pytest

from shared.training import available_memory


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Files of a system that has 8 GiB left."""
    monkeypatch.setattr(available_memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(available_memory, "CONTROL_GROUP", tmp_path)
    (tmp_path / "meminfo").write_text("MemTotal: 16777216 kB\nMemFree: 1024 kB\nMemAvailable:    8388608 kB\n")
    return tmp_path


def test_machine_alone(system):
    assert available_memory.available_bytes() == 8 * 2**30


@pytest.mark.parametrize(("limit", "left"), [(3 * 2**30, 2 * 2**30 + 4096), (2**63, 8 * 2**30), ("max", 8 * 2**30)])
def test_container_of_version_2(system, limit, left):
    (system / "memory.max").write_text(f"{limit}\n")
    (system / "memory.current").write_text(f"{2**30}\n")
    (system / "memory.stat").write_text("anon 5\ninactive_file 4096\n")
    assert available_memory.available_bytes() == left


def test_container_of_version_1_that_is_full(system):
    (system / "memory").mkdir()
    (system / "memory" / "memory.limit_in_bytes").write_text("1000")
    (system / "memory" / "memory.usage_in_bytes").write_text("1200")
    assert available_memory.available_bytes() == 0


def test_system_that_does_not_say(system):
    (system / "meminfo").unlink()
    assert available_memory.available_bytes() is None


def test_this_machine_says_something_sensible():
    left = available_memory.available_bytes()
    assert left is None or 0 < left < 2**50
