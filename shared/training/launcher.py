"""Which settings of `accelerate launch` and of environment variables are used, and which are refused.

Used: the processes, the engine (FSDP2, DeepSpeed) with its settings, and the precision if an option is `auto`.
Everything else comes from the options. A variable that would make Accelerate change results silently is refused.
"""

import os
import sys

from shared.errors import UserError

PRECISIONS = ("no", "bf16", "fp16")
SWITCHES = ("1", "0", "true", "false", "yes", "no", "on", "off", "y", "n", "t", "f")
"""Values that Accelerate reads as true or false; it raises ValueError for others."""

NEUTRAL = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (
        ("1", "auto"),
        "gradients are not accumulated over steps: --train.batch_size counts all clips of a step",
    ),
    "ACCELERATE_DYNAMO_BACKEND": (("no",), "compilation is the option --train.compile of stage 1"),
    "ACCELERATE_USE_MEGATRON_LM": (("false",), "Megatron-LM is not supported"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": (("false",), "parallelism within a model is not supported"),
    "ACCELERATE_USE_FSDP": (("true", "false"), "write true or false"),
    "ACCELERATE_USE_DEEPSPEED": (("true", "false"), "write true or false"),
    "ACCELERATE_USE_CPU": (SWITCHES, "write true or false"),
    "ACCELERATE_DEBUG_MODE": (SWITCHES, "write true or false"),
    "ACCELERATE_MIXED_PRECISION": (PRECISIONS, "supported are no, bf16 and fp16"),
}
"""{variable: (accepted values, message for others)}. An empty variable counts as not set."""

NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")

GROUP = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables that every launcher sets in each of several processes."""


def check_environment() -> None:
    """UserError for the first variable that requests something EMIT does not support."""
    for name, (values, why) in NEUTRAL.items():
        value = os.environ.get(name, "")
        if value and value.lower() not in values:
            raise UserError(f"{name}={value} in the environment or the launcher's configuration: {why}; remove it")
    for name in NUMBERS:
        value = os.environ.get(name, "0")
        if not (value.isascii() and value.removeprefix("-").isdigit()):
            raise UserError(f"{name}={value} in the environment: not a whole number; remove it")
    _check_group()
    _check_device()


def _check_group() -> None:
    """UserError for one of several processes that cannot find the others: it would fail or wait forever."""
    import torch

    ranks = {name: int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", "1"), ("LOCAL_RANK", "-1"))}
    name = "WORLD_SIZE" if ranks["WORLD_SIZE"] > 1 else "LOCAL_RANK"
    if ranks["WORLD_SIZE"] <= 1 and (ranks["LOCAL_RANK"] < 0 or not torch.cuda.is_available()):
        return
    missing = [needed for needed in GROUP if not os.environ.get(needed)]
    if missing:
        raise UserError(
            f"{name}={ranks[name]} in the environment without {', '.join(missing)}: only a launcher starts one of "
            "several processes; use `accelerate launch`, or for one process; remove it"
        )
    rank, world = int(os.environ["RANK"]), ranks["WORLD_SIZE"]
    if not 0 <= rank < world:
        raise UserError(f"RANK={rank} in the environment: not one of the {world} processes of WORLD_SIZE; remove it")


def _check_device() -> None:
    """UserError for a device that Accelerate would take from the environment but that does not exist."""
    value = os.environ.get("ACCELERATE_TORCH_DEVICE")
    if value is None:
        return
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = ["cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    if value not in devices:
        raise UserError(
            f"ACCELERATE_TORCH_DEVICE={value} in the environment: the devices here are {', '.join(devices)}; remove it"
        )


def launcher_precision() -> str | None:
    """The launcher's precision: no, bf16 or fp16; None outside a launcher."""
    return os.environ.get("ACCELERATE_MIXED_PRECISION", "").lower() or None


def choose_precision(option: str, value: str, supported: tuple[str, ...], otherwise: str) -> str:
    """The precision of a run: the option's; with auto, the launcher's; without a launcher, `otherwise`. Prints a line
    if it differs from the launcher's.

    option: name of the option, for messages. supported: precisions of this command."""
    launcher = launcher_precision()
    chosen = value
    if value == "auto":
        chosen = launcher if launcher in supported else otherwise
    if launcher not in (None, "no", chosen) and os.environ.get("RANK", "0") == "0":
        reason = f"{option} is {value}" if value != "auto" else f"{launcher} is not supported here"
        sys.stderr.write(f"note: the launcher says {launcher}, but the precision is {chosen}: {reason}\n")
    return chosen
