"""The run folder: which run it belongs to, its log and its checkpoints."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from shared.errors import UserError
from shared.training import checkpoint
from shared.training.checkpoint import TrainState
from shared.training.run_folder import Progress, RunFolder


@dataclass
class Inner:
    """Options."""

    lr: float = 0.1
    workers: int = 0


@dataclass
class Config:
    """A run."""

    run: Path = Path("x")
    data: Path = Path("y")
    train: Inner = field(default_factory=Inner)


@dataclass
class Scored(Progress):
    """Progress of a trainer."""

    best: float = 0.0


MUTABLE = ("train.workers",)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run", Accelerator(cpu=True))


def state_of(folder: RunFolder) -> TrainState:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    return TrainState(folder.accelerator, *folder.accelerator.prepare(model, model, optimizer))


def test_folder_recognizes_its_run_and_refuses_another(folder: RunFolder):
    folder.claim(Config(train=Inner(lr=0.3)), data="zero")
    assert not folder.finished
    folder.claim(Config(), MUTABLE, data="one")  # the first run wrote no checkpoint
    assert not folder.finished
    (folder.path / "checkpoints" / "00000001").mkdir(parents=True)
    (folder.path / "checkpoints" / "00000001" / "progress.json").write_text("{}")
    moved = Config(Path("elsewhere"), Path("other/place"), Inner(workers=4))
    folder.claim(moved, MUTABLE, data="one")  # paths and mutable options may change
    assert not folder.finished
    with pytest.raises(UserError, match=r"another configuration \(train.lr was 0.1, is 0.2\); choose another --run"):
        folder.claim(Config(train=Inner(lr=0.2)), MUTABLE, data="one")
    with pytest.raises(UserError, match="another data; choose another --run"):
        folder.claim(Config(), MUTABLE, data="two")
    with pytest.raises(UserError, match="another configuration"):
        folder.claim(Config(train=Inner(workers=1)), (), data="one")  # not mutable here
    (folder.path / "metrics.json").write_text("{}")
    folder.claim(Config(), MUTABLE, data="one")
    assert folder.finished


def test_option_that_config_yaml_lacks_had_its_default(folder: RunFolder):
    folder.claim(Config(train=Inner(lr=0.3)), data="one")
    assert not folder.finished
    (folder.path / "metrics.json").write_text("{}")
    path = folder.path / "config.yaml"
    path.write_text(path.read_text().replace("  workers: 0\n", ""))
    folder.claim(Config(train=Inner(lr=0.3)), data="one")
    assert folder.finished
    with pytest.raises(UserError, match=r"configuration \(train.workers was 0, is 1\)"):
        folder.claim(Config(train=Inner(lr=0.3, workers=1)), data="one")
    path.write_text(path.read_text() + "gone: 3\n")
    with pytest.raises(UserError, match=r"configuration \(gone was 3, is no option\)"):
        folder.claim(Config(train=Inner(lr=0.3)), data="one")
    path.write_text("a: [")
    with pytest.raises(UserError, match=r"config.yaml: damaged configuration: .*; choose another --run"):
        folder.claim(Config(train=Inner(lr=0.3)), data="one")
    path.unlink()
    with pytest.raises(UserError, match=r"config.yaml: no configuration here; choose another --run"):
        folder.claim(Config(train=Inner(lr=0.3)), data="one")


def test_lines_logged_after_the_checkpoint_are_removed(folder: RunFolder):
    log = folder.path / "log.jsonl"
    lines = [json.dumps({"step": step, "epoch": 1}) for step in (0, 1, 2, 2, 3)]
    log.write_text("\n".join(lines) + '\n{"step": 4, "lo')
    folder._truncate_log(2)
    assert log.read_text() == "".join(f"{line}\n" for line in lines[:4])
    folder.log(3, loss=0.5, note="text")
    last = json.loads(log.read_text().splitlines()[-1])
    assert last.pop("time") > 0 and last == {"step": 3, "loss": 0.5, "note": "text"}


def test_newest_checkpoint_is_loaded_and_the_oldest_deleted(folder: RunFolder):
    state = state_of(folder)
    assert folder.resume(Scored, state) == Scored() and folder.latest() is None
    for step in (1, 2, 10):
        torch.nn.init.constant_(state.model.weight, step)
        folder.save(Scored(step=step, best=0.5), state)
    torch.nn.init.constant_(state.model.weight, -1)
    assert sorted(path.name for path in (folder.path / "checkpoints").iterdir()) == ["00000002", "00000010"]
    (folder.path / "checkpoints" / "00000011").mkdir()  # incomplete: it has no progress.json
    assert folder.resume(Scored, state) == Scored(step=10, best=0.5) and state.model.weight.tolist() == [[10, 10]]


def test_checkpoint_of_the_same_step_is_replaced_at_no_risk(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    """A run that stopped during a validation saves the same step again."""
    state, checkpoints = state_of(folder), folder.path / "checkpoints"
    for best in (1.0, 2.0):
        folder.save(Scored(step=7, best=best), state)
        assert [path.name for path in checkpoints.iterdir()] == ["00000007"]
    remove = shutil.rmtree

    def kill(path: Path, **options):
        if path.name == "00000007":
            (path / "model.safetensors").unlink()  # half deleted
            raise KeyboardInterrupt
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", kill)
    with pytest.raises(KeyboardInterrupt):
        folder.save(Scored(step=7, best=3.0), state)
    monkeypatch.setattr(shutil, "rmtree", remove)
    assert folder.resume(Scored, state).best == 3.0
    for step in (7, 8):
        folder.save(Scored(step=step, best=4.0), state)
        assert folder.resume(Scored, state) == Scored(step=step, best=4.0)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["00000007", "00000008"]


def test_failed_checkpoint_leaves_the_previous_one(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    state = state_of(folder)
    folder.save(Progress(step=1), state)
    torch.nn.init.constant_(state.model.weight, float("nan"))
    before = {path.name: path.read_bytes() for path in folder.latest().iterdir()}
    for error in (OSError("No space left on device"), RuntimeError("PytorchStreamWriter failed\nwriting file")):

        def fail(path: Path, state: TrainState, error: Exception = error):
            (path / "half").write_text("half")
            raise error

        monkeypatch.setattr(checkpoint, "write", fail)
        message = r"could not be written .*; make room .* it continues from .*00000001"
        with pytest.raises(UserError, match=message) as caught:
            folder.save(Progress(step=2), state)
        assert "\n" not in str(caught.value)
        assert [path.name for path in (folder.path / "checkpoints").iterdir()] == ["00000001"]
    assert {path.name: path.read_bytes() for path in folder.latest().iterdir()} == before

    def lose_peer(path: Path, state: TrainState):
        raise RuntimeError("gloo: Connection closed by peer")

    monkeypatch.setattr(checkpoint, "write", lose_peer)
    with pytest.raises(RuntimeError, match="gloo"):  # peer_failure_guard reports this one
        folder.save(Progress(step=2), state)


def test_damaged_checkpoint_names_the_one_before_it(folder: RunFolder):
    state = state_of(folder)
    folder.save(Progress(step=1), state)
    for remedy, step in (("start again", 1), ("continue from 00000001", 2)):
        folder.save(Progress(step=step), state)
        (folder.latest() / "progress.json").write_text("{")
        with pytest.raises(UserError, match=rf"damaged checkpoint .*delete this checkpoint folder .* {remedy}"):
            folder.resume(Progress, state)
        if step == 1:
            folder.save(Progress(step=1), state)


@pytest.mark.parametrize(
    "line", ["[]", "3", '{"loss": 1}', '{"step": "a"}', '{"step": null}', "[" * 100_000, "\xff", ""]
)
def test_damaged_line_of_the_log_is_removed(folder: RunFolder, line: str):
    (folder.path / "log.jsonl").write_bytes(b'{"step": 1}\n' + line.encode("latin-1") + b'\n{"step": 2}\n')
    folder._truncate_log(2)
    assert (folder.path / "log.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_damaged_record_of_the_data_is_one_line(folder: RunFolder):
    (folder.path / "metrics.json").write_text("{}")
    for content in ("[]", "{", "3"):
        (folder.path / "made_from.json").write_text(content)
        with pytest.raises(UserError, match=r"made_from.json: damaged run .*; choose another --run"):
            folder.claim(Config(), MUTABLE, data="one")
