"""Published audio weights, files of laion_clap and folders of transformers, read without running what a pickle says."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shared.errors import UserError
from shared.text import one_line

# Of the tagging head and the Fourier transform, which no tower of ours uses.
UNUSED = ("spectrogram_extractor.", "tscam_conv.", "head.")


def read_weights(path: str | Path) -> dict[str, Any]:
    """The dictionary in a .safetensors file or a torch pickle; UserError where it needs more than weights to load."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; download the checkpoint first and give its path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_numpy_scalars()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        needs = " ".join(str(error).split("WeightsUnpickler error:")[-1].split())[:120]
        raise UserError(
            f"{path}: this pickle holds more than weights ({needs}); save its state_dict as .safetensors and give that"
        ) from None
    except (OSError, RuntimeError, EOFError, SafetensorError) as error:
        raise UserError(f"{path}: damaged ({one_line(error, 120)}); download it again") from None


def _numpy_scalars() -> list:
    """LAION's files keep a metric beside the weights, as a numpy number: plain data, under the names numpy 1 and 2 give
    its constructor."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in ("float64", "float32", "int64")]
    return [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")] + [np.dtype, *kinds]


def read_laion(path: str | Path) -> dict[str, Tensor]:
    """State of a laion_clap checkpoint (`state_dict` or bare), keys without the `module.` of its training."""
    state = read_weights(path)
    state = state.get("state_dict", state)
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_part(module: nn.Module, state: dict[str, Tensor], prefix: str, path: str | Path, hint: str = "") -> None:
    """Load the entries of `state` under `prefix` into `module`, every one of them and no other; UserError names the
    first few that differ."""
    part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    part = {name: value for name, value in part.items() if not name.startswith(UNUSED)}
    if not part:
        raise UserError(f"{path}: no {prefix}* in it; a checkpoint of laion_clap is expected here")
    own = {name: value for name, value in module.state_dict().items() if not name.startswith(UNUSED)}
    missing = [f"{name} is missing" for name in own if name not in part]
    unexpected = [f"{name} is not expected" for name in part if name not in own]
    shapes = [
        f"{name} is {tuple(part[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in part and part[name].shape != own[name].shape
    ]
    wrong = shapes + missing + unexpected
    if wrong:
        raise UserError(f"{path}: {len(wrong)} weights do not fit, first {'; '.join(wrong[:3])}{hint}")
    module.load_state_dict(part, strict=False)


def load_folder(model_class: type, folder: str | Path, config: Any) -> nn.Module:
    """A model of transformers from a local folder, in float32, nothing missing; what else is in the file is left."""
    from safetensors import SafetensorError
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()  # it would list each weight of the parts that are left, of a text encoder for example
    try:
        model, info = model_class.from_pretrained(
            folder, config=config, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, RuntimeError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(f"{folder}: cannot be loaded ({one_line(error, 200)})") from None
    finally:
        logging.set_verbosity(before)
    # The vector for masking in pretraining: not every file has it, and no tower uses it.
    missing = sorted(name for name in info["missing_keys"] if not name.endswith("masked_spec_embed"))
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} weights are missing, first {', '.join(missing[:3])}; "
            f"does config.json belong to these weights?"
        )
    return model


def folder_config(folder: str | Path) -> Any:
    """The configuration in a local folder of transformers."""
    from transformers import AutoConfig

    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"{folder}: no config.json here; give a local folder that transformers saved or downloaded")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}/config.json: {one_line(error, 200)}") from None


def plain(config: Any) -> dict:
    """Every field of a transformers configuration, so that a later version's defaults change nothing."""
    leave = ("transformers_version", "architectures", "dtype", "torch_dtype", "model_type", "_name_or_path")
    return {name: value for name, value in config.to_dict().items() if name not in leave}
