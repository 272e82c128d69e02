"""The run folder: whose it is, what it forgets, how it fails."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from shared.errors import UserError
from shared.training.run_folder import Ema, RunFolder, cosine_with_warmup, seed_everything


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
    max_steps: int = 0
    train: Inner = field(default_factory=Inner)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run", Accelerator(cpu=True))


def test_a_folder_is_taken_once_and_knows_its_run(folder):
    assert folder.claim(Config(train=Inner(lr=0.3)), data="zero") is False
    assert folder.claim(Config(), ("train.workers",), data="one") is False  # the other one left no checkpoint
    (folder.path / "checkpoints" / "00000001").mkdir(parents=True)
    (folder.path / "checkpoints" / "00000001" / "progress.json").write_text("{}")
    moved = Config(Path("elsewhere"), Path("other/place"), 7, Inner(workers=4))
    assert folder.claim(moved, ("train.workers",), data="one") is False  # places and free options may change
    with pytest.raises(UserError, match=r"another configuration \(train.lr was 0.1, is 0.2\); choose another --run"):
        folder.claim(Config(train=Inner(lr=0.2)), ("train.workers",), data="one")
    with pytest.raises(UserError, match="another data; choose another --run"):
        folder.claim(Config(), ("train.workers",), data="two")
    with pytest.raises(UserError, match="another configuration"):
        folder.claim(Config(train=Inner(workers=1)), (), data="one")  # not free here
    (folder.path / "metrics.json").write_text("{}")
    assert folder.claim(Config(), ("train.workers",), data="one") is True


def test_a_run_of_an_earlier_version_goes_on_when_options_were_added_since(folder):
    assert folder.claim(Config(train=Inner(lr=0.3)), data="one") is False
    (folder.path / "metrics.json").write_text("{}")
    path = folder.path / "config.yaml"
    path.write_text(path.read_text().replace("  workers: 0\n", ""))
    assert folder.claim(Config(train=Inner(lr=0.3)), data="one") is True
    with pytest.raises(UserError, match=r"configuration \(train.workers was 0, is 1\)"):  # it had the default
        folder.claim(Config(train=Inner(lr=0.3, workers=1)), data="one")
    path.write_text(path.read_text() + "gone: 3\n")
    with pytest.raises(UserError, match=r"configuration \(gone was 3, is no option\)"):  # what it did is not known here
        folder.claim(Config(train=Inner(lr=0.3)), data="one")
    path.write_text("a: [")
    with pytest.raises(UserError, match=r"config.yaml: damaged configuration .*; choose another --run"):
        folder.claim(Config(train=Inner(lr=0.3)), data="one")
    path.unlink()
    with pytest.raises(UserError, match=r"config.yaml: no configuration here; choose another --run"):
        folder.claim(Config(train=Inner(lr=0.3)), data="one")


def test_what_was_logged_after_the_checkpoint_is_forgotten(folder):
    log = folder.path / "log.jsonl"
    lines = [json.dumps({"step": step, "epoch": 1}) for step in (0, 1, 2, 2, 3)]
    log.write_text("\n".join(lines) + '\n{"step": 4, "lo')
    folder._forget_after(2)
    assert log.read_text() == "".join(f"{line}\n" for line in lines[:4])
    folder.log(3, loss=0.5, note="text")
    last = json.loads(log.read_text().splitlines()[-1])
    assert last.pop("time") > 0 and last == {"step": 3, "loss": 0.5, "note": "text"}


def test_checkpoints_come_back_and_the_oldest_go(folder):
    accelerator = folder.accelerator
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    model, optimizer = accelerator.prepare(model, optimizer)
    assert folder.resume() is None and folder.latest() is None
    for step in (1, 2, 10):
        torch.nn.init.constant_(model.weight, step)
        folder.save({"step": step, "best": 0.5})
    torch.nn.init.constant_(model.weight, -1)
    assert sorted(path.name for path in (folder.path / "checkpoints").iterdir()) == ["00000002", "00000010"]
    (folder.path / "checkpoints" / "00000011").mkdir()  # of another program: without progress it is none
    assert folder.resume() == {"step": 10, "best": 0.5} and model.weight.tolist() == [[10, 10]]


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(folder, monkeypatch):
    model = folder.accelerator.prepare(torch.nn.Linear(2, 1))
    folder.save({"step": 1})
    torch.nn.init.constant_(model.weight, float("nan"))
    before = {path.name: path.read_bytes() for path in folder.latest().iterdir()}
    for error in (OSError("No space left on device"), RuntimeError("PytorchStreamWriter failed\nwriting file")):

        def fail(path, error=error):
            (Path(path) / "half").write_text("half")
            raise error

        monkeypatch.setattr(folder.accelerator, "save_state", fail)
        with pytest.raises(
            UserError, match=r"could not be written .*; make room .* it goes on from .*00000001"
        ) as caught:
            folder.save({"step": 2})
        assert "\n" not in str(caught.value)
        assert [path.name for path in (folder.path / "checkpoints").iterdir()] == ["00000001"]
    assert {path.name: path.read_bytes() for path in folder.latest().iterdir()} == before

    def lose(path):
        raise RuntimeError("gloo: Connection closed by peer")

    monkeypatch.setattr(folder.accelerator, "save_state", lose)
    with pytest.raises(RuntimeError, match="gloo"):  # not the disk: told elsewhere
        folder.save({"step": 2})


def test_damaged_progress_says_what_to_do(folder):
    folder.accelerator.prepare(torch.nn.Linear(2, 1))
    folder.save({"step": 1})
    (folder.latest() / "progress.json").write_text("{")
    with pytest.raises(UserError, match=r"damaged checkpoint .*delete this checkpoint folder"):
        folder.resume()


def test_average_by_hand():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    ema = Ema(model, 0.9)
    torch.nn.init.constant_(model.weight, 2.0)
    ema.update(model, 0)  # decay min(0.9, 1 / 10): 0.1 * 1 + 0.9 * 2
    assert ema.state_dict()["weight"].item() == pytest.approx(1.9)
    ema.update(model, 10**6)  # decay 0.9: 0.9 * 1.9 + 0.1 * 2
    assert ema.state_dict()["weight"].item() == pytest.approx(1.91)
    with ema.applied_to(model):
        assert model.weight.item() == pytest.approx(1.91)
    assert model.weight.item() == 2
    other = Ema(torch.nn.Linear(1, 1, bias=False), 0.9)
    other.load_state_dict(ema.state_dict())
    assert other.values["weight"].item() == pytest.approx(1.91)


def test_average_leaves_frozen_parameters_alone():
    model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False))
    model[0].requires_grad_(False)
    torch.nn.init.constant_(model[1].weight, 1.0)
    frozen, ema = model[0].weight.item(), Ema(model, 0.5)
    assert list(ema.state_dict()) == ["1.weight"]
    torch.nn.init.constant_(model[1].weight, 3.0)
    ema.update(model, 100)
    with ema.applied_to(model):
        assert (model[0].weight.item(), model[1].weight.item()) == (frozen, 2.0)
    assert (model[0].weight.item(), model[1].weight.item()) == (frozen, 3.0)


def test_schedule_and_seeds_by_hand():
    found = [cosine_with_warmup(step, 5, 2) for step in range(6)]  # cosines of 0, 60, 120 and 180 degrees
    assert found == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.25, 0.0])
    seed_everything("a", 1)
    one = torch.rand(3)
    seed_everything("a", 2)
    assert not torch.equal(one, torch.rand(3))
    seed_everything("a", 1)
    assert torch.equal(one, torch.rand(3))
