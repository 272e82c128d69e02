"""Starting an Accelerator in each process of a run, and reporting what ends all of them: a lost peer, a full disk."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from shared.errors import UserError, disk_full
from shared.locks import hold, release
from shared.options.yaml_files import read_yaml
from shared.registry import nearest
from shared.text import one_line
from shared.training.launcher import check_environment
from shared.training.precision import resolve_precision

if TYPE_CHECKING:
    from accelerate import Accelerator, FullyShardedDataParallelPlugin

TRACKERS = ("tensorboard", "wandb", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab", "trackio")


def start_accelerator(
    mixed_precision: str,
    trackers: Sequence[str] = (),
    folder: Path | None = None,
    timeout_minutes: float = 30.0,
    option: str = "--train.mixed_precision",
) -> "Accelerator":
    """An Accelerator on the available GPUs, otherwise on the CPU.

    option: the option that `mixed_precision` comes from; "" if the caller has resolved it. trackers: names known to
    Accelerate; they write to `folder`. timeout_minutes: a process stops waiting for the others after this time.
    UserError if the launcher was asked for several processes but started one (`accelerate launch --cpu --num_processes
    2` does that silently), if a tracker or an engine is not installed, and if an environment variable requests
    something that EMIT does not support (launcher.py).
    """
    from accelerate import Accelerator, InitProcessGroupKwargs, PartialState
    from accelerate.state import AcceleratorState
    from accelerate.utils import GradientAccumulationPlugin

    AcceleratorState._reset_state()  # one process may run several commands with different precisions
    timeout = timedelta(minutes=timeout_minutes)
    check_environment()
    precision = resolve_precision(option, mixed_precision) if option else mixed_precision
    fsdp, deepspeed = _fsdp_plugin(), os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    if deepspeed and not torch.cuda.is_available():  # on a CPU, Accelerate ignores DeepSpeed unless this comes first
        PartialState(cpu=True, timeout=timeout)
    try:
        accelerator = Accelerator(
            cpu=not torch.cuda.is_available() and not deepspeed,
            mixed_precision="no" if deepspeed else precision,
            log_with=_check_trackers(trackers) or None,
            project_dir=folder,
            fsdp_plugin=fsdp,
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout)],
        )
    except ImportError as error:  # DeepSpeed, or another engine in the launcher's configuration
        raise UserError(f"{one_line(error)}; install it, or launch with another configuration") from None
    _enable_fsdp_on_cpu(accelerator, fsdp)
    if accelerator.state.deepspeed_plugin:
        accelerator.state.deepspeed_plugin.deepspeed_config |= _deepspeed_settings(precision)
    requested = _requested_processes()
    if accelerator.num_processes == 1 and requested > 1:
        raise UserError(
            f"{requested} processes were asked for but one was started: on a CPU use "
            "`accelerate launch --config_file accelerate_configs/cpu_2_processes.yaml ...`"
        )
    accelerator.wait_for_everyone()  # so that no process fails while others are still connecting
    return accelerator


def set_precision(accelerator: "Accelerator", precision: str) -> None:
    """Set the precision, no or bf16, of an Accelerator that has prepared nothing yet: it is created before the model
    that determines the precision."""
    accelerator.state._mixed_precision = precision
    accelerator.native_amp = precision != "no"


# --- sharding engines ------------------------------------------------------------------------------------------------


def _fsdp_plugin() -> "FullyShardedDataParallelPlugin | None":
    """Accelerate's plugin for FSDP2 if the launcher requests it.

    Parameters stay in full precision, and autocast chooses what runs in lower precision: Accelerate's default would
    cast all parameters and inputs, including temperatures and waveforms."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return None
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise UserError("FSDP 1 is not supported: set fsdp_version: 2, as accelerate_configs/fsdp2.yaml does")
    from accelerate import FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import MixedPrecisionPolicy

    return FullyShardedDataParallelPlugin(mixed_precision_policy=MixedPrecisionPolicy())


