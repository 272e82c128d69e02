"""Starting and ending a process of a training run: Accelerate, precision, signals, lost companions."""

import atexit
import contextlib
import ctypes
import errno
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch
from safetensors import SafetensorError

from shared.errors import UserError
from shared.text import one_line

TRACKERS = ("tensorboard", "wandb", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab", "trackio")
PR_SET_PDEATHSIG = 1
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def start(mixed_precision: str, trackers: list[str] | None = None, folder: Path | None = None, minutes: float = 30.0):
    """An Accelerator on the GPUs there are, or else on the CPU.

    trackers: of Accelerate, writing to `folder`. minutes: after which a process that waits for a lost one gives up.
    UserError when the launcher was asked for several processes and started one (`accelerate launch --cpu
    --num_processes 2` does, silently), and when a tracker or an engine is not installed.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs, PartialState
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()  # a process that runs several commands: each has a precision of its own
    if mixed_precision == "auto":  # the launcher's word, where it gives one; else what the hardware is good at
        launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        mixed_precision = launcher if launcher in ("bf16", "fp16") else "bf16" if fast_bf16() else "no"
    if mixed_precision == "fp16" and not torch.cuda.is_available():
        raise UserError("--train.mixed_precision fp16 needs a GPU; use bf16, or no")
    sharding, deepspeed = _sharding(), os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    if deepspeed and not torch.cuda.is_available():  # Accelerate passes over it on a CPU, unless that is settled before
        PartialState(cpu=True, timeout=timedelta(minutes=minutes))
    try:
        accelerator = Accelerator(
            cpu=not torch.cuda.is_available() and not deepspeed,
            mixed_precision="no" if deepspeed else mixed_precision,
            log_with=_installed(trackers or []) or None,
            project_dir=folder,
            fsdp_plugin=sharding,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(minutes=minutes))],
        )
    except ImportError as error:  # DeepSpeed and other engines that a launcher's configuration asks for
        raise UserError(f"{one_line(error)}; install it, or launch with another configuration") from None
    _shard_on_cpu(accelerator, sharding)
    if accelerator.state.deepspeed_plugin:
        accelerator.state.deepspeed_plugin.deepspeed_config |= _deepspeed(mixed_precision)
    asked = _processes_asked_for()
    if accelerator.num_processes == 1 and asked > 1:
        raise UserError(
            f"{asked} processes were asked for but one was started: on a CPU use "
            "`accelerate launch --config_file accelerate_configs/cpu_2_processes.yaml ...`"
        )
    accelerator.wait_for_everyone()  # one that refuses what it is given and ends would leave the others connecting
    return accelerator


def _sharding():
    """Accelerate's plugin for FSDP2, where the launcher asks for it, else None.

    Parameters stay in full precision, and autocast picks what is computed in less: Accelerate would cast all of them,
    and whatever the model is given, and with them sound and temperatures."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return None
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise UserError("FSDP 1 is not supported: set fsdp_version: 2, as accelerate_configs/fsdp2.yaml does")
    from accelerate import FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import MixedPrecisionPolicy

    return FullyShardedDataParallelPlugin(mixed_precision_policy=MixedPrecisionPolicy())


def _deepspeed(mixed_precision: str) -> dict:
    """Settings of DeepSpeed that a launcher's configuration cannot give.

    Its own mixed precision would cast all parameters, with them temperatures and filters, but not what the model is
    given; its autocast leaves them in full precision, and exchanges gradients in it."""
    settings: dict = {"train_micro_batch_size_per_gpu": 1}  # it asks, since it is given no loader, and uses it nowhere
    if mixed_precision != "no":
        dtype = {"bf16": "bfloat16", "fp16": "float16"}[mixed_precision]
        settings["torch_autocast"] = {"enabled": True, "dtype": dtype, "lower_precision_safe_modules": []}
    return settings


def _shard_on_cpu(accelerator, plugin) -> None:
    """On a CPU, Accelerate passes over FSDP and would start DistributedDataParallel."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    if plugin and accelerator.distributed_type == DistributedType.MULTI_CPU:
        accelerator.state.fsdp_plugin = plugin
        accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP


def fast_bf16() -> bool:
    """Whether this machine multiplies bf16 matrices in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    check = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(check and check())


class Stop:
    """Whether somebody asked this process to end (SIGTERM, as a scheduler sends before it kills).

    >>> with Stop() as stop:
    ...     for step in range(10):
    ...         if stop.asked:
    ...             break
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "Stop":
        with contextlib.suppress(ValueError):  # only the main thread may listen
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_) -> None:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, getattr(self, "_before", signal.SIG_DFL))

    def _note(self, *_) -> None:
        self.asked = True


class Loader(torch.utils.data.DataLoader):
    """A DataLoader whose processes leave a SIGTERM to the one that reads: a scheduler sends it to all of them."""

    def __init__(self, dataset, **options):
        super().__init__(dataset, worker_init_fn=_start_worker, **options)

    def __iter__(self):
        if not self.num_workers:
            return super().__iter__()
        import cv2

        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # processes inherit it until they ignore it
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # ends OpenCV's threads: a fork has none of them, and would wait for them for ever
        try:
            return super().__iter__()
        finally:
            cv2.setNumThreads(threads)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start_worker(worker: int) -> None:
    """What a loader's process does first."""
    if sys.platform == "linux":  # what nobody will read any more must not wait for its reader for ever
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    import cv2

    cv2.setNumThreads(1)  # OpenCV's threads would fight the other workers for the cores
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # who reads ends them
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


@atexit.register  # after torch was imported, so before multiprocessing waits for what ignores its SIGTERM
def _end_workers() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would report their end as a failure
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


@contextlib.contextmanager
def companions(run: Path) -> Iterator[None]:
    """What no process can help, in one line: another process was lost, or waited for too long; the disk is full."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        said = str(error)
        if getattr(error, "errno", None) in FULL or any(os.strerror(number) in said for number in FULL):
            raise UserError(f"{run}: {said}; make room and run the same command again to go on") from None
        raise
    except RuntimeError as error:
        if lost_companion(error):
            reason = one_line(error)[-160:]
            raise UserError(
                f"{run}: another process of this run was lost ({reason}); "
                "run the same command again to go on from the last checkpoint"
            ) from None
        raise


def lost_companion(error: Exception) -> bool:
    """Whether an error says that another process of the group is gone: gloo says so bare, NCCL in its own class."""
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in str(error) or "Timed out" in str(error))
    )


def _installed(trackers: list[str]) -> list[str]:
    from accelerate.tracking import get_available_trackers

    from shared.registry import nearest

    here = [str(getattr(tracker, "value", tracker)) for tracker in get_available_trackers()]
    for name in trackers:
        if name not in TRACKERS:
            raise UserError(f"no tracker called {name!r}: {nearest(name, TRACKERS)}")
        if name not in here:
            raise UserError(f"the tracker {name} is not installed: install it, or leave it out of --train.trackers")
    return trackers


def _processes_asked_for() -> int:
    """The process count in the command line of the `accelerate launch` that is our parent; 1 when there is none."""
    import psutil
    import yaml

    with contextlib.suppress(psutil.Error, OSError):
        words = psutil.Process().parent().cmdline()
        script = "launch" in words and any(Path(word).name == "accelerate" for word in words)
        if not script and "accelerate.commands.launch" not in words:
            return 1
        for name, following in zip(words, [*words[1:], ""], strict=True):
            key, _, value = name.partition("=")
            value = value or following
            if key in ("--num_processes", "--num-processes") and value.isdigit():
                return int(value)
            if key in ("--config_file", "--config-file") and Path(value).is_file():
                return int((yaml.safe_load(Path(value).read_text()) or {}).get("num_processes") or 1)
    return 1
