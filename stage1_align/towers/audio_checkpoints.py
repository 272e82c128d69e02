"""Published audio weights: files of laion_clap and folders of transformers, loaded without running pickled code."""

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shared.errors import UserError
from shared.files import read_object
from shared.text import one_line
from shared.training.weights_only import refusal, weights_only
from stage1_align.towers.loaded_weights import check_loaded
from stage1_align.towers.transformers_config import check_published

UNUSED = ("spectrogram_extractor.", "tscam_conv.", "head.")
"""Weights of the Fourier transform and the tagging head, which the towers do not use."""
PUBLISHED = "give a folder saved by transformers, not one converted for another program"


def read_weights(path: str | Path) -> dict[str, Any]:
    """The dictionary in a .safetensors file or a torch pickle; UserError if the pickle contains more than weights."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; download the checkpoint first and give its path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with weights_only(*_numpy_scalars()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: {refusal(error)}; save its state_dict as .safetensors and give that") from None
    except (OSError, RuntimeError, EOFError, SafetensorError) as error:
        raise UserError(f"{path}: damaged ({one_line(error, 120)}); download it again") from None


def _numpy_scalars() -> list:
    """Safe globals for the NumPy number (a metric) that LAION's files contain besides the weights, under the names of
    its constructor in NumPy 1 and 2."""
    scalar: Any = np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(kind)) for kind in ("float64", "float32", "int64")]
    return [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")] + [np.dtype, *dtypes]


def read_laion(path: str | Path) -> dict[str, Tensor]:
    """The state dictionary of a laion_clap checkpoint, nested or bare, without the `module.` prefix of its training."""
    state = read_weights(path)
    state = state.get("state_dict", state)
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_prefix(module: nn.Module, state: dict[str, Tensor], prefix: str, path: str | Path, hint: str = "") -> None:
    """Load all entries of `state` under `prefix` into `module`; UserError names the first ones that are missing,
    unexpected or of another shape."""
    part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    part = {name: value for name, value in part.items() if not name.startswith(UNUSED)}
    if not part:
        raise UserError(f"{path}: has no weights called {prefix}*; expected a checkpoint of laion_clap")
    expected = {name: value for name, value in module.state_dict().items() if not name.startswith(UNUSED)}
    missing = [f"{name} is missing" for name in expected if name not in part]
    unexpected = [f"{name} is not expected" for name in part if name not in expected]
    shapes = [
        f"{name} is {tuple(part[name].shape)}, not {tuple(expected[name].shape)}"
        for name in expected
        if name in part and part[name].shape != expected[name].shape
    ]
    wrong = shapes + missing + unexpected
    if wrong:
        raise UserError(f"{path}: {len(wrong)} weights do not fit, first {'; '.join(wrong[:3])}{hint}")
    module.load_state_dict(part, strict=False)


def load_folder(
    model_class: Any,
    folder: str | Path,
    config: Any,
    key_mapping: dict[str, str] | None = None,
    replaced: Iterable[str] = (),
) -> nn.Module:
    """A model of transformers from a local folder, in float32. Other weights in the file are ignored; UserError if the
    model's weights do not fit its configuration. key_mapping: patterns in the names of weights and their replacements.
    replaced: fields of config.json that options override."""
    from safetensors import SafetensorError
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # otherwise it lists every ignored weight, such as those of a text encoder
    logging.disable_progress_bar()
    try:
        with weights_only():
            model, info = model_class.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # otherwise the error does not say which ones
                dtype=torch.float32,
                key_mapping=key_mapping,
            )
    except (OSError, RuntimeError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(f"{folder}: cannot be loaded ({refusal(error)})") from None
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
    check_loaded(folder, model, info, replaced)
    return model


def folder_config(folder: str | Path) -> Any:
    """The configuration in a local folder of transformers; UserError if there is none."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"{folder}: no config.json here; give a local folder that transformers saved or downloaded")
    check_published(Path(folder))
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise UserError(f"{folder}/config.json: {one_line(error, 200)}; {PUBLISHED}") from None


def extractor_settings(folder: str | Path) -> tuple[Path, dict[str, Any]]:
    """The settings of the feature extractor in a folder of transformers, and their file, which newer versions call
    processor_config.json; {} without either."""
    what, how = "settings of a feature extractor", "download the folder again"
    path = Path(folder) / "processor_config.json"
    if path.is_file():
        nested = read_object(path, what, how).get("feature_extractor")
        if isinstance(nested, dict):
            return path, nested
    path = Path(folder) / "preprocessor_config.json"
    return path, read_object(path, what, how) if path.is_file() else {}
