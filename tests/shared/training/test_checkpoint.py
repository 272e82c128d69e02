"""Checkpoints: exact, and nothing in them runs code or is believed unseen."""

import json
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from helpers.pickled_code import Code, plant
from safetensors.torch import load_file, save_file
from torch import nn

from shared.errors import UserError
from shared.files import digest
from shared.training import checkpoint
from shared.training.checkpoint import TrainState
from shared.training.ema import Ema
from shared.training.run_folder import Progress


@dataclass
class Scored(Progress):
    """Progress of a trainer."""

    best: float = -float("inf")
    metrics: dict[str, Any] = field(default_factory=dict)


class Run:
    """A small run: frozen and tied parameters, a norm, buffers, averaged weights, a memory, and a loss scale."""

    def __init__(self, scaler: bool = False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 4))
        model[2].weight = model[0].weight
        model[3].requires_grad_(False)
        model.register_buffer("empty", torch.zeros(0, 3))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW([{"params": trained[:1]}, {"params": trained[1:], "lr": 0.1}], fused=True)
        accelerator = Accelerator(cpu=True)
        wrapped, optimizer = accelerator.prepare(model, optimizer)
        memory = nn.Module()
        memory.register_buffer("labels", torch.full((3,), torch.nan))
        parts = {"averages": Ema(model, 0.9), "loss": memory}
        self.state = TrainState(accelerator, wrapped, model, optimizer, parts)
        if scaler:
            accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**9)
            accelerator.scaler.scale(torch.ones(1))  # the first call sets it up

    def step(self, number: int) -> None:
        torch.manual_seed(number)
        self.state.wrapped(torch.randn(8, 4)).square().sum().backward()
        self.state.optimizer.step()
        self.state.optimizer.zero_grad()
        self.state.parts["averages"].update(self.state.model, number)
        self.state.parts["loss"].labels[number % 3] = number

    def save(self, folder: Path, progress: Progress | None = None) -> Path:
        folder.mkdir(parents=True)
        checkpoint.write(folder, self.state)
        checkpoint.complete(folder, progress or Scored(step=3, metrics={"pcc": None, "names": ["1e3", "true"]}))
        return folder

    def read(self, folder: Path) -> Scored:
        return checkpoint.read(folder, self.state, Scored, "delete it")

    def values(self) -> list[torch.Tensor]:
        moments = [value for moments in self.state.optimizer.state.values() for _, value in sorted(moments.items())]
        parts = [value for part in self.state.parts.values() for value in part.state_dict().values()]
        return [value.detach().clone() for value in (*self.state.model.state_dict().values(), *moments, *parts)]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    pairs = zip(a, b, strict=True)
    return all(x.dtype == y.dtype and torch.equal(x.nan_to_num(-1), y.nan_to_num(-1)) for x, y in pairs)


def forge(folder: Path) -> None:
    """Make the manifest agree with the files, as somebody who means harm would."""
    files = {name: digest(folder / name) for name in json.loads((folder / "checkpoint.json").read_text())["files"]}
    (folder / "checkpoint.json").write_text(json.dumps({"format": checkpoint.FORMAT, "files": files}))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    run = Run()
    run.step(0)
    return run.save(tmp_path / "saved")


def refused(folder: Path) -> str:
    run = Run()
    with pytest.raises(UserError) as caught:
        run.read(folder)
    assert "\n" not in str(caught.value) and "delete" in str(caught.value)
    return str(caught.value)


def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path: Path):
    whole, resumed = Run(), Run()
    for number in range(3):
        whole.step(number)
    folder = whole.save(tmp_path / "checkpoint")
    kinds = {path.suffix for path in folder.rglob("*")}
    assert kinds == {".safetensors", ".json"}
    progress = resumed.read(folder)
    assert progress == Scored(step=3, metrics={"pcc": None, "names": ["1e3", "true"]})
    assert equal(resumed.values(), whole.values())
    assert resumed.state.model[2].weight is resumed.state.model[0].weight
    for number in range(3, 6):
        whole.step(number)
        resumed.step(number)
    assert equal(resumed.values(), whole.values())


def test_run_before_its_first_step_is_restored(tmp_path: Path):
    """The optimizer has no state yet."""
    folder, run = Run().save(tmp_path / "checkpoint"), Run()
    run.step(0)
    run.read(folder)
    assert equal(run.values(), Run().values())


def test_loss_scale_is_restored(tmp_path: Path):
    run = Run(scaler=True)
    folder = run.save(tmp_path / "checkpoint")
    other = Run(scaler=True)
    other.state.accelerator.scaler.update(4.0)
    other.read(folder)
    assert other.state.accelerator.scaler.get_scale() == 2.0**9
    for values in ({"scale": 1}, {**run.state.accelerator.scaler.state_dict(), "scale": "x"}, []):
        (folder / "scaler.json").write_text(json.dumps(values))
        forge(folder)
        with pytest.raises(UserError, match=r"scaler.json.*delete it"):
            Run(scaler=True).read(folder)


