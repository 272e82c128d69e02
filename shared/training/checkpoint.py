"""The state of a training run on disk, without pickles: nothing in a checkpoint can run code when a run resumes.

model.safetensors        parameters and buffers
optimizer.safetensors    <parameter>/<value>, such as project.weight/exp_avg
<part>.safetensors       other state: averaged weights, the memory of the loss
scaler.json              the loss scale of fp16
progress.json            the progress of the run
checkpoint.json          written last: the digest of every other file
engine/                  DeepSpeed only: its own files. They are pickles; torch's weights-only loader reads only
                         tensors and plain values

A file holds full tensors, even if the run shards them, so that a run can resume with another number of processes.
Random state is not saved: trainers derive it from (seed, epoch, step).
"""

import contextlib
import json
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from shared.errors import UserError
from shared.files import digest, read_object, write_json
from shared.training.distributed import is_peer_failure
from shared.training.sharded import gather, scatter
from shared.training.weights import separate_tensors
from shared.training.weights_only import refusal, weights_only

if TYPE_CHECKING:
    from accelerate import Accelerator

FORMAT = "emit-checkpoint/1"
MANIFEST, PROGRESS, SCALER = "checkpoint.json", "progress.json", "scaler.json"
ENGINE = "engine"

P = TypeVar("P")


@dataclass
class TrainState:
    """The content of a checkpoint besides the progress."""

    accelerator: "Accelerator"
    wrapped: nn.Module
    """The model as returned by accelerator.prepare."""
    model: nn.Module
    """The same model before it was wrapped."""
    optimizer: torch.optim.Optimizer
    """As returned by accelerator.prepare."""
    parts: Mapping[str, nn.Module] = field(default_factory=dict)
    """{file name: part}."""

    @property
    def by_engine(self) -> bool:
        """Whether DeepSpeed saves and loads model and optimizer."""
        return str(self.accelerator.distributed_type).rpartition(".")[2] == "DEEPSPEED"


# --- writing ---------------------------------------------------------------------------------------------------------


def write(folder: Path, state: TrainState) -> None:
    """Write everything except progress and manifest; every process must call this. OSError or SafetensorError if it
    cannot be written."""
    is_main = state.accelerator.is_main_process
    if state.by_engine:
        state.wrapped.save_checkpoint(str(folder), ENGINE)  # type: ignore[operator]
    else:
        _save(folder / "model.safetensors", state.model.state_dict(), is_main)
        _save(folder / "optimizer.safetensors", _optimizer_tensors(state), is_main)
    for name, part in state.parts.items():
        _save(folder / f"{name}.safetensors", part.state_dict(), is_main)
    if is_main and state.accelerator.scaler is not None:
        write_json(folder / SCALER, state.accelerator.scaler.state_dict())


def complete(folder: Path, progress: Any) -> None:
    """Write progress and manifest, after `write` has returned in every process; the main process calls this."""
    write_json(folder / PROGRESS, asdict(progress))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {path.relative_to(folder).as_posix(): digest(path) for path in files}
    write_json(folder / MANIFEST, {"format": FORMAT, "files": digests})


def _save(path: Path, tensors: Mapping[str, Tensor], is_main: bool) -> None:
    whole = {}
    for name, value in tensors.items():
        value = gather(value.detach())
        if is_main:  # one by one, so that a device holds one full tensor at a time
            whole[name] = value.cpu()
    if is_main:
        save_file(separate_tensors(whole), path)


def _optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    tensors = {}
    for name, _, values in _optimizer_state(state):
        for key, value in values.items():
            if not isinstance(value, Tensor):
                raise UserError(f"the optimizer keeps {key} as {type(value).__name__}; checkpoints hold only tensors")
            tensors[f"{name}/{key}"] = value
    return tensors


class _Slot(NamedTuple):
    """One parameter of the optimizer: its name in the model, and what the optimizer keeps for it."""

    name: str
    parameter: Tensor
    values: dict[str, Any]


def _optimizer_state(state: TrainState) -> Iterator[_Slot]:
    """The parameters of the optimizer, in its order."""
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    for group in state.optimizer.param_groups:
        for parameter in group["params"]:
            yield _Slot(names[id(parameter)], parameter, state.optimizer.state.get(parameter, {}))


# --- reading ---------------------------------------------------------------------------------------------------------


def read(folder: Path, state: TrainState, progress_class: type[P], remedy: str) -> P:
    """Load a checkpoint into `state` and return its progress; every process must call this. UserError, ending with
    `remedy`, if it is damaged, from an earlier version, or from another model. Runs no code from it."""
    _check_files(folder, state, remedy)
    try:
        if state.by_engine:
            with weights_only(*_engine_classes()):  # it requests full pickles
                state.wrapped.load_checkpoint(str(folder), ENGINE)  # type: ignore[operator]
        else:
            _load(folder / "model.safetensors", state.model.state_dict())
            _load_optimizer(folder / "optimizer.safetensors", state)
        for name, part in state.parts.items():
            own = {key: torch.empty_like(value) for key, value in part.state_dict().items()}
            _load(folder / f"{name}.safetensors", own)
            part.load_state_dict(own)
        if state.accelerator.scaler is not None:
            state.accelerator.scaler.load_state_dict(_scaler_values(folder / SCALER, state, remedy))
        return _progress(read_object(folder / PROGRESS, "checkpoint", remedy), progress_class)
    except (OSError, RuntimeError, SafetensorError, _Damaged, pickle.UnpicklingError) as error:
        if is_peer_failure(error):
            raise
        raise UserError(f"{folder}: damaged checkpoint ({refusal(error)}); {remedy}") from None