def _enable_fsdp_on_cpu(accelerator: "Accelerator", plugin: "FullyShardedDataParallelPlugin | None") -> None:
    """On a CPU, Accelerate ignores FSDP and would start DistributedDataParallel."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    if plugin and accelerator.distributed_type == DistributedType.MULTI_CPU:
        accelerator.state.fsdp_plugin = plugin
        accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP


def _deepspeed_settings(precision: str) -> dict[str, Any]:
    """Settings of DeepSpeed that a launcher's configuration cannot give.

    DeepSpeed's mixed precision would cast all parameters, including temperatures and filter banks, but not the inputs;
    its autocast keeps parameters, and the exchange of gradients, in full precision."""
    settings: dict[str, Any] = {"train_micro_batch_size_per_gpu": 1}  # required without a DeepSpeed loader, but unused
    if precision != "no":
        dtype = {"bf16": "bfloat16", "fp16": "float16"}[precision]
        settings["torch_autocast"] = {"enabled": True, "dtype": dtype, "lower_precision_safe_modules": []}
    return settings


def any_process(accelerator: "Accelerator", flag: bool) -> bool:
    """Whether `flag` is True in any process; every process must call this."""
    count = accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum")  # ()
    return count.item() > 0


def hold_together(accelerator: "Accelerator", folder: Path, shown: Path) -> None:
    """Take the lock of a folder for all processes of this run; every process must call this. UserError in every process
    if a process outside the run holds it."""
    from accelerate.utils import broadcast_object_list

    problems: list[str | None] = [None]
    if accelerator.is_main_process:
        try:
            hold(folder, shown)
        except UserError as error:
            problems = [str(error)]
    if accelerator.num_processes > 1:
        broadcast_object_list(problems)
    if problems[0]:
        raise UserError(problems[0])


# --- errors that end a run from outside ------------------------------------------------------------------------------


@contextlib.contextmanager
def peer_failure_guard(run: Path, locked: Path | None = None) -> Iterator[None]:
    """Report external failures in one line: a peer that was lost or timed out, and a full disk. At the end, release the
    locks of the folder `locked`, by default the run folder."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if reason := disk_full(error):
            raise UserError(f"{run}: {reason}; make room and run the same command again to continue") from None
        raise
    except RuntimeError as error:
        if is_peer_failure(error):
            reason = one_line(error)[-160:]
            raise UserError(
                f"{run}: another process of this run was lost ({reason}); "
                "run the same command again to continue from the last checkpoint"
            ) from None
        raise
    finally:
        release(locked or run)


def is_peer_failure(error: Exception) -> bool:
    """Whether an error means that another process of the group is gone. NCCL has an exception class for this; gloo
    raises a plain RuntimeError."""
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in str(error) or "Timed out" in str(error))
    )


# --- checks ----------------------------------------------------------------------------------------------------------


def _check_trackers(trackers: Sequence[str]) -> list[str]:
    from accelerate.tracking import get_available_trackers

    installed = [str(getattr(tracker, "value", tracker)) for tracker in get_available_trackers()]
    for name in trackers:
        if name not in TRACKERS:
            raise UserError(f"no tracker called {name!r}: {nearest(name, TRACKERS)}")
        if name not in installed:
            raise UserError(f"the tracker {name} is not installed: install it, or leave it out of --train.trackers")
    return list(trackers)


def _requested_processes() -> int:
    """Number of processes in the command line of the parent `accelerate launch`; 1 without one."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError, UserError):  # the launcher itself reports a damaged file
        parent = psutil.Process().parent()
        command = parent.cmdline() if parent else []
        is_script = "launch" in command and any(Path(word).name == "accelerate" for word in command)
        if not is_script and "accelerate.commands.launch" not in command:
            return 1
        for word, next_word in zip(command, [*command[1:], ""], strict=True):
            option, _, value = word.partition("=")
            value = value or next_word
            if option in ("--num_processes", "--num-processes") and value.isdigit():
                return int(value)
            if option in ("--config_file", "--config-file") and Path(value).is_file():
                return int((read_yaml(Path(value)) or {}).get("num_processes") or 1)
    return 1