def test_code_beside_a_checkpoint_is_not_executed(saved: Path, tmp_path: Path):
    plant(saved, tmp_path / "executed")
    assert Run().read(saved).step == 3
    (saved / "checkpoint.json").unlink()  # as an earlier version wrote it
    message = refused(saved)
    assert "earlier version, which holds pickles" in message and "choose another --run" in message
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("dump", [pickle.dump, torch.save])
@pytest.mark.parametrize("name", ["model", "optimizer", "averages", "loss", "progress", "checkpoint"])
def test_code_in_a_file_of_a_checkpoint_is_not_executed(saved: Path, tmp_path: Path, dump: Any, name: str):
    (path,) = saved.glob(f"{name}.*")
    with path.open("wb") as file:
        dump(Code(tmp_path / "executed"), file)
    assert name in refused(saved)
    if name != "checkpoint":
        forge(saved)
        assert "damaged checkpoint" in refused(saved)
    assert not (tmp_path / "executed").exists()
    with path.open("rb") as file:
        torch.load(file, weights_only=False) if dump is torch.save else pickle.load(file)
    assert (tmp_path / "executed").exists()  # plain pickle executes it


@pytest.mark.parametrize("name", ["model", "optimizer", "averages", "loss", "progress", "checkpoint"])
def test_damaged_file_is_one_line_and_never_loaded(saved: Path, name: str):
    (path,) = saved.glob(f"{name}.*")
    whole = path.read_bytes()
    damage = {
        "cut": whole[:-3],
        "empty": b"",
        "one bit of the last value": whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:],
        "one bit of the start": bytes([whole[0] ^ 1]) + whole[1:],
        "longer": whole + b"\0",
    }
    for content in damage.values():
        path.write_bytes(content)
        assert name in refused(saved)
    path.unlink()
    assert refused(saved)
    path.write_bytes(whole)
    assert Run().read(saved).step == 3


CONTENTS = {
    "a tensor is missing": ("model", lambda t: t.pop("0.weight"), "0.weight is missing"),
    "another tensor": ("model", lambda t: t.update(x=torch.ones(1)), "x is not expected"),
    "another shape": ("model", lambda t: t.update({"0.bias": torch.ones(5)}), r"float32 \(5,\), not float32 \(4,\)"),
    "another type": ("model", lambda t: t.update({"0.bias": torch.ones(4).half()}), "float16 .*, not float32"),
    "moments of nothing": ("optimizer", lambda t: t.update({"x/step": torch.ones(())}), "x is not expected"),
    "moments of a frozen parameter": (
        "optimizer",
        lambda t: t.update({"3.bias/step": torch.ones(())}),
        "3.bias is not",
    ),
    "one moment": ("optimizer", lambda t: t.pop("0.bias/exp_avg"), "different values for different parameters"),
    "a moment's shape": ("optimizer", lambda t: t.update({"0.bias/exp_avg": torch.ones(5)}), "0.bias/exp_avg is"),
    "averages": ("averages", lambda t: t.pop("0.bias"), "0.bias is missing"),
    "memory": ("loss", lambda t: t.update(labels=torch.ones(2)), "labels is"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_file_of_another_run_is_one_line(saved: Path, case: str):
    name, change, message = CONTENTS[case]
    tensors = load_file(saved / f"{name}.safetensors")
    change(tensors)
    save_file(tensors, saved / f"{name}.safetensors")
    forge(saved)
    run = Run()
    with pytest.raises(UserError, match=rf"damaged checkpoint \({name}.safetensors: .*{message}.*; delete it"):
        run.read(saved)


@pytest.mark.parametrize(
    "values",
    [
        *({"step": "1"}, {"step": 1.5}, {"step": True}, {"step": None}, {"step": -1}, {"best": "x"}, {"metrics": []}),
        *({"stage": 3}, [], 3),
    ],
)
def test_progress_of_other_types_is_one_line(saved: Path, values: Any):
    (saved / "progress.json").write_text(json.dumps(values))
    forge(saved)
    assert "progress.json" in refused(saved)


@pytest.mark.parametrize("values", [[], {}, {"format": "x", "files": {}}, {"format": checkpoint.FORMAT, "files": []}])
def test_manifest_of_another_form_is_one_line(saved: Path, values: Any):
    (saved / "checkpoint.json").write_text(json.dumps(values))
    assert "checkpoint.json: damaged checkpoint" in refused(saved)


class Engine(nn.Module):
    """DeepSpeed's saving and loading: all pickles are welcome."""

    content: Any = None

    def save_checkpoint(self, folder: str, tag: str) -> None:
        (Path(folder) / tag).mkdir()
        torch.save(self.content, Path(folder) / tag / "mp_rank_00_model_states.pt")

    def load_checkpoint(self, folder: str, tag: str) -> None:
        self.content = torch.load(Path(folder) / tag / "mp_rank_00_model_states.pt", weights_only=False)


def test_engine_loads_tensors_and_executes_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TrainState, "by_engine", True)
    run = Run()
    run.state.wrapped = Engine()
    for name, content in (("tensors", {"module": {"weight": torch.ones(2)}}), ("code", Code(tmp_path / "executed"))):
        run.state.wrapped.content = content
        run.save(tmp_path / name)
    run.read(tmp_path / "tensors")
    assert run.state.wrapped.content["module"]["weight"].tolist() == [1, 1]
    with pytest.raises(
        UserError, match=r"damaged checkpoint \(it holds more than weights: posix.mkdir\); delete it"
    ) as caught:
        run.read(tmp_path / "code")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists() and "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