def _engine_classes() -> list[Any]:
    """The classes in DeepSpeed's files besides tensors: two plain ones of its own."""
    with contextlib.suppress(ImportError):
        from deepspeed.runtime.fp16.loss_scaler import LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum

        return [LossScaler, ZeroStageEnum]
    return []


class _Damaged(ValueError):
    """A file does not fit the run; the message says which and how."""


def _check_files(folder: Path, state: TrainState, remedy: str) -> None:
    """UserError unless the folder is a complete checkpoint of this version with unchanged files."""
    if not (folder / MANIFEST).exists():
        raise UserError(
            f"{folder}: a checkpoint of an earlier version, which holds pickles: they are not loaded, because a pickle "
            "can run any code; choose another --run, or delete the folder `checkpoints` to start again"
        )
    manifest = read_object(folder / MANIFEST, "checkpoint", remedy)
    files = manifest.get("files")
    if manifest.get("format") != FORMAT or not isinstance(files, dict):
        raise UserError(f"{folder / MANIFEST}: damaged checkpoint (its format is not {FORMAT}); {remedy}")
    needed = [PROGRESS, *(f"{name}.safetensors" for name in state.parts)]
    needed += [] if state.by_engine else ["model.safetensors", "optimizer.safetensors"]
    needed += [SCALER] * (state.accelerator.scaler is not None)
    if state.by_engine:
        needed += [path.relative_to(folder).as_posix() for path in folder.glob(f"{ENGINE}/*")]
    for name in needed:
        path = folder / name
        try:
            intact = name in files and digest(path) == files[name]
        except OSError:
            raise UserError(f"{path}: missing in this checkpoint; {remedy}") from None
        if not intact:
            raise UserError(f"{path}: damaged checkpoint (it is not the file that was written); {remedy}")


def _load(path: Path, own: Mapping[str, Tensor]) -> None:
    """Copy the tensors of a file into `own`, which must have the same names, shapes and types."""
    with safe_open(path, "pt") as file, torch.no_grad():
        _compare_names(path, set(own), set(file.keys()))
        for name, value in own.items():
            loaded = file.get_tensor(name)
            if loaded.shape != value.shape or loaded.dtype != value.dtype:
                raise _Damaged(f"{path.name}: {name} is {_describe(loaded)}, not {_describe(value)}")
            value.copy_(scatter(loaded, value))


def _load_optimizer(path: Path, state: TrainState) -> None:
    slots = list(_optimizer_state(state))
    values: dict[int, dict[str, Tensor]] = {}
    with safe_open(path, "pt") as file:
        stored: dict[str, list[str]] = {}
        for full_name in file.keys():  # noqa: SIM118
            name, _, key = full_name.rpartition("/")
            stored.setdefault(name, []).append(key)
        _compare_names(path, set(stored) & {slot.name for slot in slots}, set(stored))
        if len({tuple(sorted(keys)) for keys in stored.values()}) > 1:
            raise _Damaged(f"{path.name}: it keeps different values for different parameters")
        for index, (name, parameter, _) in enumerate(slots):
            for key in stored.get(name, ()):
                loaded = file.get_tensor(f"{name}/{key}")
                if loaded.shape not in (parameter.shape, torch.Size()):
                    raise _Damaged(f"{path.name}: {name}/{key} is {_describe(loaded)}, not {_describe(parameter)}")
                same_shape = loaded.shape == parameter.shape
                values.setdefault(index, {})[key] = scatter(loaded, parameter) if same_shape else loaded
    content = state.optimizer.state_dict()
    state.optimizer.load_state_dict({**content, "state": values})


def _compare_names(path: Path, expected: set[str], found: set[str]) -> None:
    if expected != found:
        missing, unknown = sorted(expected - found), sorted(found - expected)
        first = f"{missing[0]} is missing" if missing else f"{unknown[0]} is not expected"
        raise _Damaged(f"{path.name}: {len(missing) + len(unknown)} values of another run, first: {first}")


def _describe(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def _progress(values: dict[str, Any], progress_class: type[P]) -> P:
    """The progress with these values, which must have the types of its defaults."""
    default = progress_class()
    for name, value in values.items():
        if not hasattr(default, name):
            raise _Damaged(f"{PROGRESS}: {name} is not expected")
        kind = type(getattr(default, name))
        if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
            raise _Damaged(f"{PROGRESS}: {name} is {json.dumps(value)[:40]}, not {kind.__name__}")
        if kind is int and value < 0:
            raise _Damaged(f"{PROGRESS}: {name} is {value}, below 0")
    return progress_class(**values)


def _scaler_values(path: Path, state: TrainState, remedy: str) -> dict[str, float]:
    values = read_object(path, "checkpoint", remedy)
    own = state.accelerator.scaler.state_dict()
    _compare_names(path, set(own), set(values))
    for name, value in values.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise _Damaged(f"{path.name}: {name} is {json.dumps(value)[:40]}, not a number")
    return values
