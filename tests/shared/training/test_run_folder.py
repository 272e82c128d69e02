"""The run folder: which run it belongs to, its log and its checkpoints."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from shared.errors import UserError
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
    with pytest.raises(UserError, match=r"config.yaml: damaged configuration .*; choose another --run"):
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
    accelerator = folder.accelerator
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    model, optimizer = accelerator.prepare(model, optimizer)
    assert folder.resume(Scored) == Scored() and folder.latest() is None
    for step in (1, 2, 10):
        torch.nn.init.constant_(model.weight, step)
        folder.save(Scored(step=step, best=0.5))
    torch.nn.init.constant_(model.weight, -1)
    assert sorted(path.name for path in (folder.path / "checkpoints").iterdir()) == ["00000002", "00000010"]
    (folder.path / "checkpoints" / "00000011").mkdir()  # incomplete: it has no progress.json
    assert folder.resume(Scored) == Scored(step=10, best=0.5) and model.weight.tolist() == [[10, 10]]


def test_failed_checkpoint_leaves_the_previous_one(folder: RunFolder, monkeypatch: pytest.MonkeyPatch):
    model = folder.accelerator.prepare(torch.nn.Linear(2, 1))
    folder.save(Progress(step=1))
    torch.nn.init.constant_(model.weight, float("nan"))
    before = {path.name: path.read_bytes() for path in folder.latest().iterdir()}
    for error in (OSError("No space left on device"), RuntimeError("PytorchStreamWriter failed\nwriting file")):

        def fail(path: str, error: Exception = error):
            (Path(path) / "half").write_text("half")
            raise error

        monkeypatch.setattr(folder.accelerator, "save_state", fail)
        message = r"could not be written .*; make room .* it continues from .*00000001"
        with pytest.raises(UserError, match=message) as caught:
            folder.save(Progress(step=2))
        assert "\n" not in str(caught.value)
        assert [path.name for path in (folder.path / "checkpoints").iterdir()] == ["00000001"]
    assert {path.name: path.read_bytes() for path in folder.latest().iterdir()} == before

    def lose_peer(path: str):
        raise RuntimeError("gloo: Connection closed by peer")

    monkeypatch.setattr(folder.accelerator, "save_state", lose_peer)
    with pytest.raises(RuntimeError, match="gloo"):  # peer_failure_guard reports this one
        folder.save(Progress(step=2))


def test_damaged_progress_names_the_remedy(folder: RunFolder):
    folder.accelerator.prepare(torch.nn.Linear(2, 1))
    folder.save(Progress(step=1))
    for content in ("{", '{"step": 1, "stage": 3}'):
        (folder.latest() / "progress.json").write_text(content)
        with pytest.raises(UserError, match=r"damaged checkpoint .*delete this checkpoint folder"):
            folder.resume(Progress)
