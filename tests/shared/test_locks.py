"""A folder has one writer at a time; a second process is told which one, and a killed one leaves nothing locked."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate import Accelerator

from shared.dataset.shards import ShardWriter
from shared.errors import UserError
from shared.locks import hold, is_held_elsewhere, release
from shared.saved.checksum import CLIPS
from shared.synth import corpus
from shared.synth.config import SynthConfig
from shared.training.distributed import peer_failure_guard
from shared.training.run_folder import RunFolder
from stage2_fusion.config import FuseConfig

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def other_process(statement: str) -> Iterator[subprocess.Popen]:
    """Another process that has run a statement and lives on."""
    program = (
        "import sys; from pathlib import Path; from shared.locks import hold, release\n"
        f"{statement}\nprint('held', flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, **pipes)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def holding(folder: Path, more: str = "") -> contextlib.AbstractContextManager[subprocess.Popen]:
    return other_process(f"hold(Path({str(folder)!r}), Path('shown'){more})")


def test_second_process_is_told_the_first_and_gets_the_folder_when_that_is_killed(tmp_path):
    with holding(tmp_path) as process:
        assert is_held_elsewhere(tmp_path)
        (tmp_path / "link").symlink_to(tmp_path)
        told = rf"^runs/a: in use by process {process.pid} on \S+, since \S+ \S+; wait until it has ended, or end it$"
        with pytest.raises(UserError, match=told):
            hold(tmp_path / "link", Path("runs/a"))
        process.send_signal(signal.SIGKILL)
        process.wait()
        hold(tmp_path, tmp_path)
    hold(tmp_path, tmp_path)  # again, in the same process
    assert not is_held_elsewhere(tmp_path)
    with pytest.raises(AssertionError), holding(tmp_path):
        pass
    release(tmp_path)
    with holding(tmp_path):
        assert is_held_elsewhere(tmp_path)


def test_forked_child_does_not_keep_the_lock(tmp_path):
    """As data loading processes that outlive a killed trainer."""
    fork = "import os, time\nif os.fork() == 0:\n    time.sleep(20)\n    os._exit(0)"
    with other_process(f"hold(Path({str(tmp_path)!r}), Path('shown'))\n{fork}") as process:
        process.kill()
        process.wait()
        assert not is_held_elsewhere(tmp_path)


def refused(folder: Path) -> contextlib.AbstractContextManager:
    return pytest.raises(UserError, match=rf"^{re.escape(str(folder))}: in use by process \d+ on ")


def test_run_folder_has_one_trainer(tmp_path):
    run = RunFolder(tmp_path, Accelerator(cpu=True))
    config = FuseConfig(Path("data"), tmp_path)
    with holding(tmp_path):
        with refused(tmp_path):
            run.claim(config, data="one")
        assert not (tmp_path / "config.yaml").exists()
        (tmp_path / "metrics.json").touch()
        run.claim(config, data="one")  # a finished run is only read
    (tmp_path / "metrics.json").unlink()
    with peer_failure_guard(tmp_path):
        run.claim(config, data="one")
        with pytest.raises(AssertionError), holding(tmp_path):
            pass
    with holding(tmp_path):  # the trainer has ended, in this process that lives on
        pass


def test_dataset_has_one_writer_and_each_share_its_own(tmp_path):
    writer = ShardWriter(tmp_path, CLIPS, 4, 2)
    with holding(writer.folder), refused(tmp_path), writer.locked():
        pytest.fail("written by two")
    with holding(writer.folder), refused(tmp_path), writer.locked((0, 2)):
        pytest.fail("a share is written while all are")
    one = f"; hold(Path({str(writer.folder)!r}), Path('shown'), '.lock.1-2')"
    with holding(writer.folder, f", shared=True){one}".rstrip(")")):
        with writer.locked((1, 2)):
            pass
        with refused(tmp_path), writer.locked((0, 2)):
            pytest.fail("a share is written by two")
        with pytest.raises(UserError, match="in use by "), writer.locked():
            pytest.fail("merged while a share is written")
    with writer.locked():
        writer.description.write_text("{}")
    with pytest.raises(UserError, match="another process has just finished it"), writer.locked():
        pytest.fail("written again")


def test_synthetic_corpus_has_one_writer(tmp_path):
    config = SynthConfig(tmp_path, clips=3)
    assert corpus._claim(config) is None  # as a first process does
    with holding(tmp_path / "unfinished"), refused(tmp_path):
        corpus.build(config)
